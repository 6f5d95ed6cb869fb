//! Content that is not what it should be: a clear error, nothing visible, nothing left.

use berth_core::{Digest, Kind};
use bytes::Bytes;
use serde_json::json;

use crate::{
    made::{Layer, Made, noise},
    upstream::{Fault, Upstream},
};

/// Pulls what must fail; the message.
async fn refused(made: &Made, fault: impl Fn(&Made) -> Option<(Digest, Fault)>) -> (Kind, String) {
    let (upstream, node) = Upstream::with_node("").await;
    let reference = upstream.image("a:1", made);
    if let Some((digest, fault)) = fault(made) {
        let digest = digest.to_string();
        upstream.fail(move |asked| asked.path.contains(&digest).then(|| fault.clone()));
    }
    let failure = node.pull(&reference).await.failure();
    assert!(node.list(&[]).await.unwrap().is_empty() && node.get(&reference).await.is_err());
    assert_eq!(node.blobs(), 0);
    // Only what a pull can go on with, and nothing laid down; at once, for all parts of the pull have ended.
    assert_eq!(node.directories(), 0);
    for name in node.ingest() {
        let length = node.stored().join("ingest").join(&name).metadata().unwrap().len();
        assert!(name.starts_with("sha256-") && length > 0, "{name}: {length} bytes");
    }
    (failure.kind, failure.message)
}

fn layers() -> [Layer; 2] {
    [Layer::noise(1, 300_000).gzip(), Layer::noise(2, 1000)]
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_a_layer() {
    let made = Made::new(&layers());
    let other = |made: &Made| {
        let layer = &made.layers[0];
        Some((layer.digest(), Fault::Content(noise(9, layer.blob.len()).into())))
    };
    let (kind, message) = refused(&made, other).await;
    assert_eq!(kind, Kind::DataLoss);
    assert!(message.contains(&made.layers[0].digest().to_string()) && message.contains("damaged"), "{message}");
    let flipped = |made: &Made| {
        let layer = &made.layers[0];
        let mut blob = layer.blob.clone();
        *blob.last_mut().unwrap() ^= 1;
        Some((layer.digest(), Fault::Content(blob.into())))
    };
    assert_eq!(refused(&made, flipped).await.0, Kind::DataLoss);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_oversize_layers() {
    let made = Made::new(&layers());
    let shorter = |made: &Made| {
        let layer = &made.layers[0];
        Some((layer.digest(), Fault::Content(Bytes::copy_from_slice(&layer.blob[..layer.blob.len() - 10]))))
    };
    let (kind, message) = refused(&made, shorter).await;
    assert!(kind == Kind::Unavailable, "{kind:?} {message}");
    let longer = |made: &Made| {
        let layer = &made.layers[0];
        Some((layer.digest(), Fault::Content([&*layer.blob, &[0; 1000]].concat().into())))
    };
    let (kind, message) = refused(&made, longer).await;
    assert_eq!(kind, Kind::DataLoss);
    assert!(message.contains("more than the"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_diff_id_and_hostile_tar() {
    let mut lying = layers();
    lying[0].diff_id = Digest::sha256(b"something else");
    let (kind, message) = refused(&Made::new(&lying), |_| None).await;
    assert_eq!(kind, Kind::DataLoss, "{message}");
    assert!(message.contains(&lying[0].diff_id.to_string()), "{message}");
    let garbage = noise(3, 100_000);
    let no_tar = Layer { diff_id: Digest::sha256(&garbage), blob: garbage, ..layers()[1].clone() };
    let (kind, message) = refused(&Made::new(&[no_tar]), |_| None).await;
    assert_eq!(kind, Kind::InvalidArgument, "{message}");
    // Compression that breaks off, with a digest that is right.
    let mut cut = layers()[0].clone();
    cut.blob.truncate(cut.blob.len() / 2);
    let (_, message) = refused(&Made::new(&[cut]), |_| None).await;
    assert!(message.contains("the snapshotter"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_do_not_fit() {
    let [one, two] = layers();
    let fewer = Made::with(&[one.clone(), two], json!({ "rootfs": { "type": "layers", "diff_ids": [one.diff_id] } }));
    let (kind, message) = refused(&fewer, |_| None).await;
    assert!(
        kind == Kind::InvalidArgument && message.contains("its manifest has 2 layers and its configuration 1"),
        "{message}"
    );
    let malformed = Made::of(b"{".to_vec(), std::slice::from_ref(&one));
    assert!(refused(&malformed, |_| None).await.1.contains("configuration is malformed"));
    let size = format!("\"size\":{}", one.blob.len());
    let huge = Made::new(&[one]).edited(&size, "\"size\":9000000000000000000");
    let (kind, message) = refused(&huge, |_| None).await;
    assert!(kind == Kind::ResourceExhausted && message.contains("no space left"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_beginning_is_found_out() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&layers());
    let reference = upstream.image("a:1", &made);
    let digest = made.layers[0].digest();
    let partial = node.stored().join("ingest").join(format!("sha256-{}", digest.hex()));
    std::fs::write(partial, noise(9, 100_000)).unwrap();
    let pulled = node.pull(&reference).await;
    assert!(pulled.notices()[0].contains("is not sha256:"), "{:?}", pulled.notices());
    pulled.done();
}

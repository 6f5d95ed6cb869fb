//! What a reference may name: manifests and indexes in either format, layers in any compression; and what is refused.

use berth_core::Kind;
use berth_proto::berth::image::v1::pull_progress::Message;
use serde_json::json;

use crate::{
    made::{INDEX, Layer, MANIFEST, Made},
    upstream::Upstream,
};

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_and_every_compression() {
    let (upstream, node) = Upstream::with_node("").await;
    let layers = [
        Layer::plain("plain", b"one"),
        Layer::plain("gzip", b"two").gzip(),
        Layer::plain("zstd", b"three").zstd(),
        // The first bytes decide, not what is said.
        Layer { media_type: "application/vnd.oci.image.layer.v1.tar".into(), ..Layer::plain("lying", b"four").gzip() },
    ];
    let oci = Made::new(&layers);
    let pulled = node.pull(&upstream.image("some/oci:1", &oci)).await;
    assert!(matches!(&pulled.said[0], Message::Plan(plan) if plan.layers.len() == 4), "{:?}", pulled.said);
    let done = pulled.done();
    let image = done.image.unwrap();
    assert_eq!((image.id, done.digest), (oci.id().to_string(), oci.digest().to_string()));
    assert_eq!(image.config, oci.config);
    assert_eq!(image.names, [format!("{}/some/oci:1", upstream.address)]);
    assert_eq!(image.repo_digests, [format!("{}/some/oci@{}", upstream.address, oci.digest())]);
    assert_eq!(image.size, layers.iter().map(|_| 2048).sum::<u64>());
    assert!(done.changed);
    let docker = Made::with(&layers[1..2], json!({ "author": "docker" })).docker();
    let done = node.pull(&upstream.image("some/docker:1", &docker)).await.done();
    assert_eq!(done.image.unwrap().manifest_media_type, docker.media_type);
    // Again: nothing is new, and nothing but the manifest is asked for.
    let asked = upstream.count("/blobs/");
    let again = node.pull(&format!("{}/some/docker:1", upstream.address)).await.done();
    assert!(!again.changed && upstream.count("/blobs/") == asked);
    // By digest: no name, and still there.
    let by_digest = format!("{}/some/oci@{}", upstream.address, oci.digest());
    assert_eq!(node.pull(&by_digest).await.done().image.unwrap().id, oci.id().to_string());
    assert_eq!(node.get(&by_digest).await.unwrap().id, oci.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_layers_and_one_with_a_layer_twice() {
    let (upstream, node) = Upstream::with_node("").await;
    let empty = node.pull(&upstream.image("empty:1", &Made::new(&[]))).await.done().image.unwrap();
    assert_eq!((empty.chain_id.as_str(), empty.size), ("", 0));
    let layer = Layer::plain("a", b"b").gzip();
    let twice = Made::new(&[layer.clone(), layer.clone()]);
    let image = node.pull(&upstream.image("twice:1", &twice)).await.done().image.unwrap();
    assert_eq!(image.diff_ids.len(), 2);
    assert_eq!(upstream.count(&layer.digest().to_string()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_and_nothing_beside_it() {
    let (upstream, node) = Upstream::with_node("").await;
    let on = |architecture: &str, variant: &str| {
        Made::with(
            &[Layer::plain("a", variant.as_bytes())],
            json!({ "architecture": architecture, "variant": variant }),
        )
    };
    let (amd, v6, v7) = (on("amd64", ""), on("arm", "v6"), on("arm", "v7"));
    let platform = |architecture: &str, variant: &str| json!({ "platform": { "os": "linux", "architecture": architecture, "variant": variant } });
    let attestation = Made::with(&[], json!({ "architecture": "unknown", "os": "unknown" }));
    let beside = json!({
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
    });
    // One that claims to be for us.
    let lying = json!({
        "platform": { "os": "linux", "architecture": "amd64" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
    });
    let entries = [
        (&attestation, beside),
        (&attestation, lying),
        (&v6, platform("arm", "v6")),
        (&v7, platform("arm", "v7")),
        (&amd, platform("amd64", "")),
    ];
    let reference = upstream.index("multi:1", &entries);
    for (wanted, made) in [("linux/amd64", &amd), ("linux/arm/v7", &v7), ("linux/arm/v6", &v6), ("linux/arm/v8", &v7)] {
        let done = node.pull_as(&reference, None, wanted).await.done();
        let image = done.image.unwrap();
        assert_eq!(image.id, made.id().to_string(), "{wanted}");
        assert_ne!(image.manifest_digest, done.digest, "the index is what was named");
    }
    let failure = node.pull_as(&reference, None, "linux/s390x").await.failure();
    assert_eq!(failure.kind, Kind::NotFound);
    for part in ["linux/s390x", "linux/amd64", "linux/arm/v6", "linux/arm/v7"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert!(!failure.message.contains("unknown"), "{}", failure.message);
    // A manifest for something else, without an index.
    let other = upstream.image("other:1", &v7);
    assert!(node.pull_as(&other, None, "linux/amd64").await.failure().message.contains("linux/arm/v7"));
    assert!(node.get(&other).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_indexes_end_somewhere() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::plain("a", b"b")]);
    upstream.content("deep", &made);
    let mut below = (made.digest(), made.manifest.len(), MANIFEST);
    for depth in 1..=5 {
        let entry = json!({ "mediaType": below.2, "digest": below.0, "size": below.1,
            "platform": { "os": "linux", "architecture": "amd64" } });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string();
        below = (upstream.manifest("deep", &depth.to_string(), index.as_bytes(), INDEX), index.len(), INDEX);
    }
    node.pull(&format!("{}/deep:3", upstream.address)).await.done();
    let failure = node.pull(&format!("{}/deep:5", upstream.address)).await.failure();
    assert!(failure.message.contains("nested more than 4 deep"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_refused_with_a_sentence() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::plain("a", b"b").gzip()]);
    let helm = made.edited("application/vnd.oci.image.config.v1+json", "application/vnd.cncf.helm.config.v1+json");
    let both = made.edited("\"layers\":", "\"manifests\":[],\"layers\":");
    let encrypted = made.edited("tar+gzip", "tar+gzip+encrypted");
    let typed = |layer: &str| made.edited("application/vnd.oci.image.layer.v1.tar+gzip", layer).manifest;
    let cases = [
        (
            typed("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            MANIFEST,
            "as with base images of Windows",
        ),
        (typed("application/vnd.oci.image.layer.v1.squashfs"), MANIFEST, "application/vnd.oci.image.layer.v1.squashfs"),
        (helm.manifest, MANIFEST, "no runnable image but an artifact of the type application/vnd.cncf.helm"),
        (
            br#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#.to_vec(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
        ),
        (b"<html>log in to the hotel's network</html>".to_vec(), "text/html", "no manifest"),
        (both.manifest, MANIFEST, "index and a manifest at once"),
        (encrypted.manifest, MANIFEST, "encrypted"),
        (made.manifest.clone(), INDEX, "came as"),
    ];
    for (number, (manifest, media_type, why)) in cases.into_iter().enumerate() {
        upstream.manifest("bad", &number.to_string(), &manifest, media_type);
        let failure = node.pull(&format!("{}/bad:{number}", upstream.address)).await.failure();
        assert_eq!(failure.kind, Kind::InvalidArgument, "{}", failure.message);
        assert!(failure.message.contains(why), "{}", failure.message);
    }
    assert_eq!(upstream.count("/blobs/"), 0, "nothing of them was fetched");
    // Too much to be read.
    upstream.manifest("bad", "big", &vec![b' '; 9 << 20], MANIFEST);
    let asked = upstream.asked().len();
    let failure = node.pull(&format!("{}/bad:big", upstream.address)).await.failure();
    assert!(failure.message.contains("longer than 8388608 bytes"), "{}", failure.message);
    assert_eq!(upstream.asked().len(), asked + 1, "it is not tried again");
    assert!(node.list(&[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn references_are_read_as_docker_reads_them() {
    let (upstream, node) = Upstream::with_node("").await;
    for bad in ["up/Case", "a:b:c", "x@sha256:12", "", "a//b", &"a".repeat(64)] {
        let failure = node.pull(bad).await.failure();
        assert_eq!(failure.kind, Kind::InvalidArgument, "{bad}");
        assert!(failure.message.contains("invalid reference format"), "{}", failure.message);
    }
    let made = Made::new(&[]);
    upstream.image("a/b:latest", &made);
    let done = node.pull(&format!("{}/a/b", upstream.address)).await.done();
    assert_eq!(done.image.unwrap().names, [format!("{}/a/b:latest", upstream.address)]);
    // With both, the digest decides; the tag is for people.
    let both = format!("{}/a/b:other@{}", upstream.address, made.digest());
    assert_eq!(node.pull(&both).await.done().digest, made.digest().to_string());
    assert_eq!(node.list(&[]).await.unwrap()[0].names.len(), 1);
}

//! Mirrors: asked in order, told what they stand for, passed over when they cannot help.

use berth_core::Kind;
use berth_proto::berth::image::v1::Auth as Credentials;
use bytes::Bytes;

use crate::{
    made::{Layer, Made},
    node::Node,
    place::Place,
    upstream::{Auth, Fault, Upstream},
};

fn made() -> Made {
    Made::new(&[Layer::noise(1, 200_000).gzip(), Layer::noise(2, 50_000)])
}

/// Two mirrors, the registry, and a node that knows all of them.
fn three() -> (Upstream, Upstream, Upstream, Node) {
    let place = Place::new();
    let [one, two, own] = [(); 3].map(|()| Upstream::start(&place));
    let section = format!(
        "stall_timeout = 1\n[image.registry.'{}']\nmirrors = ['{}', '{}/some/path/']",
        own.address,
        one.url(),
        two.url()
    );
    let node = Node::start_in(place, tempfile::tempdir().unwrap(), &section);
    (one, two, own, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_that_has_it_is_enough() {
    let (one, two, own, node) = three();
    let made = made();
    one.image("a/b:1", &made);
    let reference = own.image("a/b:1", &made);
    let image = node.pull(&reference).await.done().image.unwrap();
    assert_eq!(image.names, [reference]);
    assert!(two.asked().is_empty() && own.count("a/b") == 0);
    let ns = format!("?ns={}", own.address);
    assert!(one.asked().iter().all(|asked| asked.path.ends_with(&ns)), "{:?}", one.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_mirror_the_next_is_asked_and_it_is_said() {
    let (one, two, own, node) = three();
    let made = made();
    let reference = own.image("a/b:1", &made);
    one.image("a/b:1", &made);
    let status = |status| move || Fault::Status(status, String::new(), "<p>broken</p>".into());
    let faults: Vec<Box<dyn Fn() -> Fault + Send>> = vec![
        Box::new(status(404)),
        Box::new(status(500)),
        Box::new(status(403)),
        Box::new(status(429)),
        Box::new(|| Fault::Content(Bytes::from_static(b"<html>the hotel's network</html>"))),
        Box::new(|| Fault::Silent),
    ];
    for fault in faults {
        let name = format!("{:?}", fault());
        one.fail(move |_| Some(fault()));
        let pulled = node.pull(&reference).await;
        let notices = pulled.notices();
        assert!(notices.iter().any(|n| n.contains(&one.address) && n.contains("passed over")), "{name}: {notices:?}");
        // The second has nothing at all.
        assert!(notices.iter().any(|n| n.contains(&two.address) && n.contains("404")), "{name}: {notices:?}");
        pulled.done();
        node.remove(&reference, false).await.unwrap();
    }
    // Nobody listens there.
    drop(one);
    let pulled = node.pull(&reference).await;
    assert!(pulled.notices()[0].contains("passed over"), "{:?}", pulled.notices());
    pulled.done();
    assert!(two.asked().iter().all(|asked| asked.path.starts_with("/some/path/v2/a/b/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_a_mirror_do_no_harm() {
    let (one, _two, own, node) = three();
    let made = made();
    let reference = own.image("a/b:1", &made);
    one.image("a/b:1", &made);
    // Of the right length, so that only the digest shows it; long enough to be unpacked meanwhile.
    let layer = made.layers[0].clone();
    let path = layer.digest().to_string();
    let mut wrong = layer.blob.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    let wrong = Bytes::from(wrong);
    one.fail(move |asked| asked.path.contains(&path).then(|| Fault::Content(wrong.clone())));
    let pulled = node.pull(&reference).await;
    let notices = pulled.notices();
    assert!(notices.iter().any(|n| n.contains("damaged") && n.contains(&one.address)), "{notices:?}");
    pulled.done();
    // By digest, a mirror that answers with another manifest.
    node.remove(&reference, true).await.unwrap();
    let other = Made::new(&[]);
    one.fail(move |asked| asked.path.contains("/manifests/").then(|| Fault::Content(other.manifest.clone().into())));
    let by_digest = format!("{}/a/b@{}", own.address, made.digest());
    let pulled = node.pull(&by_digest).await;
    assert!(pulled.notices()[0].contains("is not sha256:"), "{:?}", pulled.notices());
    pulled.done();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_not_for_mirrors() {
    let (one, _two, own, node) = three();
    let made = made();
    let reference = own.image("a/b:1", &made);
    one.image("a/b:1", &made);
    one.auth(Auth::Basic);
    own.auth(Auth::Basic);
    let auth = Credentials { username: "user".into(), password: "secret".into(), ..Default::default() };
    node.pull_as(&reference, Some(auth), "").await.done();
    assert!(!one.asked().is_empty() && one.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    assert!(own.asked().iter().any(|asked| asked.headers.contains_key("authorization")));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_reasons_are_named_when_nobody_has_it() {
    let (one, _two, own, node) = three();
    one.fail(|_| Some(Fault::Status(500, String::new(), String::new())));
    let failure = node.pull(&format!("{}/a/b:1", own.address)).await.failure();
    assert_eq!(failure.kind, Kind::NotFound);
    assert!(failure.message.contains("500") && failure.message.contains(&own.address), "{failure}");
    // What a mirror said about the image counts where the registry is away.
    let other = own.address.clone();
    drop(own);
    one.well();
    one.image("a/b:1", &Made::with(&[], serde_json::json!({ "architecture": "s390x" })));
    one.index(
        "a/c:1",
        &[(&Made::new(&[]), serde_json::json!({ "platform": { "os": "linux", "architecture": "s390x" } }))],
    );
    let failure = node.pull(&format!("{other}/a/c:1")).await.failure();
    assert!(failure.message.contains("linux/s390x"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_for_loopback_and_what_is_named_so() {
    let place = Place::new();
    place.within(|| {
        let added =
            std::process::Command::new("ip").args(["addr", "add", "10.9.8.7/32", "dev", "lo"]).status().unwrap();
        assert!(added.success());
    });
    let upstream = Upstream::start_at(&place, "10.9.8.7:5000");
    let reference = upstream.image("a:1", &made());
    let node = Node::start_in(place.clone(), tempfile::tempdir().unwrap(), "");
    let failure = node.pull(&reference).await.failure();
    assert!(failure.message.contains("TLS") && failure.hint.contains("plain_http = true"), "{failure}");
    let section = "[image.registry.'10.9.8.7:5000']\nplain_http = true";
    let node = Node::start_in(place, tempfile::tempdir().unwrap(), section);
    node.pull(&reference).await.done();
}

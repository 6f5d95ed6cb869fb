//! A full disk: said with what is needed, and everything back to the start.

use berth_core::Kind;

use crate::{
    made::{Layer, Made},
    node::Node,
    place::Place,
    upstream::Upstream,
};

fn small(bytes: u64) -> (Upstream, Node) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let place = Place::with_disk(&root, bytes);
    let upstream = Upstream::start(&place);
    (upstream, Node::start_in(place, directory, ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fit_is_not_begun() {
    let (upstream, node) = small(20 << 20);
    let made = Made::new(&[Layer::noise(1, 12 << 20), Layer::noise(2, 12 << 20)]);
    let reference = upstream.image("a:1", &made);
    let failure = node.pull(&reference).await.failure();
    assert_eq!((failure.kind, failure.reason.as_str()), (Kind::ResourceExhausted, "NO_SPACE"));
    assert!(failure.message.contains("needs at least 25.2 MB compressed"), "{failure}");
    assert!(failure.hint.contains("berth rmi"), "{failure}");
    assert!(upstream.sent() < 10_000, "only the configuration was fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_is_as_it_was_afterwards() {
    let (upstream, node) = small(40 << 20);
    let kept = upstream.image("kept:1", &Made::new(&[Layer::plain("a", b"b")]));
    node.pull(&kept).await.done();
    let before = node.used();
    // It fits as it arrives, and not unpacked: 24 MiB of blobs, and as much again.
    let layers: Vec<Layer> = (1..=3).map(|n| Layer::noise(n, 8 << 20)).collect();
    let reference = upstream.image("a:1", &Made::new(&layers));
    let failure = node.pull(&reference).await.failure();
    assert_eq!((failure.kind, failure.reason.as_str()), (Kind::ResourceExhausted, "NO_SPACE"), "{failure}");
    assert!(failure.message.contains("25.2 MB compressed"), "{failure}");
    assert_eq!(node.ingest(), Vec::<String>::new());
    node.when(|| node.used() <= before + (1 << 20));
    assert!(node.get(&kept).await.is_ok() && node.get(&reference).await.is_err());
    let small = upstream.image("small:1", &Made::new(&[Layer::noise(7, 8 << 20)]));
    node.pull(&small).await.done();
}

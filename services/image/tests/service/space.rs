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

#[tokio::test(flavor = "multi_thread")]
async fn records_that_could_not_be_written_can_be_when_there_is_room_again() {
    let (upstream, mut node) = small(20 << 20);
    let reference = upstream.image("a:1", &Made::new(&[Layer::plain("a", b"b")]));
    node.pull(&reference).await.done();
    let filler = node.stored().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    let mut given = Vec::new();
    // The store has some room of its own; it is used up in the end.
    let failure = loop {
        let name = format!("name-{}:1", given.len());
        match node.tag(&reference, &name).await {
            Ok(_) => given.push(name),
            Err(failure) => break failure,
        }
        assert!(given.len() < 5000, "the disk is full");
    };
    assert_eq!((failure.kind, failure.reason.as_str()), (Kind::ResourceExhausted, "NO_SPACE"), "{failure}");
    assert!(failure.message.contains("meta.redb") && failure.hint.contains("berth rmi"), "{failure}");
    // It starts on a full disk, too: images are to be removed there.
    node.kill();
    node.start_again();
    node.get(&reference).await.unwrap();
    let filler = node.stored().join("filler");
    drop(file);
    std::fs::remove_file(filler).unwrap();
    node.tag(&reference, "later:1").await.unwrap();
    for name in given.iter().map(String::as_str).chain(["later:1"]) {
        node.get(name).await.unwrap();
    }
    assert!(node.get(&format!("name-{}:1", given.len())).await.is_err());
}

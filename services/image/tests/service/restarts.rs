//! Killed at a bad moment, started again with what is left.

use std::fs;

use crate::{
    made::{Layer, Made},
    upstream::Upstream,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_goes_on_where_it_was() {
    let (upstream, mut node) = Upstream::with_node("").await;
    // One layer is whole when the service dies, one in the middle.
    let made = Made::new(&[Layer::noise(1, 1 << 20).gzip(), Layer::noise(2, 4 << 20).gzip()]);
    let reference = upstream.image("a:1", &made);
    upstream.allow(3 << 20);
    let stream = node.begin(&reference).await;
    let (config, first) = (made.config.len() as u64, made.layers[0].blob.len() as u64);
    node.when(|| node.arrived() == config + first + (3 << 20));
    node.kill();
    drop(stream);
    upstream.allow(u64::MAX);
    node.start_again();
    assert!(node.list(&[]).await.unwrap().is_empty() && node.get(&reference).await.is_err());
    node.pull(&reference).await.done();
    let (sent, size) = (upstream.sent(), made.bytes());
    // The registry may write one more piece before it learns that nobody reads.
    assert!(sent <= size + (16 << 10), "{sent} bytes were sent for {size}");
    assert!(upstream.asked().iter().any(|asked| asked.from().is_some_and(|from| from > 0)));
    assert_eq!(node.ingest(), Vec::<String>::new());
    // What is there is there after another one.
    node.kill();
    node.start_again();
    assert_eq!(node.get(&reference).await.unwrap().id, made.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_nothing_half_is_seen() {
    let (upstream, mut node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 300_000).gzip(), Layer::noise(2, 300_000)]);
    let reference = upstream.image("a:1", &made);
    let size = 300_000;
    for step in 1..=6 {
        upstream.allow(size * step / 6);
        let mut stream = node.begin(&reference).await;
        // Until nothing more comes, or the image is done.
        let done = tokio::select! {
            () = upstream.stopped(1) => false,
            done = async { while let Ok(Some(_)) = stream.message().await {} ; true } => done,
        };
        node.kill();
        drop(stream);
        node.start_again();
        let listed = node.list(&[]).await.unwrap();
        assert!(listed.is_empty() || done, "step {step}");
    }
    upstream.allow(u64::MAX);
    node.pull(&reference).await.done();
    assert_eq!((node.blobs(), node.ingest().len()), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_moved_aside_and_rebuilt() {
    let (upstream, mut node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::plain("a", b"b")]);
    let reference = upstream.image("a:1", &made);
    node.pull(&reference).await.done();
    let sent = upstream.sent();
    for damage in ["", "this is no store", &"x".repeat(100_000)] {
        node.kill();
        fs::write(node.stored().join("meta.redb"), damage).unwrap();
        node.start_again();
        assert_eq!(node.get(&reference).await.unwrap().id, made.id().to_string());
    }
    let aside = |name: &str| name.starts_with("meta.redb.damaged-");
    let names = fs::read_dir(node.stored()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.filter(|name| aside(name)).count() > 0);
    assert!(node.log().contains("moved aside and rebuilt"));
    // Without its copy the content stays all the same.
    node.kill();
    fs::write(node.stored().join("meta.redb"), "broken").unwrap();
    fs::write(node.stored().join("images.json"), "broken").unwrap();
    node.start_again();
    assert!(node.list(&[]).await.unwrap().is_empty());
    node.pull(&reference).await.done();
    assert_eq!(upstream.sent(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_without_an_image_are_removed_at_the_start() {
    let (upstream, mut node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::plain("a", b"b"), Layer::plain("c", b"d")]);
    node.pull(&upstream.image("a:1", &made)).await.done();
    assert_eq!(node.directories(), 4);
    node.kill();
    // As if it had been killed between the snapshots and the record.
    for name in ["meta.redb", "images.json"] {
        fs::remove_file(node.stored().join(name)).unwrap();
    }
    node.start_again();
    node.when(|| node.directories() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_upstream, mut node) = Upstream::with_node("").await;
    node.kill();
    fs::set_permissions(node.stored(), fs::Permissions::from_mode(0o755)).unwrap();
    node.start_again();
    assert_eq!(node.stored().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

//! What nobody needs goes, what somebody needs stays, whoever removes what and when.

use futures::future::join_all;

use crate::{
    made::{Layer, Made},
    upstream::{Fault, Upstream},
};

#[tokio::test(flavor = "multi_thread")]
async fn content_goes_with_the_last_image_that_has_it() {
    let (upstream, node) = Upstream::with_node("").await;
    let base = Layer::noise(1, 50_000).gzip();
    let [one, two] = [1, 2].map(|n| Made::new(&[base.clone(), Layer::noise(10 + n, 1000)]));
    let (one, two) = (upstream.image("a:1", &one), upstream.image("a:2", &two));
    node.pull(&one).await.done();
    node.pull(&two).await.done();
    assert_eq!(node.blobs(), 7);
    node.remove(&one, false).await.unwrap();
    assert_eq!(node.blobs(), 4);
    // The shared one was not fetched again.
    let sent = upstream.sent();
    node.pull(&one).await.done();
    assert!(upstream.sent() - sent < 10_000);
    node.remove(&one, false).await.unwrap();
    node.remove(&two, false).await.unwrap();
    assert_eq!((node.blobs(), node.ingest().len()), (0, 0));
    node.when(|| node.directories() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_while_pulling_kills_no_pull() {
    let (upstream, node) = Upstream::with_node("").await;
    let base = Layer::noise(1, 100_000).gzip();
    let references: Vec<String> = (0..4)
        .map(|n| upstream.image(&format!("a:{n}"), &Made::new(&[base.clone(), Layer::noise(10 + n, 20_000)])))
        .collect();
    let pullers = references.iter().map(|reference| async {
        for _ in 0..8 {
            node.pull(reference).await.done();
            // Only now and then, so that layers are shared, and not.
            let _ = node.remove(reference, true).await;
        }
    });
    let sweeper = async {
        for _ in 0..60 {
            for image in node.list(&[]).await.unwrap() {
                let _ = node.remove(&image.id, true).await;
            }
        }
    };
    futures::join!(join_all(pullers), sweeper);
    for reference in &references {
        node.pull(reference).await.done();
    }
    assert_eq!((node.blobs(), node.ingest()), (1 + 4 * 3, Vec::new()));
    for reference in &references {
        node.remove(reference, false).await.unwrap();
    }
    assert_eq!((node.blobs(), node.ingest().len()), (0, 0));
    node.when(|| node.directories() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_nobody_goes_after_a_day() {
    let (upstream, mut node) = Upstream::with_node("").await;
    let ingest = node.stored().join("ingest");
    let partial = |content: &[u8]| ingest.join(format!("sha256-{}", berth_core::Digest::sha256(content).hex()));
    let day = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    for (content, old) in [(b"old", true), (b"new", false)] {
        let file = std::fs::File::create(partial(content)).unwrap();
        if old {
            file.set_modified(day).unwrap();
        }
    }
    // At the end of any pull, and at the start.
    node.pull(&upstream.image("a:1", &Made::new(&[]))).await.done();
    assert!(!partial(b"old").exists() && partial(b"new").exists());
    node.kill();
    std::fs::File::options().write(true).open(partial(b"new")).unwrap().set_modified(day).unwrap();
    for name in ["load-1", "put-1", "read-1", "trash-1"] {
        let path = ingest.join(name);
        if name == "load-1" { std::fs::create_dir(path).unwrap() } else { std::fs::write(path, "x").unwrap() }
    }
    node.start_again();
    assert_eq!(node.ingest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_fails_or_is_given_up_leaves_nothing_laid_down() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 300_000).gzip(), Layer::noise(2, 300_000)]);
    let reference = upstream.image("a:1", &made);
    let last = made.layers[1].digest().to_string();
    // The last is refused when the first is being laid down, or is.
    upstream.fail(move |asked| asked.path.contains(&last).then(|| Fault::Status(400, String::new(), String::new())));
    node.pull(&reference).await.failure();
    assert_eq!((node.directories(), node.blobs()), (0, 0));
    upstream.well();
    upstream.allow(100_000);
    let stream = node.begin(&reference).await;
    upstream.stopped(1).await;
    drop(stream);
    node.when(|| node.directories() == 0);
    assert_eq!(node.blobs(), 0);
    upstream.allow(u64::MAX);
    node.pull(&reference).await.done();
    assert_eq!((node.directories(), node.ingest()), (4, Vec::new()));
}

//! Bad lines: what has arrived is kept and gone on with.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use berth_core::Kind;

use crate::{
    made::{Layer, Made},
    upstream::{Fault, Upstream},
};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cuts_cost_nothing() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 5 << 20).gzip()]);
    let reference = upstream.image("a:1", &made);
    let cuts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&cuts);
    upstream.fail(move |asked| {
        let last = asked.from().unwrap_or(0) + 101_000 > 5 << 20;
        (asked.is_blob() && !last).then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::Cut(101_000)
        })
    });
    let pulled = node.pull(&reference).await;
    assert!(pulled.notices().iter().all(|n| n.contains("going on at")), "{:?}", pulled.notices());
    pulled.done();
    let cuts = cuts.load(Ordering::SeqCst);
    assert!(cuts >= 50, "{cuts} cuts");
    let (sent, size) = (upstream.sent(), made.bytes());
    assert!(sent * 100 <= size * 102, "{sent} bytes were sent for {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_begin_in_the_middle_begins_anew() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 2 << 20)]);
    let layer = made.layers[0].digest().to_string();
    let reference = upstream.image("a:1", &made);
    let mut asked_before = 0;
    upstream.fail(move |asked| {
        asked.path.contains(&layer).then(|| {
            asked_before += 1;
            if asked_before < 4 { Fault::Cut(300_000 * asked_before) } else { Fault::NoRange }
        })
    });
    node.pull(&reference).await.done();
    // One that sends something else than it was asked for is not believed.
    let (upstream, node) = Upstream::with_node("").await;
    let reference = upstream.image("a:1", &made);
    upstream.fail(|asked| {
        let first = asked.from().is_none();
        asked.is_blob().then_some(if first { Fault::Cut(300_000) } else { Fault::OtherRange })
    });
    let failure = node.pull(&reference).await.failure();
    assert!(failure.message.contains("and sent"), "{failure}");
    upstream.well();
    node.pull(&reference).await.done();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_hosts_are_given_up() {
    for fault in [Fault::Trickle, Fault::Silent] {
        let (upstream, node) = Upstream::with_node("stall_timeout = 1").await;
        let made = Made::new(&[Layer::noise(1, 100_000)]);
        let layer = made.layers[0].digest().to_string();
        let reference = upstream.image("a:1", &made);
        let mut times = 2;
        let fails = fault.clone();
        upstream.fail(move |asked| {
            (asked.path.contains(&layer) && times > 0).then(|| {
                times -= 1;
                fails.clone()
            })
        });
        let pulled = node.pull(&reference).await;
        let notices = pulled.notices();
        assert_eq!(notices.len(), 2, "{fault:?}: {notices:?}");
        pulled.done();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_outages_are_waited_for() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::plain("a", b"b")]);
    let reference = upstream.image("a:1", &made);
    let mut answers = vec![
        Fault::Status(
            429,
            "retry-after: 1\r\n".into(),
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slowly"}]}"#.into(),
        ),
        Fault::Status(503, String::new(), String::new()),
        Fault::Status(502, String::new(), String::new()),
    ];
    upstream.fail(move |asked| if asked.path == "/v2/" { None } else { answers.pop() });
    let pulled = node.pull(&reference).await;
    let notices = pulled.notices();
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(notices[2].contains("slowly") && notices[2].contains("asks to wait"), "{notices:?}");
    pulled.done();
    // Longer than anybody waits.
    upstream.fail(|_| Some(Fault::Status(429, "retry-after: 3600\r\n".into(), String::new())));
    let asked = upstream.asked().len();
    let failure = node.pull(&reference).await.failure();
    assert_eq!((failure.kind, upstream.asked().len()), (Kind::Unavailable, asked + 1), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_pull_brought_is_there_for_the_next() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 1 << 20), Layer::noise(2, 1 << 20)]);
    let reference = upstream.image("a:1", &made);
    upstream.fail(|asked| {
        let first = asked.from().is_none();
        asked.is_blob().then_some(if first {
            Fault::Cut(500_000)
        } else {
            Fault::Status(400, String::new(), String::new())
        })
    });
    let failure = node.pull(&reference).await.failure();
    assert!(failure.message.contains(&upstream.address) && failure.message.contains("400"), "{failure}");
    assert!(node.list(&[]).await.unwrap().is_empty());
    let usage = node.usage().await;
    assert!(usage.blobs == 0 && usage.partial_bytes >= 500_000, "{usage:?}");
    upstream.well();
    node.pull(&reference).await.done();
    assert!(upstream.sent() <= made.bytes() * 102 / 100);
    assert_eq!(node.usage().await.partial_blobs, 0);
    assert!(node.ingest().is_empty(), "{:?}", node.ingest());
}

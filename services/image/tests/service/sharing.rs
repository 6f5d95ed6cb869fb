//! Work that several want is done once, and ends with the last who wants it.

use futures::future::join_all;

use crate::{
    made::{Layer, Made},
    node::follow,
    upstream::Upstream,
};

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_of_one_image_are_one() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 1 << 20).gzip(), Layer::noise(2, 1 << 20)]);
    let reference = upstream.image("a:1", &made);
    upstream.allow(500_000);
    let first = node.begin(&reference).await;
    upstream.stopped(2).await;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(node.begin(&reference).await);
    }
    // Who comes later hears what the first has heard.
    let heard = others[0].message().await.unwrap().unwrap();
    assert!(format!("{heard:?}").contains("Plan"), "{heard:?}");
    upstream.allow(u64::MAX);
    for pulled in join_all([first].into_iter().chain(others).map(follow)).await {
        assert_eq!(pulled.done().digest, made.digest().to_string());
    }
    assert_eq!((upstream.sent(), upstream.count("/manifests/")), (made.bytes(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_share_their_layers_while_they_arrive() {
    let (upstream, node) = Upstream::with_node("").await;
    let base = Layer::noise(1, 1 << 20).gzip();
    let images: Vec<Made> = (0..4).map(|n| Made::new(&[base.clone(), Layer::noise(10 + n, 10_000)])).collect();
    let references: Vec<String> =
        images.iter().enumerate().map(|(n, made)| upstream.image(&format!("a:{n}"), made)).collect();
    for pulled in join_all(references.iter().map(|reference| node.pull(reference))).await {
        pulled.done();
    }
    assert_eq!(upstream.count(&base.digest().to_string()), 1);
    assert_eq!(node.list(&[]).await.unwrap().len(), 4);
    // One layer of all, one of each, and a snapshot for each of these.
    assert_eq!(node.directories(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_who_leaves_stops_the_work() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = Made::new(&[Layer::noise(1, 2 << 20)]);
    let reference = upstream.image("a:1", &made);
    upstream.allow(1 << 20);
    let (one, two) = (node.begin(&reference).await, node.begin(&reference).await);
    node.when(|| node.arrived() == (1 << 20) + made.config.len() as u64);
    drop(one);
    drop(two);
    upstream.left(1).await;
    assert!(node.list(&[]).await.unwrap().is_empty());
    upstream.allow(u64::MAX);
    node.pull(&reference).await.done();
    assert!(upstream.sent() <= made.bytes() * 102 / 100, "{} of {}", upstream.sent(), made.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_a_layer_goes_on_when_its_first_puller_gives_up() {
    let (upstream, node) = Upstream::with_node("").await;
    let base = Layer::noise(1, 2 << 20).gzip();
    let [one, two] = [1, 2].map(|n| Made::new(&[base.clone(), Layer::noise(10 + n, 1000)]));
    let small = (one.config.len() + one.layers[1].blob.len()) as u64;
    let (one, two) = (upstream.image("a:1", &one), upstream.image("b:1", &two));
    upstream.allow(1 << 20);
    let first = node.begin(&one).await;
    node.when(|| node.arrived() == (1 << 20) + small);
    let second = node.begin(&two).await;
    drop(first);
    upstream.left(1).await;
    upstream.allow(u64::MAX);
    follow(second).await.done();
    assert!(upstream.sent() < 5 << 19);
}

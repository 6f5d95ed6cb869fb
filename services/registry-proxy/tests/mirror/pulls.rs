//! What a client gets, and what it costs the upstream.

use http::Method;

use crate::{
    proxy::Proxy,
    upstream::{MANIFEST, Upstream, noise},
};

async fn mirror() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "").await;
    (upstream, proxy)
}

/// Each reads a first piece while the upstream is held, then all of it.
async fn cold_clients(count: usize) {
    let (upstream, proxy) = mirror().await;
    let content = noise(3 << 20);
    let path = upstream.blob("library/a", &content);
    upstream.allow(100_000);
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut answer = proxy.get(&path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.content_length(), Some(content.len() as u64));
        let first = answer.chunk().await.unwrap().unwrap();
        assert_eq!(first, content[..first.len()], "the first bytes, while the rest is still held");
        clients.push((first.len(), answer));
    }
    upstream.allow(usize::MAX);
    for (at, answer) in clients {
        assert!(answer.bytes().await.unwrap() == content[at..]);
    }
    assert_eq!(upstream.count(&Method::GET, "/blobs/"), 1);
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    assert_eq!(upstream.asked().len(), 1, "and nothing else was asked: {:?}", upstream.asked());
    let status = proxy.status().await;
    assert_eq!((status.blobs, status.bytes), (1, content.len() as u64));
    assert_eq!(status.upstreams[0].bytes_from_upstream, content.len() as u64);
    assert_eq!(status.upstreams[0].misses, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_cold_clients_cost_one_request_and_stream() {
    cold_clients(8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_cold_clients_cost_one_request_and_stream() {
    cold_clients(32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_cost_one_request_and_tags_one_head_a_ttl() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "tag_ttl = 0").await;
    let digest = upstream.manifest("library/a", "1", br#"{"config":{}}"#);
    let by_digest = format!("a/manifests/{digest}");
    let all = futures::future::join_all((0..32).map(|_| proxy.get(&by_digest))).await;
    for answer in all {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], MANIFEST);
        assert_eq!(answer.headers()["docker-content-digest"], digest.to_string());
        assert_eq!(answer.bytes().await.unwrap(), br#"{"config":{}}"#[..]);
    }
    assert_eq!(upstream.asked().len(), 1);
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    assert_eq!((upstream.count(&Method::GET, "/1"), upstream.count(&Method::HEAD, "/1")), (1, 1));
    let moved = upstream.manifest("library/a", "1", br#"{"config":{"moved":1}}"#);
    assert_eq!(proxy.get("a/manifests/1").await.headers()["docker-content-digest"], moved.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_asks_nobody() {
    let (upstream, proxy) = mirror().await;
    upstream.manifest("library/a", "1", b"{}");
    for _ in 0..3 {
        assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_heads_and_entity_tags() {
    let (upstream, proxy) = mirror().await;
    let content = noise(1 << 20);
    let path = upstream.blob("library/a", &content);
    let head = proxy.http.head(proxy.url(&path)).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], content.len().to_string());
    assert_eq!(upstream.count(&Method::GET, ""), 0, "a HEAD fetches nothing");
    // While it arrives: what is there is sent, what is not is waited for.
    upstream.allow(200_000);
    let ranged = |range: &str| proxy.http.get(proxy.url(&path)).header("range", range.to_owned()).send();
    let present = ranged("bytes=1000-1999").await.unwrap();
    assert_eq!(present.status(), 206);
    assert_eq!(present.headers()["content-range"], format!("bytes 1000-1999/{}", content.len()));
    assert!(present.bytes().await.unwrap() == content[1000..2000]);
    let later = ranged("bytes=900000-").await.unwrap();
    upstream.allow(usize::MAX);
    assert!(later.bytes().await.unwrap() == content[900_000..]);
    for (range, begin, end) in [("bytes=500-1499", 500, 1500), ("bytes=-500", content.len() - 500, content.len())] {
        let answer = ranged(range).await.unwrap();
        assert_eq!(
            (answer.status(), answer.bytes().await.unwrap() == content[begin..end]),
            (206.try_into().unwrap(), true)
        );
    }
    let beyond = ranged("bytes=99999999-").await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"], format!("bytes */{}", content.len()));
    let whole = proxy.get(&path).await;
    let tag = whole.headers()["etag"].clone();
    assert!(whole.bytes().await.unwrap() == content);
    let known = proxy.http.get(proxy.url(&path)).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(known.status(), 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_named_in_three_ways_and_no_others_are_asked() {
    let (hub, quay) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::start(&[("docker.io", &hub.url), ("quay.io", &quay.url)], "").await;
    hub.manifest("library/a", "1", br#"{"hub":1}"#);
    quay.manifest("x/a", "1", br#"{"quay":1}"#);
    for path in ["a/manifests/1", "library/a/manifests/1?ns=docker.io", "docker.io/library/a/manifests/1"] {
        assert_eq!(proxy.get(path).await.bytes().await.unwrap(), br#"{"hub":1}"#[..], "{path}");
    }
    let answer = proxy.get("x/a/manifests/1?ns=quay.io").await;
    assert_eq!(answer.headers()["oci-namespace"], "quay.io");
    assert_eq!(proxy.get("quay.io/x/a/manifests/1").await.bytes().await.unwrap(), br#"{"quay":1}"#[..]);
    for path in ["a/manifests/1?ns=gcr.io", "gcr.io/a/manifests/1"] {
        let answer = proxy.get(path).await;
        assert_eq!(answer.status(), 403);
        assert!(answer.text().await.unwrap().contains("gcr.io is not mirrored here"));
    }
    assert_eq!(proxy.get("").await.status(), 200);
    let pushed = proxy.http.post(proxy.url("a/blobs/uploads/")).send().await.unwrap();
    assert_eq!((pushed.status().as_u16(), pushed.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_passed_through_and_remembered() {
    let (upstream, proxy) = mirror().await;
    upstream.put("library/a/tags/list?n=2", br#"{"name":"library/a","tags":["1","2"]}"#, "application/json");
    for _ in 0..2 {
        let answer = proxy.get("a/tags/list?n=2&ns=docker.io").await;
        assert_eq!(answer.text().await.unwrap(), r#"{"name":"library/a","tags":["1","2"]}"#);
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_used_for_longest_makes_room() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "max_size = 250000").await;
    for n in 0..4u8 {
        let content = vec![n; 100_000];
        let path = upstream.blob("library/a", &content);
        assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    }
    let status = proxy.status().await;
    assert_eq!((status.blobs, status.bytes), (2, 200_000));
}

//! Upstreams and clients that fail.

use http::Method;

use crate::{
    proxy::Proxy,
    upstream::{Upstream, noise},
};

async fn mirror(more: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], more).await;
    (upstream, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_does_not_stop_the_others() {
    let (upstream, proxy) = mirror("").await;
    let content = noise(1 << 20);
    let path = upstream.blob("library/a", &content);
    upstream.allow(100_000);
    let mut leaving = proxy.get(&path).await;
    let staying = proxy.get(&path).await;
    leaving.chunk().await.unwrap();
    drop(leaving);
    upstream.allow(usize::MAX);
    assert!(staying.bytes().await.unwrap() == content);
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_wants_stops_and_is_resumed() {
    let (upstream, proxy) = mirror("").await;
    let content = noise(1 << 20);
    let path = upstream.blob("library/a", &content);
    upstream.allow(100_000);
    let mut leaving = proxy.get(&path).await;
    let mut got = 0;
    // All that comes: what the upstream sent is on disk then, but for the byte that is held back in the end.
    while got < 100_000 {
        got += leaving.chunk().await.unwrap().unwrap().len();
    }
    drop(leaving);
    upstream.bodies_ended(1).await;
    upstream.allow(usize::MAX);
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    let asked = upstream.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].headers["range"], "bytes=100000-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_goes_on_where_it_was() {
    let (upstream, proxy) = mirror("").await;
    let content = noise(1 << 20);
    let path = upstream.blob("library/a", &content);
    upstream.cut(Some(300_000));
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    assert!(upstream.count(&Method::GET, "/blobs/") >= 4);
    assert!(upstream.asked()[1..].iter().all(|asked| asked.headers.contains_key("range")));
    let from_upstream = proxy.status().await.upstreams[0].bytes_from_upstream;
    assert_eq!(from_upstream, content.len() as u64, "no byte twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_is_never_seen_whole() {
    let (upstream, proxy) = mirror("").await;
    let content = noise(500_000);
    let path = upstream.blob("library/a", &content);
    let mut wrong = content.clone();
    wrong[250_000] ^= 1;
    upstream.put(&path, &wrong, "application/octet-stream");
    let answer = proxy.get(&path).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "the connection breaks");
    let status = proxy.status().await;
    assert_eq!(status.blobs, 0);
    assert!(status.upstreams[0].last_error.contains("was asked for"), "{}", status.upstreams[0].last_error);
    assert_eq!(std::fs::read_dir(proxy.stored().join("ingest")).unwrap().count(), 0);
    upstream.put(&path, &content, "application/octet-stream");
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    // A manifest too.
    let digest = upstream.manifest("library/a", "1", b"{}");
    upstream.put(&format!("library/a/manifests/{digest}"), b"[]", "x/y");
    assert_eq!(proxy.get(&format!("a/manifests/{digest}")).await.status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_served_while_the_upstream_is_away() {
    let (upstream, mut proxy) = mirror("tag_ttl = 0").await;
    let content = noise(100_000);
    let path = upstream.blob("library/a", &content);
    let digest = upstream.manifest("library/a", "1", b"{}");
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    assert_eq!(proxy.get(&path).await.bytes().await.unwrap().len(), content.len());
    drop(upstream);
    for restarted in [false, true] {
        if restarted {
            proxy.kill_and_start().await;
        }
        let by_tag = proxy.get("a/manifests/1").await;
        assert_eq!(by_tag.status(), 200);
        assert!(by_tag.headers()["warning"].to_str().unwrap().starts_with("110"));
        let by_digest = proxy.get(&format!("a/manifests/{digest}")).await;
        assert_eq!((by_digest.status().as_u16(), by_digest.headers().get("warning")), (200, None));
        assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
        let absent = proxy.get("b/manifests/1").await;
        assert!(matches!(absent.status().as_u16(), 502 | 503), "{}", absent.status());
        assert!(absent.text().await.unwrap().contains("docker.io"));
        assert_eq!(proxy.status().await.upstreams[0].stale, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_counts_us_is_left_alone() {
    let (upstream, proxy) = mirror("tag_ttl = 0").await;
    upstream.manifest("library/a", "1", b"{}");
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    upstream.fail(Some((429, Some(600))));
    let stale = proxy.get("a/manifests/1").await;
    assert_eq!((stale.status().as_u16(), stale.headers().contains_key("warning")), (200, true));
    let asked = upstream.asked().len();
    for _ in 0..5 {
        assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
        let absent = proxy.get("b/manifests/1").await;
        assert_eq!(absent.status(), 503);
        let wait: u64 = absent.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((500..=601).contains(&wait), "{wait}");
    }
    assert_eq!(upstream.asked().len(), asked, "it is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_and_remembered() {
    let (upstream, proxy) = mirror("").await;
    for _ in 0..3 {
        let answer = proxy.get("a/manifests/none").await;
        assert_eq!(answer.status(), 404);
        let text = answer.text().await.unwrap();
        assert!(text.contains("MANIFEST_UNKNOWN") && text.contains("said"), "{text}");
    }
    let absent = format!("a/blobs/{}", berth_core::Digest::sha256(b"none"));
    assert!(proxy.get(&absent).await.text().await.unwrap().contains("BLOB_UNKNOWN"));
    assert_eq!(upstream.asked().len(), 2);
    assert_eq!(std::fs::read_dir(proxy.stored().join("ingest")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_passed_on_to_who_asks_for_what_is_not_here() {
    let (upstream, proxy) = mirror("").await;
    upstream.fail(Some((429, Some(600))));
    let answer = proxy.get("a/manifests/1").await;
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "601"));
    assert!(answer.text().await.unwrap().contains("TOOMANYREQUESTS"));
    assert_eq!(upstream.asked().len(), 1);
}

/// Whatever is evicted under whoever reads it: what is answered is right.
#[tokio::test(flavor = "multi_thread")]
async fn eviction_beneath_readers_harms_nobody() {
    let (upstream, proxy) = mirror("max_size = 500000").await;
    let contents: Vec<Vec<u8>> = (1..=12).map(|n| noise(n * 20_000)).collect();
    let paths: Vec<String> = contents.iter().map(|content| upstream.blob("library/a", content)).collect();
    let clients = (0..6).map(|client| {
        let (proxy, contents, paths) = (&proxy, &contents, &paths);
        async move {
            for step in 0..30 {
                let which = (client * 7 + step * 5) % contents.len();
                let answer = proxy.get(&paths[which]).await;
                assert_eq!(answer.status(), 200);
                assert!(answer.bytes().await.unwrap() == contents[which]);
            }
        }
    });
    futures::future::join_all(clients).await;
    let status = proxy.status().await;
    assert!(status.bytes <= 500_000 && status.blobs > 0, "{status:?}");
    assert!(upstream.asked().len() > contents.len(), "something was evicted and fetched again");
    let on_disk = std::fs::read_dir(proxy.stored().join("blobs/sha256")).unwrap().count() as u64;
    assert_eq!(on_disk, status.blobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_fails_is_named_and_its_password_is_not() {
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start_with(
        &[("docker.io", "http://registry.example.com")],
        "",
        &[("HTTP_PROXY", format!("http://me:secret@{free}"))],
    )
    .await;
    let text = proxy.get("a/manifests/1").await.text().await.unwrap();
    let named = format!("cannot be reached through the proxy {free} (see HTTP_PROXY in the service's environment)");
    assert!(text.contains(&named) && !text.contains("secret"), "{text}");
}

//! Killed at a bad moment, started again with what is left.

use crate::{
    proxy::{Proxy, be_a_mirror, spawn},
    upstream::{Upstream, noise},
};

/// Also the part that [`spawn`] starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mirror_goes_on_where_it_was() {
    be_a_mirror().await;
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::start(&[("docker.io", &upstream.url)], "").await;
    let content = noise(1 << 20);
    let path = upstream.blob("library/a", &content);
    upstream.allow(400_000);
    let mut answer = proxy.get(&path).await;
    let mut got = 0;
    while got < 400_000 {
        got += answer.chunk().await.unwrap().unwrap().len();
    }
    proxy.kill();
    assert!(answer.bytes().await.is_err());
    upstream.allow(usize::MAX);
    proxy.kill_and_start().await;
    assert_eq!(proxy.status().await.blobs, 0);
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    assert_eq!(upstream.asked()[1].headers["range"], "bytes=400000-");
    // Whole, it needs the upstream no more.
    drop(upstream);
    proxy.kill_and_start().await;
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_beginning_is_found_out() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "").await;
    let content = noise(100_000);
    let path = upstream.blob("library/a", &content);
    let digest = berth_core::Digest::sha256(&content);
    let partial = proxy.stored().join(format!("ingest/sha256-{}", digest.hex()));
    std::fs::write(&partial, vec![0; 50_000]).unwrap();
    assert!(proxy.get(&path).await.bytes().await.is_err());
    assert!(!partial.exists());
    // More than there is of it is no beginning at all.
    std::fs::write(&partial, vec![0; 200_000]).unwrap();
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    assert_eq!(upstream.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_records_cost_no_content() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::start(&[("docker.io", &upstream.url)], "").await;
    let manifest = br#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
    let digest = upstream.manifest("library/a", "1", manifest);
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    proxy.kill();
    std::fs::write(proxy.stored().join("meta.redb"), "no database").unwrap();
    proxy.kill_and_start().await;
    let answer = proxy.get(&format!("a/manifests/{digest}")).await;
    assert_eq!(answer.headers()["content-type"], crate::upstream::MANIFEST);
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let text = format!("root = {at:?}\nstate = {at:?}\n[registry-proxy]\nlisten = {address:?}\n");
    std::fs::write(at.join("config.toml"), text).unwrap();
    let said = spawn(at).unwrap_err();
    assert!(said.contains(&address) && said.contains("registry-proxy.listen"), "{said}");
}

//! Who the mirror is at its upstreams.

use http::Method;

use crate::{
    proxy::Proxy,
    upstream::{Auth, Upstream, noise},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_got_once_for_a_repository() {
    let upstream = Upstream::start().await;
    upstream.auth(Auth::Token(upstream.url.clone()));
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "").await;
    let digest = upstream.manifest("library/a", "1", b"{}");
    let path = upstream.blob("library/a", b"content");
    for path in ["a/manifests/1", &format!("a/manifests/{digest}"), &path] {
        assert_eq!(proxy.get(path).await.status(), 200);
    }
    assert_eq!(upstream.count(&Method::GET, "/token"), 1);
    let asked = upstream.asked();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert!(token.path.contains("scope=repository%3Alibrary%2Fa%3Apull"), "{}", token.path);
    assert!(token.path.contains("service=here"));
    assert!(!token.headers.contains_key("authorization"), "asked as nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_one_only_where_that_is_asked_for() {
    let upstream = Upstream::start().await;
    upstream.auth(Auth::Basic);
    upstream.manifest("library/a", "1", b"{}");
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "# credentials").await;
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    assert!(!upstream.asked()[0].headers.contains_key("authorization"));
    let nobody = Proxy::start(&[("docker.io", &upstream.url)], "").await;
    let answer = nobody.get("a/manifests/1").await;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await.unwrap().contains("asked as nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_takes_no_authorization_along() {
    let (upstream, store) = (Upstream::start().await, Upstream::start().await);
    let content = noise(1000);
    let path = store.blob("library/a", &content);
    upstream.manifest("library/a", "1", b"{}");
    upstream.auth(Auth::Basic);
    let proxy = Proxy::start(&[("docker.io", &upstream.url)], "# credentials").await;
    assert_eq!(proxy.get("a/manifests/1").await.status(), 200);
    // The credentials are known now and sent at once.
    upstream.auth(Auth::Redirect(store.url.clone()));
    assert!(proxy.get(&path).await.bytes().await.unwrap() == content);
    assert!(upstream.asked().last().unwrap().headers.contains_key("authorization"));
    assert!(!store.asked()[0].headers.contains_key("authorization"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::start(&[("docker.io", &upstream.url)], "# credentials").await;
    let password = proxy.directory.path().join("password");
    for (mode, told) in [(0o644, true), (0o600, false)] {
        proxy.kill();
        for (path, mode) in [(proxy.stored(), 0o755), (password.clone(), mode)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        proxy.kill_and_start().await;
        assert_eq!(proxy.stored().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let log = std::fs::read_to_string(proxy.directory.path().join("log")).unwrap();
        assert_eq!(log.contains("others than its owner may read this password file"), told, "{log}");
    }
}

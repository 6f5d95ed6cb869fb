//! Who we are at a registry; and that nobody else learns it.

use berth_core::{Failure, Kind};
use berth_proto::berth::image::v1::{Auth as Credentials, LoginRequest, SearchRequest};

use crate::{
    made::{Layer, Made},
    upstream::{Auth, Fault, Upstream},
};

fn password(password: &str) -> Option<Credentials> {
    Some(Credentials { username: "user".into(), password: password.into(), ..Default::default() })
}

fn made() -> Made {
    Made::new(&[Layer::noise(1, 100_000).gzip(), Layer::noise(2, 100_000).gzip(), Layer::noise(3, 100_000)])
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_wrong_missing_and_absent_are_told_apart() {
    let (upstream, node) = Upstream::with_node("").await;
    let reference = upstream.image("private/a:1", &made());
    upstream.auth(Auth::Basic);
    let nobody = node.pull(&reference).await.failure();
    assert_eq!(nobody.kind, Kind::PermissionDenied);
    assert!(
        nobody.message.contains("pull access denied for") && nobody.message.contains("asked as nobody"),
        "{nobody}"
    );
    assert!(nobody.message.contains(&upstream.address) && nobody.hint.contains("config.json"), "{nobody}");
    let wrong = node.pull_as(&reference, password("guessed"), "").await.failure();
    assert_eq!(wrong.kind, Kind::Unauthenticated);
    assert!(
        wrong.message.contains("does not accept the credentials") && wrong.message.contains("asked as user"),
        "{wrong}"
    );
    let absent = format!("{}/private/none:1", upstream.address);
    let absent = node.pull_as(&absent, password("secret"), "").await.failure();
    assert_eq!(absent.kind, Kind::NotFound);
    assert!(absent.message.contains("manifest unknown"), "{absent}");
    upstream.fail(|_| Some(Fault::Status(403, String::new(), String::new())));
    let forbidden = node.pull_as(&reference, password("secret"), "").await.failure();
    assert_eq!(forbidden.kind, Kind::PermissionDenied);
    assert!(forbidden.message.contains("asked as user"), "{forbidden}");
    upstream.well();
    node.pull_as(&reference, password("secret"), "").await.done();
    let log = node.log();
    // What is sent as basic authentication, with a right and a wrong password.
    for secret in ["secret", "guessed", "dXNlcjpzZWNyZXQ=", "dXNlcjpndWVzc2Vk"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_got_and_got_again_when_it_has_expired() {
    let (upstream, node) = Upstream::with_node("max_concurrent_downloads = 1").await;
    let made = made();
    let reference = upstream.image("private/a:1", &made);
    upstream.auth(Auth::Token(upstream.address.clone(), 2));
    node.pull_as(&reference, password("secret"), "").await.done();
    let tokens: Vec<_> = upstream.asked().into_iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert!(tokens.len() >= 2, "a token is good for two requests, and there are five");
    for token in tokens {
        assert_eq!(token.path, "/token?service=here&scope=repository%3Aprivate%2Fa%3Apull");
        assert_eq!(token.headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
    }
    let log = node.log();
    assert!(!log.contains("secret") && !log.contains("dXNlcjpzZWNyZXQ") && !log.contains("good-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_credentials() {
    let (upstream, node) = Upstream::with_node("").await;
    let reference = upstream.image("private/a:1", &made());
    upstream.auth(Auth::Token(upstream.address.clone(), u64::MAX));
    // Nobody gets a token as well, with which only public images are to be had.
    node.pull(&reference).await.done();
    let identity = Credentials { identity_token: "refresh-me".into(), ..Default::default() };
    node.pull_as(&reference, Some(identity), "").await.done();
    let asked = upstream.asked();
    let post = asked.iter().find(|asked| asked.method == "POST").unwrap();
    assert!(
        post.body.contains("grant_type=refresh_token") && post.body.contains("refresh_token=refresh-me"),
        "{post:?}"
    );
    assert!(post.body.contains("scope=repository%3Aprivate%2Fa%3Apull"), "{post:?}");
    let as_it_is = Credentials { registry_token: "good-2".into(), ..Default::default() };
    let tokens = upstream.count("/token");
    node.pull_as(&reference, Some(as_it_is), "").await.done();
    assert_eq!(upstream.count("/token"), tokens);
    // The token server's own answers.
    upstream.fail(|asked| asked.path.starts_with("/token").then(|| Fault::Status(401, String::new(), String::new())));
    let wrong = node.pull_as(&reference, password("guessed"), "").await.failure();
    assert_eq!((wrong.kind, wrong.message.contains("asked as user")), (Kind::Unauthenticated, true), "{wrong}");
    let nobody = node.pull(&reference).await.failure();
    assert_eq!(nobody.kind, Kind::PermissionDenied, "{nobody}");
    let mut failures = 2;
    upstream.fail(move |asked| {
        (asked.path.starts_with("/token") && failures > 0).then(|| {
            failures -= 1;
            Fault::Status(503, String::new(), String::new())
        })
    });
    let pulled = node.pull_as(&reference, password("secret"), "").await;
    assert_eq!(pulled.notices().len(), 2, "{:?}", pulled.notices());
    pulled.done();
    assert!(!node.log().contains("refresh-me"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_learns_who_we_are() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = made();
    let reference = upstream.image("private/a:1", &made);
    upstream.auth(Auth::Basic);
    // Content lies elsewhere, as with registries before an object store.
    let store = Upstream::start(&node.place);
    store.image("private/a:1", &made);
    let to = store.url();
    upstream.fail(move |asked| {
        (asked.is_blob() && asked.headers.contains_key("authorization"))
            .then(|| Fault::Status(307, format!("location: {to}{}\r\n", asked.path), String::new()))
    });
    node.pull_as(&reference, password("secret"), "").await.done();
    assert!(store.count("/blobs/") >= 4);
    assert!(store.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    // One that asks who we are is not told, and neither is the token server that it names.
    store.auth(Auth::Token(store.address.clone(), 1000));
    let (fresh, curious) = (Made::new(&[Layer::plain("x", b"y")]), store.count("/token"));
    let reference = upstream.image("private/b:1", &fresh);
    store.image("private/b:1", &fresh);
    let failure = node.pull_as(&reference, password("secret"), "").await.failure();
    assert!(failure.message.contains("sent us"), "{failure}");
    assert_eq!(store.count("/token"), curious);
    store.auth(Auth::Basic);
    node.pull_as(&reference, password("secret"), "").await.failure();
    assert!(store.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_servers_that_send_elsewhere_are_not_followed() {
    let (upstream, node) = Upstream::with_node("").await;
    let reference = upstream.image("private/a:1", &made());
    upstream.auth(Auth::Token(upstream.address.clone(), 1000));
    let other = Upstream::start(&node.place);
    let to = other.url();
    upstream.fail(move |asked| {
        asked.path.starts_with("/token").then(|| Fault::Status(307, format!("location: {to}/token\r\n"), String::new()))
    });
    let identity = Credentials { identity_token: "refresh-me".into(), ..Default::default() };
    for credentials in [password("secret"), Some(identity)] {
        let failure = node.pull_as(&reference, credentials, "").await.failure();
        assert!(failure.message.contains("307"), "{failure}");
    }
    assert!(other.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_asks_the_token_server_and_takes_a_refresh_token() {
    let (upstream, node) = Upstream::with_node("").await;
    upstream.auth(Auth::Token(upstream.address.clone(), u64::MAX));
    let login = async |password_: &str| {
        let request = LoginRequest { server: upstream.address.clone(), auth: password(password_) };
        node.client().login(request).await.map(tonic::Response::into_inner).map_err(Failure::from)
    };
    assert_eq!(login("secret").await.unwrap().identity_token, "");
    let asked = upstream.asked();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert!(token.path.contains("service=here") && token.path.contains("offline_token=true"), "{token:?}");
    assert_eq!(token.headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
    // One that gives a refresh token.
    let given = |asked: &crate::upstream::Asked| asked.path.starts_with("/token");
    let body = r#"{"token":"good-1","refresh_token":"for-later"}"#;
    upstream.fail(move |asked| given(asked).then(|| Fault::Status(200, String::new(), body.into())));
    assert_eq!(login("secret").await.unwrap().identity_token, "for-later");
    // What the token server says of a wrong password is said.
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#;
    upstream.fail(move |asked| given(asked).then(|| Fault::Status(401, String::new(), body.into())));
    let wrong = login("guessed").await.unwrap_err();
    assert_eq!(wrong.kind, Kind::Unauthenticated);
    assert!(wrong.message.contains("unauthorized: incorrect username or password"), "{wrong}");
    let log = node.log();
    for secret in ["secret", "guessed", "for-later", "good-1"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_search_is_searched_there() {
    let (upstream, node) = Upstream::with_node("").await;
    let results = r#"{"num_results":2,"results":[
        {"name":"a/few","description":"stars","star_count":2,"is_official":false},
        {"name":"many","star_count":90,"is_official":true}]}"#;
    upstream.put_at("/v1/search", results.as_bytes(), "application/json");
    let search = async |filters: &[&str]| {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let term = format!("{}/any", upstream.address);
        let request = SearchRequest { term, limit: 7, filters, auth: None };
        node.client().search(request).await.unwrap().into_inner().results
    };
    let all = search(&[]).await;
    assert_eq!((all[0].name.as_str(), all[1].stars, all[1].official), ("a/few", 90, true));
    assert!(upstream.asked().iter().any(|asked| asked.path == "/v1/search?q=any&n=7"), "{:?}", upstream.asked());
    let official = search(&["is-official=true", "stars=3"]).await;
    assert_eq!(official.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["many"]);
}

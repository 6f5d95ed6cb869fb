//! What a person reads when a pull fails: each failure made to happen, and its words.

use std::{net::UdpSocket, process::Command};

use berth_proto::berth::image::v1::pull_progress::Message;

use crate::{
    made::{Layer, Made},
    node::Node,
    patience::PATIENCE,
    place::Place,
    upstream::{Auth, Fault, Upstream},
};

/// Not this machine, as far as the name tells.
const ELSEWHERE: &str = "registry.example.com/a:1";

fn status(status: u16, code: &str, message: &str) -> Fault {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    Fault::Status(status, String::new(), if code.is_empty() { "<p>no</p>".into() } else { body })
}

/// The first that a pull says about something that it then tries again; it is given up.
async fn first_notice(node: &Node, reference: &str) -> String {
    notice_but(node, reference, |_| false).await
}

/// The first notice that is not passed over.
async fn notice_but(node: &Node, reference: &str, passed_over: impl Fn(&str) -> bool) -> String {
    let mut stream = node.begin(reference).await;
    loop {
        match tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap().message {
            Some(Message::Notice(text)) if !passed_over(&text) => return text,
            Some(Message::Done(_)) | None => panic!("it was to fail"),
            Some(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_refuses() {
    let (upstream, node) = Upstream::with_node("").await;
    let own = upstream.address.clone();
    let made = Made::new(&[Layer::plain("a", b"b")]);
    let reference = upstream.image("some/app:1", &made);
    let layer = made.layers[0].digest().to_string();
    let says = async |reference: &str| node.pull(reference).await.failure().message.replace(&own, "HOST");
    assert_eq!(
        says(&format!("{own}/some/app:none")).await,
        "manifest for HOST/some/app:none not found: manifest unknown: not here (404 Not Found from HOST)"
    );
    assert_eq!(
        says(&format!("{own}/some/app@{layer}")).await,
        format!("manifest for HOST/some/app@{layer} not found: manifest unknown: not here (404 Not Found from HOST)")
    );
    let denied =
        "pull access denied for HOST/some/app, repository does not exist or may require authorization: HOST: it";
    for (fault, manifest, blob) in [
        (
            status(404, "", ""),
            "manifest for HOST/some/app:1 not found: manifest unknown (404 Not Found from HOST)".to_owned(),
            format!("HOST: it answered 404 Not Found for blob {layer} of HOST/some/app"),
        ),
        (
            status(401, "UNAUTHORIZED", "authentication required"),
            format!(
                "{denied} answered 401 Unauthorized (unauthorized: authentication required), asked as nobody (no \
                 credentials)"
            ),
            format!(
                "{denied} answered 401 Unauthorized (unauthorized: authentication required), asked as nobody (no \
                 credentials)"
            ),
        ),
        (
            status(400, "NAME_INVALID", "invalid repository name"),
            "HOST: it answered 400 Bad Request (name invalid: invalid repository name) for HOST/some/app:1".to_owned(),
            format!(
                "HOST: it answered 400 Bad Request (name invalid: invalid repository name) for blob {layer} of HOST/some/app"
            ),
        ),
        (
            Fault::Status(429, "retry-after: 3600\r\n".into(), String::new()),
            "HOST asks to wait: it answered 429 Too Many Requests".to_owned(),
            "HOST asks to wait: it answered 429 Too Many Requests".to_owned(),
        ),
    ] {
        let again = fault.clone();
        upstream.fail(move |asked| (asked.path != "/v2/").then(|| again.clone()));
        assert_eq!(says(&reference).await, manifest);
        let part = layer.clone();
        upstream.fail(move |asked| asked.path.contains(&part).then(|| fault.clone()));
        assert_eq!(says(&reference).await, blob);
    }
    // A blob that is shorter than it should be, and one that is longer.
    let whole = &made.layers[0].blob;
    for (content, words) in [
        (
            whole[..100].to_vec(),
            "HOST: it has only 100 bytes of blob LAYER of HOST/some/app, and the manifest says more",
        ),
        ([&**whole, b"more"].concat(), "blob LAYER from HOST has more than the 2048 bytes that its manifest announces"),
    ] {
        let (part, content) = (layer.clone(), Fault::Content(content.into()));
        upstream.fail(move |asked| asked.path.contains(&part).then(|| content.clone()));
        assert_eq!(says(&reference).await.replace(&layer, "LAYER"), words);
    }
    upstream.well();
    upstream.auth(Auth::Basic);
    assert_eq!(says(&reference).await, format!("{denied} answered 401 Unauthorized, asked as nobody (no credentials)"));
    upstream.stop().await;
    // A connection that was kept may be tried once more before a new one is.
    let kept = |text: &str| text.contains("connection closed");
    let notice = notice_but(&node, &reference, kept).await.replace(&own, "HOST");
    assert!(
        notice.starts_with("HOST: it cannot be connected to: Connection refused (os error 111); trying"),
        "{notice}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_named_once() {
    let place = Place::new();
    let [mirror, own] = [(); 2].map(|()| Upstream::start(&place));
    let section = format!("[image.registry.'{}']\nmirrors = ['{}']", own.address, mirror.url());
    let node = Node::start_in(place, tempfile::tempdir().unwrap(), &section);
    mirror.fail(|_| Some(status(500, "UNKNOWN", "the disk is on fire")));
    let pulled = node.pull(&format!("{}/some/app:none", own.address)).await;
    let plain = |text: &str| text.replace(&own.address, "HOST").replace(&mirror.address, "MIRROR");
    let words = "it answered 500 Internal Server Error (unknown: the disk is on fire) for HOST/some/app:none";
    assert_eq!(plain(&pulled.notices()[0]), format!("the mirror MIRROR is passed over: {words}"));
    assert_eq!(
        plain(&pulled.failure().message),
        format!(
            "manifest for HOST/some/app:none not found: manifest unknown: not here (404 Not Found from HOST); the mirror \
             MIRROR: {words}"
        )
    );
}

/// Answers, in this place, that no name exists.
fn no_names(place: &Place) {
    let configuration = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = configuration.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap_or("127.0.0.1").trim();
    let socket = place.within(|| {
        let _ = Command::new("ip").args(["addr", "add", server, "dev", "lo"]).output();
        UdpSocket::bind((server, 53)).unwrap()
    });
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut message) {
            // An answer, recursion available; no such name (RFC 1035, section 4.1.1).
            (message[2], message[3]) = (0x81, 0x83);
            let _ = socket.send_to(&message[..length], from);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_said_at_once_and_one_that_cannot_be_asked_for_is_tried_again() {
    let place = Place::new();
    no_names(&place);
    let node = Node::start_in(place, tempfile::tempdir().unwrap(), "");
    let pulled = node.pull(ELSEWHERE).await;
    assert_eq!(pulled.notices(), Vec::<String>::new());
    let message = pulled.failure().message;
    assert!(message.starts_with("registry.example.com: there is no host of this name: "), "{message}");
    // Nobody answers for names here.
    let node = Node::start();
    let notice = first_notice(&node, ELSEWHERE).await;
    assert!(notice.starts_with("registry.example.com: its name cannot be resolved now: "), "{notice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_fails_is_named_and_its_password_is_not() {
    let place = Place::new()
        .with("HTTPS_PROXY", "http://me:secret@127.0.0.1:3128")
        .with("HTTP_PROXY", "http://me:secret@127.0.0.1:3129");
    let section = "[image.registry.'plain.example.com']\nplain_http = true";
    let node = Node::start_in(place.clone(), tempfile::tempdir().unwrap(), section);
    let through = "registry.example.com: not reached through the proxy 127.0.0.1:3128 (see HTTPS_PROXY in the service's \
                   environment): ";
    let notice = first_notice(&node, ELSEWHERE).await;
    assert!(
        notice.starts_with(&format!("{through}it cannot be connected to: Connection refused (os error 111); trying")),
        "{notice}"
    );
    let [secure, plain] = [3128, 3129].map(|port| Upstream::start_at(&place, &format!("127.0.0.1:{port}")));
    secure.fail(|_| Some(status(407, "", "")));
    let pulled = node.pull(ELSEWHERE).await;
    assert_eq!(pulled.notices(), Vec::<String>::new());
    assert_eq!(pulled.failure().message, format!("{through}tunnel error: proxy authorization required"));
    plain.fail(|_| Some(status(400, "", "")));
    assert_eq!(
        node.pull("plain.example.com/a:1").await.failure().message,
        "plain.example.com: it, or the proxy 127.0.0.1:3129 (see HTTP_PROXY in the service's environment) before it, \
         answered 400 Bad Request for plain.example.com/a:1"
    );
    assert!(!node.log().contains("secret"));
}

//! An upstream that counts what it is asked and fails as it is told.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use berth_core::Digest;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

use berth_tests::patience::PATIENCE;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const PIECE: usize = 16 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct State {
    content: HashMap<String, (Bytes, String)>,
    asked: Vec<Asked>,
    status: Option<(u16, Option<u64>)>,
    cut: Option<usize>,
    auth: Option<Auth>,
}

#[derive(Clone)]
pub(crate) enum Auth {
    Basic,
    /// With the address of the token server.
    Token(String),
    /// Everything is to be got there.
    Redirect(String),
}

pub(crate) struct Upstream {
    state: Arc<Mutex<State>>,
    /// Bodies may go to here.
    allowed: watch::Sender<usize>,
    /// Bodies that ended, whole or not.
    ended: watch::Sender<usize>,
    pub(crate) url: String,
    accepting: AbortHandle,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let (allowed, ended) = (watch::Sender::new(usize::MAX), watch::Sender::new(0));
        let serving = (state.clone(), allowed.clone(), ended.clone());
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, allowed, ended) = serving.clone();
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer(&state, &allowed, &ended, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { state, allowed, ended, url, accepting: accepting.abort_handle() }
    }

    /// Puts a blob; its path below /v2/.
    pub(crate) fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let path = format!("{repository}/blobs/{}", Digest::sha256(bytes));
        self.put(&path, bytes, "application/octet-stream");
        path
    }

    /// Puts a manifest, by tag and digest.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        for target in [tag, &digest.to_string()] {
            self.put(&format!("{repository}/manifests/{target}"), bytes, MANIFEST);
        }
        digest
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8], media_type: &str) {
        let content = (Bytes::copy_from_slice(bytes), media_type.to_owned());
        self.state.lock().unwrap().content.insert(format!("/v2/{path}"), content);
    }

    /// Answers everything with this status, or content again.
    pub(crate) fn fail(&self, status: Option<(u16, Option<u64>)>) {
        self.state.lock().unwrap().status = status;
    }

    /// Breaks connections after this many bytes of a body.
    pub(crate) fn cut(&self, after: Option<usize>) {
        self.state.lock().unwrap().cut = after;
    }

    pub(crate) fn auth(&self, auth: Auth) {
        self.state.lock().unwrap().auth = Some(auth);
    }

    /// Bodies stop at this offset of the content until it is raised.
    pub(crate) fn allow(&self, bytes: usize) {
        self.allowed.send_replace(bytes);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often something was asked for, by method and a part of the path.
    pub(crate) fn count(&self, method: &Method, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.method == *method && asked.path.contains(part)).count()
    }

    /// Waits until so many bodies have ended.
    pub(crate) async fn bodies_ended(&self, count: usize) {
        let mut states = self.ended.subscribe();
        if tokio::time::timeout(PATIENCE, states.wait_for(|ended| *ended >= count)).await.is_err() {
            panic!("{count} bodies should have ended, and {} have", *self.ended.borrow());
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

struct Ended(watch::Sender<usize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_modify(|ended| *ended += 1);
    }
}

fn answer(
    state: &Mutex<State>,
    allowed: &watch::Sender<usize>,
    ended: &watch::Sender<usize>,
    request: &Request<Incoming>,
) -> Response<Body> {
    let mut state = state.lock().unwrap();
    let path = request.uri().path_and_query().unwrap().to_string();
    let headers = request.headers().clone();
    let method = request.method().clone();
    state.asked.push(Asked { method: method.clone(), path: path.clone(), headers: headers.clone() });
    let empty = || http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let full = |text: &str| {
        http_body_util::Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync()
    };
    if let Some((status, retry_after)) = state.status {
        let mut answer = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            answer = answer.header("retry-after", seconds);
        }
        return answer.body(empty()).unwrap();
    }
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if path.starts_with("/token") {
        return Response::new(full(r#"{"token":"good","expires_in":300}"#));
    }
    match (&state.auth, authorization.as_deref()) {
        (None, _)
        | (Some(Auth::Basic), Some("Basic dXNlcjpzZWNyZXQ="))
        | (Some(Auth::Token(_)), Some("Bearer good")) => {}
        (Some(Auth::Redirect(to)), _) => {
            let to = format!("{to}{path}");
            return Response::builder().status(307).header("location", to).body(empty()).unwrap();
        }
        (Some(Auth::Basic), _) => {
            let answer = Response::builder().status(401).header("www-authenticate", "Basic realm=\"here\"");
            return answer.body(empty()).unwrap();
        }
        (Some(Auth::Token(server)), _) => {
            let challenge = format!("Bearer realm=\"{server}/token\",service=\"here\"");
            return Response::builder().status(401).header("www-authenticate", challenge).body(empty()).unwrap();
        }
    }
    let Some((content, media_type)) = state.content.get(&path).cloned() else {
        return Response::builder().status(404).body(full(r#"{"errors":[{"code":"X","message":"said"}]}"#)).unwrap();
    };
    let begin = headers
        .get("range")
        .and_then(|range| range.to_str().unwrap().strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut answer = Response::builder().header("content-type", media_type);
    if path.contains("/manifests/") {
        answer = answer.header("docker-content-digest", Digest::sha256(&content).to_string());
    }
    if let Some(begin) = begin {
        if begin >= content.len() {
            let range = format!("bytes */{}", content.len());
            return answer.status(416).header("content-range", range).body(empty()).unwrap();
        }
        answer = answer
            .status(206)
            .header("content-range", format!("bytes {begin}-{}/{}", content.len() - 1, content.len()));
    }
    let begin = begin.unwrap_or(0);
    answer = answer.header("content-length", content.len() - begin);
    if method == Method::HEAD {
        return answer.body(empty()).unwrap();
    }
    let (cut, guard) = (state.cut.map(|after| begin + after), Ended(ended.clone()));
    let body = futures::stream::unfold((begin, allowed.subscribe(), guard), move |(at, mut allowed, guard)| {
        let content = content.clone();
        async move {
            if at == content.len() {
                return None;
            }
            if cut.is_some_and(|cut| at >= cut) {
                return Some((Err(io::Error::other("cut")), (content.len(), allowed, guard)));
            }
            let until = *allowed.wait_for(|allowed| *allowed > at).await.unwrap();
            let end = (at + PIECE).min(until).min(content.len());
            Some((Ok(Frame::data(content.slice(at..end))), (end, allowed, guard)))
        }
    });
    answer.body(StreamBody::new(body.boxed()).boxed_unsync()).unwrap()
}

/// Bytes that are the same each time and compress badly.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

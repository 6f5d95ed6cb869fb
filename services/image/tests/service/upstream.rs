//! A registry that counts what it is asked and fails as it is told. HTTP by hand: what breaks off here breaks off exactly
//! there.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use berth_core::Digest;
use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    made::{INDEX, Made},
    node::Node,
    patience::reached,
    place::Place,
};

const PIECE: u64 = 16 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// By name in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// The first byte that is asked for.
    pub(crate) fn from(&self) -> Option<u64> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A status with further header lines and a body.
    Status(u16, String, String),
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// `Range` is not understood.
    NoRange,
    /// One byte after the other.
    Trickle,
    /// The head, then nothing.
    Silent,
    /// Other content under the same name.
    Content(Bytes),
    /// `Range` is answered with another one.
    OtherRange,
}

pub(crate) enum Auth {
    Basic,
    /// With the address of the token server; a token is good for so many requests.
    Token(String, u64),
}

type Faults = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    content: Mutex<HashMap<String, (Bytes, String)>>,
    asked: Mutex<Vec<Asked>>,
    faults: Mutex<Option<Faults>>,
    auth: Mutex<Option<Auth>>,
    /// Bytes of blobs that were sent.
    sent: AtomicU64,
    tokens: AtomicU64,
    uses: AtomicU64,
    /// What has arrived of uploads, by their path.
    uploads: Mutex<HashMap<String, Vec<u8>>>,
    /// The next uploads that come in `PATCH` break off after so many bytes.
    cuts: Mutex<Vec<u64>>,
    /// Bodies of blobs go to here until it is raised.
    allowed: watch::Sender<u64>,
    /// How many bodies wait for that.
    waiting: watch::Sender<usize>,
    /// How many connections to us have ended in the middle of a body.
    left: watch::Sender<usize>,
}

pub(crate) struct Upstream {
    state: Arc<State>,
    pub(crate) address: String,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Listens on some port of the node's network.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_at(place, "127.0.0.1:0")
    }

    pub(crate) fn start_at(place: &Place, address: &str) -> Self {
        let listener = place.within(|| std::net::TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        state.allowed.send_replace(u64::MAX);
        let serving = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&serving);
                connections.spawn(async move {
                    let _ = converse(&state, stream).await;
                });
            }
        });
        Self { state, address, accepting }
    }

    /// A node and its registry.
    pub(crate) async fn with_node(section: &str) -> (Self, Node) {
        let node = Node::start_with(section);
        (Self::start(&node.place), node)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8], media_type: &str) {
        self.put_at(&format!("/v2/{path}"), bytes, media_type);
    }

    /// The same, anywhere.
    pub(crate) fn put_at(&self, path: &str, bytes: &[u8], media_type: &str) {
        let content = (Bytes::copy_from_slice(bytes), media_type.to_owned());
        self.state.content.lock().unwrap().insert(path.to_owned(), content);
    }

    /// Puts an image; its reference.
    pub(crate) fn image(&self, name: &str, made: &Made) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        self.content(repository, made);
        self.manifest(repository, tag, &made.manifest, &made.media_type);
        format!("{}/{name}", self.address)
    }

    /// Puts all of an image but its tag.
    pub(crate) fn content(&self, repository: &str, made: &Made) {
        for blob in made.blobs() {
            self.put(&format!("{repository}/blobs/{}", Digest::sha256(blob)), blob, "application/octet-stream");
        }
        self.manifest(repository, "untagged", &made.manifest, &made.media_type);
    }

    /// Puts a manifest, by tag and digest.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, bytes: &[u8], media_type: &str) -> Digest {
        let digest = Digest::sha256(bytes);
        for target in [tag, &digest.to_string()] {
            self.put(&format!("{repository}/manifests/{target}"), bytes, media_type);
        }
        digest
    }

    /// Puts an index of images, given with the rest of their entries.
    pub(crate) fn index(&self, name: &str, entries: &[(&Made, serde_json::Value)]) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let mut manifests = Vec::new();
        for (made, more) in entries {
            self.content(repository, made);
            let mut entry = serde_json::json!({
                "mediaType": made.media_type, "digest": Digest::sha256(&made.manifest), "size": made.manifest.len(),
            });
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            manifests.push(entry);
        }
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.manifest(repository, tag, index.to_string().as_bytes(), INDEX);
        format!("{}/{name}", self.address)
    }

    /// Asked before each answer.
    pub(crate) fn fail(&self, faults: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *self.state.faults.lock().unwrap() = Some(Box::new(faults));
    }

    /// Uploads break off after so many bytes each, the last of these first.
    pub(crate) fn cut_uploads(&self, after: &[u64]) {
        *self.state.cuts.lock().unwrap() = after.to_vec();
    }

    /// Ends it: when this answers, nobody listens and every connection is closed.
    pub(crate) async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    pub(crate) fn well(&self) {
        *self.state.faults.lock().unwrap() = None;
    }

    pub(crate) fn auth(&self, auth: Auth) {
        *self.state.auth.lock().unwrap() = Some(auth);
    }

    /// Bodies of blobs stop at this offset until it is raised.
    pub(crate) fn allow(&self, bytes: u64) {
        self.state.allowed.send_replace(bytes);
    }

    /// Until so many bodies have stopped.
    pub(crate) async fn stopped(&self, bodies: usize) {
        reached(&self.state.waiting, |waiting| *waiting >= bodies).await;
    }

    /// Until so many clients went away in the middle of a body.
    pub(crate) async fn left(&self, clients: usize) {
        reached(&self.state.left, |left| *left >= clients).await;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How often something was asked for, by a part of the path.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }

    /// Bytes of blobs that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn converse(state: &State, stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let Ok(line) = String::from_utf8(line) else {
                // Somebody tries TLS. What has not been read would turn the end into a reset.
                writer.write_all(b"HTTP/1.1 400 this is plain HTTP\r\n\r\n").await?;
                writer.shutdown().await?;
                return tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.map(|_| ());
            };
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut first = lines[0].split(' ');
        let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
        let header = |line: &String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: HashMap<_, _> = lines[1..].iter().filter_map(header).collect();
        let length: u64 = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let cut = if method == "PATCH" { state.cuts.lock().unwrap().pop() } else { None };
        let mut body = vec![0; cut.unwrap_or(length).min(length) as usize];
        reader.read_exact(&mut body).await?;
        let asked = Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
        state.asked.lock().unwrap().push(asked.clone());
        if let Some((status, headers)) = state.pushed(&asked, body) {
            if cut.is_some() {
                return Ok(());
            }
            short(&mut writer, status, &headers, "").await?;
            continue;
        }
        answer(state, &asked, &mut writer).await?;
    }
}

impl State {
    /// Answers what belongs to a push (distribution-spec, "Pushing"); an upload can go on from what has arrived.
    fn pushed(&self, asked: &Asked, body: Vec<u8>) -> Option<(u16, String)> {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let mut uploads = self.uploads.lock().unwrap();
        let location =
            |path: &str, length: usize| format!("location: {path}\r\nrange: 0-{}\r\n", length.saturating_sub(1));
        let put = |path: String, bytes: &[u8], media_type: &str| {
            let content = (Bytes::copy_from_slice(bytes), media_type.to_owned());
            self.content.lock().unwrap().insert(path, content);
        };
        match asked.method.as_str() {
            "HEAD" => {
                let length = self.content.lock().unwrap().get(path).map(|(content, _)| content.len());
                Some((if length.is_some() { 200 } else { 404 }, String::new()))
            }
            "POST" if path.ends_with("/blobs/uploads/") => {
                let path = format!("{path}{}", uploads.len());
                uploads.insert(path.clone(), Vec::new());
                Some((202, location(&path, 0)))
            }
            "GET" => uploads.get(path).map(|arrived| (204, location(path, arrived.len()))),
            "PATCH" => {
                let arrived = uploads.get_mut(path)?;
                let from = asked.headers.get("content-range").map_or("0", |range| range.split('-').next().unwrap());
                if from != arrived.len().to_string() {
                    return Some((416, location(path, arrived.len())));
                }
                arrived.extend(body);
                Some((202, location(path, arrived.len())))
            }
            "PUT" if path.contains("/manifests/") => {
                let media_type = asked.headers["content-type"].clone();
                let (repository, _) = path.split_once("/manifests/").unwrap();
                put(path.to_owned(), &body, &media_type);
                put(format!("{repository}/manifests/{}", Digest::sha256(&body)), &body, &media_type);
                Some((201, String::new()))
            }
            "PUT" => {
                let mut content = uploads.remove(path)?;
                content.extend(body);
                let digest = Digest::sha256(&content).to_string();
                if query.replace("%3A", ":") != format!("digest={digest}") {
                    return Some((400, String::new()));
                }
                let (repository, _) = path.split_once("/blobs/").unwrap();
                put(format!("{repository}/blobs/{digest}"), &content, "application/octet-stream");
                Some((201, String::new()))
            }
            _ => None,
        }
    }
}

type Writer = tokio::net::tcp::OwnedWriteHalf;

async fn answer(state: &State, asked: &Asked, writer: &mut Writer) -> io::Result<()> {
    let fault = state.faults.lock().unwrap().as_mut().and_then(|faults| faults(asked));
    if let Some(Fault::Status(status, headers, body)) = &fault {
        return short(writer, *status, headers, body).await;
    }
    if asked.path.starts_with("/token") {
        let number = state.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        state.uses.store(0, Ordering::SeqCst);
        return short(writer, 200, "", &format!(r#"{{"token":"good-{number}","expires_in":300}}"#)).await;
    }
    if let Some(challenge) = challenge(state, asked) {
        return short(writer, 401, &format!("www-authenticate: {challenge}\r\n"), "").await;
    }
    if asked.path == "/v2/" {
        return short(writer, 200, "", "{}").await;
    }
    let path = asked.path.split('?').next().unwrap();
    let found = state.content.lock().unwrap().get(path).cloned();
    let Some((mut content, media_type)) = found else {
        return short(writer, 404, "", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}"#).await;
    };
    if let Some(Fault::Content(other)) = &fault {
        content = other.clone();
    }
    let length = content.len() as u64;
    let from = asked.from().filter(|_| !matches!(fault, Some(Fault::NoRange)));
    let begin = from.unwrap_or(0);
    let mut head = format!("content-type: {media_type}\r\n");
    if from.is_some() {
        if begin >= length {
            return short(writer, 416, &format!("content-range: bytes */{length}\r\n"), "").await;
        }
        let said = if matches!(fault, Some(Fault::OtherRange)) { begin + 1 } else { begin };
        head += &format!("content-range: bytes {said}-{}/{length}\r\n", length - 1);
    }
    let status = if from.is_some() { 206 } else { 200 };
    head = format!("HTTP/1.1 {status} X\r\n{head}content-length: {}\r\n\r\n", length - begin);
    writer.write_all(head.as_bytes()).await?;
    let end = match fault {
        Some(Fault::Cut(after)) => length.min(begin + after),
        _ => length,
    };
    let mut at = begin;
    let mut allowed = state.allowed.subscribe();
    let gated = asked.is_blob();
    while at < end {
        if matches!(fault, Some(Fault::Silent)) {
            return left(state, writer).await;
        }
        let limit = if gated { *allowed.borrow_and_update() } else { u64::MAX };
        if at >= limit {
            state.waiting.send_modify(|waiting| *waiting += 1);
            let more = tokio::select! {
                more = allowed.wait_for(|allowed| *allowed > at) => more.is_ok(),
                _ = left(state, writer) => false,
            };
            state.waiting.send_modify(|waiting| *waiting -= 1);
            if !more {
                return Ok(());
            }
            continue;
        }
        let step = if matches!(fault, Some(Fault::Trickle)) { 1 } else { PIECE };
        let until = end.min(at + step).min(limit);
        if writer.write_all(&content[at as usize..until as usize]).await.is_err() {
            state.left.send_modify(|left| *left += 1);
            return Ok(());
        }
        if asked.is_blob() {
            state.sent.fetch_add(until - at, Ordering::SeqCst);
        }
        at = until;
        if step == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    if end < length {
        writer.shutdown().await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}

/// Until the client has gone away.
async fn left(state: &State, writer: &Writer) -> io::Result<()> {
    loop {
        writer.as_ref().ready(tokio::io::Interest::ERROR | tokio::io::Interest::READABLE).await?;
        match writer.as_ref().try_read(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => {
                state.left.send_modify(|left| *left += 1);
                return Ok(());
            }
        }
    }
}

async fn short(writer: &mut Writer, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
    writer.write_all(text.as_bytes()).await
}

/// What is missing from a request, as the header says it.
fn challenge(state: &State, asked: &Asked) -> Option<String> {
    let authorization = asked.headers.get("authorization").map(String::as_str);
    match &*state.auth.lock().unwrap() {
        None => None,
        Some(Auth::Basic) => (authorization != Some("Basic dXNlcjpzZWNyZXQ=")).then(|| "Basic realm=\"here\"".into()),
        Some(Auth::Token(server, good_for)) => {
            let current = format!("Bearer good-{}", state.tokens.load(Ordering::SeqCst));
            let used = state.uses.fetch_add(1, Ordering::SeqCst);
            let good = authorization == Some(&current) && used < *good_for;
            let path = asked.path.strip_prefix("/v2/").unwrap_or_default();
            let repository = path.split("/manifests/").next().unwrap().split("/blobs/").next().unwrap();
            let challenge = format!(
                "Bearer realm=\"http://{server}/token\",service=\"here\",scope=\"repository:{repository}:pull\""
            );
            (!good).then_some(challenge)
        }
    }
}

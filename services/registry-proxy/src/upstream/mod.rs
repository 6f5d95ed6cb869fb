//! One upstream registry: who we are there, how it has been lately, and what it answers.

mod challenge;
mod circuit;
mod counts;
mod token;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use berth_core::{authorities, proxy::Proxies};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Error, refusal::Refusal, settings};
use challenge::Challenge;
use circuit::Circuit;
pub(crate) use counts::Counts;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An upstream that sends nothing for this long is taken to be gone.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A request is sent this often before the upstream is said to be away.
const ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(200);
/// An upstream that wants to be left alone for longer than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Downloads at the same time; more wait their turn, so that one slow upstream holds up no other.
const DOWNLOADS: usize = 32;
/// Bodies of errors are read this far.
const MAX_ERROR: usize = 64 << 10;

/// An upstream registry.
pub(crate) struct Upstream {
    name: String,
    base: String,
    /// The proxy between us and it, for people.
    through: Option<String>,
    http: reqwest::Client,
    tokens: token::Tokens,
    circuit: Circuit,
    counts: Counts,
    last_error: Mutex<String>,
    turns: Semaphore,
}

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// The repository, for the token's scope.
    pub(crate) repository: &'a str,
    /// Behind the repository: "manifests/latest".
    pub(crate) rest: &'a str,
    pub(crate) headers: HeaderMap,
    /// Asked even where the upstream was away a moment ago: the asker waits between its attempts itself.
    pub(crate) persistent: bool,
}

impl Upstream {
    pub(crate) fn new(name: &str, settings: &settings::Upstream) -> Result<Self, Error> {
        let base = settings.base(name)?;
        let loopback = match base.host() {
            Some(url::Host::Domain(domain)) => domain == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                // A connection a download: one HTTP/2 connection would be one congestion window for all of them.
                .http1_only()
                // The client leaves Authorization behind when the host changes.
                .redirect(reqwest::redirect::Policy::limited(5));
            if loopback { builder.no_proxy() } else { builder }
        };
        let proxy = if loopback { None } else { Proxies::from_env().before(base.as_str()) };
        let through = proxy.map(|proxy| format!(" through the proxy {proxy}"));
        let http = authorities::client(builder)?;
        Ok(Self {
            name: name.into(),
            tokens: token::Tokens::new(name, http.clone(), settings.credentials(name)?, base.scheme() == "http"),
            base: base.as_str().trim_end_matches('/').into(),
            through,
            http,
            circuit: Circuit::default(),
            counts: Counts::default(),
            last_error: Mutex::default(),
            turns: Semaphore::new(DOWNLOADS),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits for a place among the downloads.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there always is one.
        self.turns.acquire().await.ok()
    }

    /// What went wrong last; empty where the last request went well.
    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error.into();
    }

    /// What came of content was wrong: said in the status.
    pub(crate) fn accuse(&self, what: &str) {
        tracing::error!(upstream = self.name, what, "the upstream sent something wrong");
        self.note(what);
    }

    /// Asks, until there is an answer with content (or none that changed, or a range that cannot be).
    ///
    /// # Errors
    /// What the upstream refuses, and that it is away.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Response, Refusal> {
        if !ask.persistent
            && let Some(left) = self.circuit.open_for()
        {
            let message = format!("{} is left alone for {} s: {}", self.name, left.as_secs() + 1, self.last_error());
            return Err(Refusal::unavailable(message, left));
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (refusal, wait) = match self.try_ask(&ask).await {
                Ok(answer) => {
                    self.circuit.close();
                    self.note("");
                    return Ok(answer);
                }
                Err(refusal) => {
                    let random: f64 = rand::random();
                    let wait = refusal.retry_after.unwrap_or(BACKOFF * (1 << attempt)).mul_f64(1.0 + random / 2.0);
                    (refusal, wait)
                }
            };
            if !refusal.is_outage() {
                // It answers, if not with what we want.
                self.circuit.close();
                return Err(refusal);
            }
            self.note(&refusal.message);
            tracing::warn!(upstream = self.name, attempt, error = %refusal, "the upstream failed");
            if attempt >= ATTEMPTS || wait > LONGEST_WAIT {
                self.circuit.opened(refusal.retry_after);
                return Err(refusal);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, or two where a token has to be got first.
    async fn try_ask(&self, ask: &Ask<'_>) -> Result<Response, Refusal> {
        let scope = format!("repository:{}:pull", ask.repository);
        let sent = self.tokens.cached(&scope);
        let answer = self.send(ask, sent.as_deref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.classify(ask, answer).await;
        }
        let challenge = answer
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .find_map(|value| Challenge::parse(value.to_str().ok()?));
        let Some(challenge) = challenge else { return self.classify(ask, answer).await };
        let authorization = match self.tokens.get(&challenge, &scope, sent.as_deref()).await? {
            Some(authorization) => authorization,
            None => return self.classify(ask, answer).await,
        };
        let answer = self.send(ask, Some(&authorization)).await?;
        self.classify(ask, answer).await
    }

    async fn send(&self, ask: &Ask<'_>, authorization: Option<&str>) -> Result<Response, Refusal> {
        let url = format!("{}/v2/{}/{}", self.base, ask.repository, ask.rest);
        let mut request = self.http.request(ask.method.clone(), url).headers(ask.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        self.counts.requests.add(1);
        // The client's own time limits are for connecting and for each read; the head of an answer may not take longer.
        match tokio::time::timeout(READ_TIMEOUT, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refusal::upstream(format!(
                "{} ({}) cannot be reached{}: {}",
                self.name,
                self.base,
                self.through.as_deref().unwrap_or_default(),
                berth_core::failure::chain(&error.without_url())
            ))),
            Err(_) => {
                let through = self.through.as_deref().unwrap_or_default();
                Err(Refusal::upstream(format!("{} ({}) does not answer{through}", self.name, self.base)))
            }
        }
    }

    /// Sorts an answer into content and refusals.
    async fn classify(&self, ask: &Ask<'_>, answer: Response) -> Result<Response, Refusal> {
        let status = answer.status();
        if status.is_success() || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE) {
            return Ok(answer);
        }
        let retry_after = retry_after(answer.headers());
        let said = match limited(answer, MAX_ERROR).await {
            Ok(body) => said(&body),
            Err(_) => String::new(),
        };
        let at = &self.name;
        let what = format!("{}/{}", ask.repository, ask.rest);
        Err(match status {
            StatusCode::NOT_FOUND => {
                let code = if ask.rest.starts_with("blobs/") {
                    "BLOB_UNKNOWN"
                } else if ask.rest.starts_with("manifests/") {
                    "MANIFEST_UNKNOWN"
                } else {
                    "NAME_UNKNOWN"
                };
                Refusal::new(StatusCode::NOT_FOUND, code, format!("{at} has no {what}{said}"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let who = self.tokens.who();
                let message = format!("{at} refuses {what}, asked as {who}: it is not there, or not for {who}{said}");
                Refusal::new(StatusCode::FORBIDDEN, "DENIED", message)
            }
            StatusCode::TOO_MANY_REQUESTS => Refusal {
                retry_after: retry_after.or(Some(Duration::from_secs(30))),
                ..Refusal::new(status, "TOOMANYREQUESTS", format!("{at} limits our requests{said}"))
            },
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Refusal { retry_after, ..Refusal::upstream(format!("{at} answered {status} to {what}{said}")) }
            }
            status => Refusal::new(status, "UNSUPPORTED", format!("{at} answered {status} to {what}{said}")),
        })
    }
}

/// Seconds; dates are rare enough here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

/// What a registry says about an error, shortened.
fn said(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let text = |error: &serde_json::Value, key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let errors = value["errors"].as_array().cloned().unwrap_or_default();
    let texts: Vec<String> =
        errors.iter().map(|error| format!("{}: {}", text(error, "code"), text(error, "message"))).collect();
    if texts.is_empty() {
        return String::new();
    }
    format!(" ({})", texts.join("; ").chars().take(300).collect::<String>())
}

/// Reads a whole body that must not be longer than this.
pub(crate) async fn limited(mut answer: Response, limit: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| berth_core::failure::chain(&error.without_url()))? {
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

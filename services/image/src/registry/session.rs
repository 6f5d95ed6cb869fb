//! A conversation with one host about one repository: requests, with whatever authorization it asks for.

use std::{fmt, sync::Arc, time::Duration};

use berth_core::{Digest, Reference};
use bytes::Bytes;
use http::{StatusCode, header};
use reqwest::Response;
use tokio::sync::Mutex;

use super::{
    Host,
    auth::{self, Asking, Credentials},
    challenge::Challenge,
    clients::{Clients, Unreached, chain, tls},
};
use crate::{error::Error, manifest};

/// How long a registry may ask us to wait; longer is a refusal.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often one request may be refused for who we are: a token that another request has got may have expired by now.
pub(super) const MAX_ASKED: u32 = 2;
pub(super) const MAX_ERROR: usize = 16 * 1024;

/// See the module.
#[derive(Clone)]
pub(crate) struct Session {
    clients: Clients,
    host: Host,
    /// Path of the repository.
    path: String,
    /// The repository as people write it.
    repository: String,
    credentials: Option<Credentials>,
    /// What the host accepts. Held while it is asked for, which takes no longer than `patience`: all requests need it.
    authorization: Arc<Mutex<Option<String>>>,
    patience: Duration,
    /// What is asked for where something is to be pushed.
    pub(super) push_scope: Option<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {})", self.host.base, self.path)
    }
}

/// A manifest as it was served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: String,
    pub(crate) digest: Digest,
}

/// A failed attempt, and whether another one can help.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) error: Error,
    /// Wait at least this long; `None` for never again.
    pub(crate) retry: Option<Duration>,
}

impl Attempt {
    pub(crate) fn last(error: Error) -> Self {
        Self { error, retry: None }
    }
}

impl Session {
    pub(super) fn new(
        clients: Clients,
        host: Host,
        reference: &Reference,
        credentials: Option<Credentials>,
        patience: Duration,
    ) -> Self {
        let (path, repository) = (reference.path().to_owned(), reference.familiar_repository());
        Self { clients, host, path, repository, credentials, authorization: Arc::default(), patience, push_scope: None }
    }

    /// Host and port, for people.
    pub(crate) fn host(&self) -> &str {
        self.host.name()
    }

    pub(super) fn authority(&self) -> &str {
        self.host.authority()
    }

    pub(super) fn base(&self) -> &str {
        &self.host.base
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// What the host accepts, as far as it has been asked for.
    pub(super) async fn current(&self) -> Option<String> {
        self.authorization.lock().await.clone()
    }

    pub(super) fn url(&self, rest: &str) -> String {
        let ns = self.host.mirror_of.as_ref().map(|domain| format!("?ns={domain}")).unwrap_or_default();
        format!("{}/v2/{}/{rest}{ns}", self.host.base, self.path)
    }

    /// What is asked for, as people name it.
    fn named(&self, rest: &str) -> String {
        match rest.split_once('/') {
            Some(("manifests", digest)) if digest.contains(':') => format!("{}@{digest}", self.repository),
            Some(("manifests", tag)) => format!("{}:{tag}", self.repository),
            Some(("blobs", digest)) => format!("blob {digest} of {}", self.repository),
            _ => format!("{}/{rest}", self.repository),
        }
    }

    async fn get(&self, rest: &str, accept: &str, range: Option<u64>) -> Result<Response, Attempt> {
        let mut asked = 0;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let http = self.clients.for_content(self.host.authority());
            let mut request = http.get(self.url(rest)).header(header::ACCEPT, accept);
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            if let Some(from) = range {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let answer = request.send().await.map_err(|error| self.unreachable(error))?;
            let status = answer.status();
            // Somebody else to whom we were sent does not learn who we are.
            if status == StatusCode::UNAUTHORIZED && asked < MAX_ASKED && self.is_own(answer.url()) {
                asked += 1;
                if self.authorize(&answer, authorization.as_deref()).await? {
                    continue;
                }
            }
            if status.is_success() {
                return Ok(answer);
            }
            if let (StatusCode::RANGE_NOT_SATISFIABLE, Some(from)) = (status, range) {
                let why = format!("it has only {from} bytes of {}, and the manifest says more", self.named(rest));
                return Err(Attempt::last(Error::Registry { host: self.host().into(), why }));
            }
            return Err(self.refused(answer, rest, authorization.as_deref()).await);
        }
    }

    fn is_own(&self, url: &reqwest::Url) -> bool {
        is_origin(&self.host.base, url)
    }

    pub(super) fn unreachable(&self, error: reqwest::Error) -> Attempt {
        if let Some(error) = tls(&error, self.host.authority()) {
            return Attempt::last(error);
        }
        let Unreached { why, for_good } = self.clients.unreached(&self.host.base, error);
        Attempt {
            error: Error::Registry { host: self.host().into(), why },
            retry: (!for_good).then_some(Duration::ZERO),
        }
    }

    /// Gets the authorization that the answer asks for; false where there is none to be had.
    pub(super) async fn authorize(&self, answer: &Response, used: Option<&str>) -> Result<bool, Attempt> {
        let mut current = self.authorization.lock().await;
        if current.as_deref() != used {
            // Another request of this session has just got it.
            return Ok(true);
        }
        let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenges.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let Some(challenge) = challenge else { return Ok(false) };
        let scope = self.push_scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.path));
        let asking = Asking {
            host: self.host(),
            repository: &self.repository,
            secure: self.host.base.starts_with("https:"),
            scope: &scope,
            credentials: self.credentials.as_ref(),
            own_scope: self.push_scope.is_some(),
            offline: false,
        };
        let answering = auth::answer(&self.clients, &challenge, &asking);
        let granted = tokio::time::timeout(self.patience, answering).await.unwrap_or_else(|_| {
            Err(Attempt { error: self.slow("its token server's answer"), retry: Some(Duration::ZERO) })
        })?;
        *current = granted.map(|granted| granted.authorization);
        // What was refused is not tried again.
        Ok(current.is_some() && current.as_deref() != used)
    }

    fn slow(&self, what: &str) -> Error {
        let why = format!("{what} took longer than {} s", self.patience.as_secs());
        Error::Registry { host: self.host().into(), why }
    }

    pub(super) async fn refused(&self, answer: Response, rest: &str, authorization: Option<&str>) -> Attempt {
        let status = answer.status();
        let wait = retry_after(&answer);
        let host = self.host().to_owned();
        // Whoever really answered.
        let by = match answer.url().host_str() {
            Some(other) if !self.is_own(answer.url()) => format!("{other}, to which {host} sent us,"),
            _ => match self.clients.proxy(&self.host.base) {
                Some(proxy) => format!("it, or the proxy {proxy} before it,"),
                None => "it".to_owned(),
            },
        };
        let body = tokio::time::timeout(self.patience, limited(answer, MAX_ERROR)).await;
        let said = said(&body.ok().and_then(Result::ok).unwrap_or_default());
        let in_brackets = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let answered = format!("{by} answered {status}{in_brackets}");
        let what = format!("{answered} for {}", self.named(rest));
        match status {
            StatusCode::NOT_FOUND if rest.starts_with("manifests/") => {
                // As other clients say it: the registry's own words, which are about the same.
                let said = if said.is_empty() { "manifest unknown" } else { &said };
                let why = format!("{said} ({status} from {host})");
                Attempt::last(Error::ManifestUnknown { reference: self.named(rest), why })
            }
            StatusCode::NOT_FOUND if rest == "tags/list" => {
                let said = if said.is_empty() { status.to_string() } else { said };
                Attempt::last(Error::RepositoryUnknown { repository: self.repository.clone(), why: said })
            }
            StatusCode::UNAUTHORIZED if authorization.is_some_and(|used| used.starts_with("Basic ")) => {
                let who = Credentials::who(self.credentials.as_ref());
                Attempt::last(Error::Credentials { host, why: format!("{what}, {who}") })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.push_scope.is_some() => {
                let who = Credentials::who(self.credentials.as_ref());
                let repository = self.repository.clone();
                Attempt::last(Error::PushDenied { repository, why: format!("{host}: {answered}, {who}") })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Attempt::last(Error::Denied {
                repository: self.repository.clone(),
                why: format!("{host}: {answered}, {}", Credentials::who(self.credentials.as_ref())),
            }),
            StatusCode::TOO_MANY_REQUESTS => Attempt {
                error: Error::TooMany { host, why: format!("it answered {status}{in_brackets}") },
                retry: (wait <= LONGEST_WAIT).then_some(wait.max(Duration::from_secs(1))),
            },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
                Attempt { error: Error::Registry { host, why: what }, retry: Some(wait.min(LONGEST_WAIT)) }
            }
            status if status.is_server_error() => {
                Attempt { error: Error::Registry { host, why: what }, retry: Some(wait.min(LONGEST_WAIT)) }
            }
            _ => Attempt::last(Error::Registry { host, why: what }),
        }
    }

    /// A manifest or index, by tag or digest. What was asked for by digest is verified.
    pub(crate) async fn manifest(&self, target: &str) -> Result<Served, Attempt> {
        let rest = format!("manifests/{target}");
        let named = self.named(&rest);
        let asking = async {
            let answer = self.get(&rest, manifest::ACCEPT, None).await?;
            let text =
                |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            let (content_type, announced) = (text("content-type"), text("docker-content-digest"));
            let bytes = limited(answer, manifest::MAX_BYTES as usize).await;
            let bytes = bytes.map_err(|e| e.attempt(self.host(), &format!("the manifest {named}")))?;
            Ok((bytes, content_type, announced))
        };
        let (bytes, content_type, announced) =
            tokio::time::timeout(self.patience, asking).await.unwrap_or_else(|_| {
                Err(Attempt { error: self.slow(&format!("the manifest {named}")), retry: Some(Duration::ZERO) })
            })?;
        let mut digest = Digest::sha256(&bytes);
        // What was asked for decides in which algorithm the manifest is known from now on.
        for wanted in [&announced, target] {
            let Ok(wanted) = wanted.parse::<Digest>() else { continue };
            let mut hasher = wanted.algorithm().hasher();
            hasher.update(&bytes);
            let is = hasher.finish();
            if is != wanted {
                let what = format!("the manifest {named} from {}", self.host());
                return Err(Attempt::last(Error::WrongDigest { what, wanted: wanted.to_string(), is: is.to_string() }));
            }
            digest = is;
        }
        Ok(Served { bytes, content_type, digest })
    }

    /// A whole blob that is no larger than a document, verified.
    pub(crate) async fn small_blob(&self, digest: &Digest) -> Result<Bytes, Attempt> {
        let asking = async {
            let (answer, _) = self.blob(digest, 0).await?;
            let read = limited(answer, manifest::MAX_BYTES as usize).await;
            read.map_err(|e| e.attempt(self.host(), &format!("the blob {digest}")))
        };
        let bytes = tokio::time::timeout(self.patience, asking).await.unwrap_or_else(|_| {
            Err(Attempt { error: self.slow(&format!("the blob {digest}")), retry: Some(Duration::ZERO) })
        })?;
        let mut hasher = digest.algorithm().hasher();
        hasher.update(&bytes);
        let is = hasher.finish();
        if is != *digest {
            let what = format!("the blob {digest} from {}", self.host());
            return Err(Attempt::last(Error::WrongDigest { what, wanted: digest.to_string(), is: is.to_string() }));
        }
        Ok(bytes)
    }

    /// A blob, from this offset where the host can. The answer says where it really begins.
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<(Response, u64), Attempt> {
        let answer = self.get(&format!("blobs/{digest}"), "*/*", (from > 0).then_some(from)).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((answer, 0));
        }
        let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let begins = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
        match begins {
            Some(begins) if begins <= from => Ok((answer, begins)),
            _ => Err(Attempt::last(Error::Registry {
                host: self.host().into(),
                why: format!(
                    "it was asked for blob {digest} from byte {from} and sent {:?}",
                    range.unwrap_or_default()
                ),
            })),
        }
    }
}

/// Whether an address is of this host, scheme and port.
pub(super) fn is_origin(base: &str, url: &reqwest::Url) -> bool {
    reqwest::Url::parse(base).is_ok_and(|own| own.origin() == url.origin())
}

/// How long the answer asks us to wait (RFC 9110, section 10.2.3; the form with a date means no wait here).
pub(super) fn retry_after(answer: &Response) -> Duration {
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
    seconds.map_or(Duration::ZERO, Duration::from_secs)
}

/// What a registry says about an error (distribution-spec, "Error Codes"), as Docker words it, shortened: "name unknown:
/// repository not known to registry".
pub(super) fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors = serde_json::from_slice::<Errors>(body).map(|e| e.errors).unwrap_or_default();
    let mut texts: Vec<String> =
        errors.iter().map(|e| format!("{}: {}", e.code.to_lowercase().replace('_', " "), e.message)).collect();
    texts.dedup();
    // What a stranger sends ends up on a terminal.
    texts.join("; ").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Why a body was not read to its end.
pub(super) enum Unread {
    Broken(reqwest::Error),
    TooLong(usize),
}

impl Unread {
    pub(super) fn attempt(self, host: &str, what: &str) -> Attempt {
        match self {
            Self::Broken(error) => Attempt {
                error: Error::Registry { host: host.into(), why: format!("{what} broke off: {}", chain(error)) },
                retry: Some(Duration::ZERO),
            },
            Self::TooLong(limit) => {
                let what = format!("{what} from {host}");
                Attempt::last(Error::Unusable { what, why: format!("it is longer than {limit} bytes") })
            }
        }
    }
}

/// Reads a whole body that must not be longer than this.
pub(super) async fn limited(mut answer: Response, limit: usize) -> Result<Bytes, Unread> {
    let mut body = bytes::BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(Unread::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

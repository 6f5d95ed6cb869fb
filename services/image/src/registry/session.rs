//! A conversation with one host about one repository: requests, with whatever authorization it asks for.

use std::{fmt, sync::Arc, time::Duration};

use berth_core::Digest;
use bytes::Bytes;
use http::{StatusCode, header};
use reqwest::Response;
use tokio::sync::Mutex;

use super::{
    Host,
    auth::{self, Credentials, chain},
    challenge::Challenge,
};
use crate::{error::Error, manifest};

/// How long a registry may ask us to wait; longer is a refusal.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone)]
pub(crate) struct Session {
    http: reqwest::Client,
    host: Host,
    /// Path of the repository.
    path: String,
    credentials: Option<Credentials>,
    authorization: Arc<Mutex<Option<String>>>,
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
    fn last(error: Error) -> Self {
        Self { error, retry: None }
    }
}

impl Session {
    pub(super) fn new(http: reqwest::Client, host: Host, path: String, credentials: Option<Credentials>) -> Self {
        Self { http, host, path, credentials, authorization: Arc::default() }
    }

    /// Host and port, for people.
    pub(crate) fn host(&self) -> &str {
        self.host.name()
    }

    fn url(&self, rest: &str) -> String {
        let ns = self.host.mirror_of.as_ref().map(|domain| format!("?ns={domain}")).unwrap_or_default();
        format!("{}/v2/{}/{rest}{ns}", self.host.base, self.path)
    }

    async fn get(&self, rest: &str, accept: &str, range: Option<u64>) -> Result<Response, Attempt> {
        let mut asked = false;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let mut request = self.http.get(self.url(rest)).header(header::ACCEPT, accept);
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            if let Some(from) = range {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let answer = request.send().await.map_err(|error| Attempt {
                error: Error::Registry { host: self.host().into(), why: chain(&error) },
                // A host that is away may be back in a moment; a name that does not exist may not.
                retry: (!error.is_builder()).then_some(Duration::ZERO),
            })?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && !asked {
                asked = true;
                if self.authorize(&answer, authorization.as_deref()).await.map_err(Attempt::last)? {
                    continue;
                }
            }
            if status.is_success() {
                return Ok(answer);
            }
            return Err(self.refused(answer, rest).await);
        }
    }

    /// Gets the authorization that the answer asks for; false where there is none to be had.
    async fn authorize(&self, answer: &Response, used: Option<&str>) -> Result<bool, Error> {
        let mut current = self.authorization.lock().await;
        if current.as_deref() != used {
            // Another request of this session has just got it.
            return Ok(true);
        }
        let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenges.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let Some(challenge) = challenge else { return Ok(false) };
        let scope = format!("repository:{}:pull", self.path);
        *current = auth::answer(&self.http, &challenge, &scope, self.credentials.as_ref(), self.host()).await?;
        Ok(current.is_some())
    }

    async fn refused(&self, answer: Response, rest: &str) -> Attempt {
        let status = answer.status();
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let wait = wait.map_or(Duration::ZERO, Duration::from_secs);
        let body = limited(answer, 16 * 1024).await.unwrap_or_default();
        let said = said(&body);
        let what = format!("{} answered {status}{said} for {rest}", self.host());
        let host = self.host().to_owned();
        match status {
            StatusCode::NOT_FOUND => {
                Attempt::last(Error::ManifestUnknown { reference: format!("{}/{}", self.path, rest), why: what })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Attempt::last(Error::Denied {
                repository: self.path.clone(),
                why: format!("{what}, {}", Credentials::who(self.credentials.as_ref())),
            }),
            StatusCode::TOO_MANY_REQUESTS => Attempt {
                error: Error::TooMany { host, why: format!("{status}{said}") },
                retry: (wait <= LONGEST_WAIT).then_some(wait.max(Duration::from_secs(1))),
            },
            StatusCode::REQUEST_TIMEOUT => Attempt { error: Error::Registry { host, why: what }, retry: Some(wait) },
            status if status.is_server_error() => {
                Attempt { error: Error::Registry { host, why: what }, retry: Some(wait.min(LONGEST_WAIT)) }
            }
            _ => Attempt::last(Error::Registry { host, why: what }),
        }
    }

    /// A manifest or index, by tag or digest. What was asked for by digest is verified.
    pub(crate) async fn manifest(&self, target: &str) -> Result<Served, Attempt> {
        let answer = self.get(&format!("manifests/{target}"), manifest::ACCEPT, None).await?;
        let text = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (content_type, announced) = (text("content-type"), text("docker-content-digest"));
        let bytes = limited(answer, manifest::MAX_BYTES as usize).await.map_err(|why| Attempt {
            error: Error::Registry { host: self.host().into(), why },
            retry: Some(Duration::ZERO),
        })?;
        let mut digest = Digest::sha256(&bytes);
        for wanted in [target, &announced] {
            let Ok(wanted) = wanted.parse::<Digest>() else { continue };
            let mut hasher = wanted.algorithm().hasher();
            hasher.update(&bytes);
            let is = hasher.finish();
            if is != wanted {
                let what = format!("the manifest {target} from {}", self.host());
                return Err(Attempt::last(Error::WrongDigest { what, wanted: wanted.to_string(), is: is.to_string() }));
            }
            digest = is;
        }
        Ok(Served { bytes, content_type, digest })
    }

    /// A blob, from this offset where the host can. The answer says where it really begins.
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<(Response, u64), Attempt> {
        let answer = self.get(&format!("blobs/{digest}"), "*/*", (from > 0).then_some(from)).await?;
        let begins = if answer.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        Ok((answer, begins))
    }
}

/// What a registry says about an error (distribution-spec, "Error Codes"), shortened.
fn said(body: &[u8]) -> String {
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
    let texts: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.code, e.message)).collect();
    if texts.is_empty() {
        String::new()
    } else {
        format!(" ({})", texts.join("; ").chars().take(300).collect::<String>())
    }
}

/// Reads a whole body that must not be longer than this.
pub(crate) async fn limited(mut answer: Response, limit: usize) -> Result<Bytes, String> {
    let mut body = bytes::BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| chain(&e))? {
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

//! What a push asks of a registry (distribution-spec, "Pushing"): whether content is there, uploads that can go on where they
//! broke off, manifests. Pushes go to the registry itself, never to a mirror.

use std::time::Duration;

use berth_core::{Digest, Reference};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use reqwest::{Body, RequestBuilder, Response, Url};
use tokio::sync::watch;

use super::{Attempt, Credentials, Registries, Session, session::is_origin};
use crate::error::Error;

/// The longest silence after everything was sent: large content is hashed, or moved to where it stays.
const ANSWER: Duration = Duration::from_secs(300);

/// An upload that was begun: where it goes on.
#[derive(Clone, Debug)]
pub(crate) struct Upload(Url);

/// What came of the wish to begin an upload.
pub(crate) enum Begun {
    /// The content was there, in the other repository.
    Mounted,
    Upload(Upload),
}

impl Registries {
    /// A conversation with a registry about pushing to a repository, where content may be mounted from others of it.
    pub(crate) async fn session_for_push(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        from: &[String],
    ) -> Session {
        let host = self.own(reference.domain()).await;
        let mut session = self.session(host, reference, credentials);
        let sources = from.iter().map(|path| format!(" repository:{path}:pull"));
        session.push_scope = Some(format!("repository:{}:pull,push{}", reference.path(), sources.collect::<String>()));
        session
    }
}

impl Session {
    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, Attempt> {
        let rest = format!("blobs/{digest}");
        let url = self.parsed(&self.url(&rest))?;
        let (answer, authorization) = self.exchange(&url, |http| http.request(Method::HEAD, url.clone())).await?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused(answer, &rest, authorization.as_deref()).await),
        }
    }

    /// Begins an upload, or mounts the blob from another repository of the registry.
    pub(crate) async fn begin(&self, mount: Option<(&Digest, &str)>) -> Result<Begun, Attempt> {
        let mut url = self.parsed(&self.url("blobs/uploads/"))?;
        if let Some((digest, from)) = mount {
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        }
        let empty = |http: &reqwest::Client| http.post(url.clone()).header(header::CONTENT_LENGTH, 0);
        let (answer, authorization) = self.exchange(&url, empty).await?;
        match answer.status() {
            StatusCode::CREATED if mount.is_some() => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => Ok(Begun::Upload(self.location(&answer, &url)?)),
            _ => Err(self.refused(answer, "blobs/uploads/", authorization.as_deref()).await),
        }
    }

    /// How many bytes of an upload have arrived; `None` where the registry knows nothing of it any more.
    pub(crate) async fn arrived(&self, upload: &Upload) -> Result<Option<(u64, Upload)>, Attempt> {
        let url = &upload.0;
        let (answer, authorization) = self.exchange(url, |http| http.get(url.clone())).await?;
        match answer.status() {
            StatusCode::NO_CONTENT => {
                let range = answer.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
                let last = range.and_then(|range| range.rsplit('-').next()?.trim().parse::<u64>().ok()).unwrap_or(0);
                let next = self.location(&answer, url).unwrap_or_else(|_| upload.clone());
                // "0-0" is said of nothing, too.
                Ok(Some((if last == 0 { 0 } else { last + 1 }, next)))
            }
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => Ok(None),
            _ => Err(self.refused(answer, "blobs/uploads/", authorization.as_deref()).await),
        }
    }

    /// Sends more of an upload: `length` bytes from `offset` on, which `body` gives each time it is asked. `moved` changes as
    /// they leave.
    pub(crate) async fn send(
        &self,
        upload: &Upload,
        (offset, length): (u64, u64),
        body: impl Fn() -> (Body, watch::Receiver<u64>),
    ) -> Result<Upload, Attempt> {
        let url = &upload.0;
        let answer = self.sending(url, &body, |http| {
            let mut request = http
                .patch(url.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, length);
            if offset > 0 {
                request = request.header(header::CONTENT_RANGE, format!("{offset}-{}", offset + length - 1));
            }
            request
        });
        let (answer, authorization) = answer.await?;
        match answer.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => self.location(&answer, url),
            _ => Err(self.refused_upload(answer, authorization.as_deref()).await),
        }
    }

    /// Ends an upload with the last of it (perhaps nothing); the registry verifies the digest.
    pub(crate) async fn finish(
        &self,
        upload: &Upload,
        digest: &Digest,
        length: u64,
        body: impl Fn() -> (Body, watch::Receiver<u64>),
    ) -> Result<(), Attempt> {
        let mut url = upload.0.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let answer = self.sending(&url, &body, |http| {
            http.put(url.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, length)
        });
        let (answer, authorization) = answer.await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.refused_upload(answer, authorization.as_deref()).await),
        }
    }

    /// Puts a manifest, byte for byte, under a tag or its digest.
    pub(crate) async fn put_manifest(&self, target: &str, media_type: &str, bytes: &Bytes) -> Result<(), Attempt> {
        let rest = format!("manifests/{target}");
        let url = self.parsed(&self.url(&rest))?;
        let put =
            |http: &reqwest::Client| http.put(url.clone()).header(header::CONTENT_TYPE, media_type).body(bytes.clone());
        let (answer, authorization) = self.exchange(&url, put).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            // Not "not found", which is what it means when one is asked for.
            _ => Err(self.refused(answer, "manifest", authorization.as_deref()).await),
        }
    }

    pub(super) fn parsed(&self, url: &str) -> Result<Url, Attempt> {
        let why = |error| format!("its address {url:?} is none: {error}");
        Url::parse(url).map_err(|error| Attempt::last(Error::Registry { host: self.host().into(), why: why(error) }))
    }

    /// An upload that is no more can be begun anew.
    async fn refused_upload(&self, answer: Response, authorization: Option<&str>) -> Attempt {
        let status = answer.status();
        let mut attempt = self.refused(answer, "blobs/uploads/", authorization).await;
        let lost =
            matches!(status, StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST);
        if lost && attempt.retry.is_none() {
            attempt.retry = Some(Duration::ZERO);
        }
        attempt
    }

    /// Where an upload goes on. A registry behind a proxy may not know by which scheme and port it is reached: on the same
    /// host it is ours.
    fn location(&self, answer: &Response, asked: &Url) -> Result<Upload, Attempt> {
        let failed = |why: String| Attempt::last(Error::Registry { host: self.host().into(), why });
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| failed("it does not say where an upload goes on".into()))?;
        let mut url = asked.join(location).map_err(|error| failed(format!("an upload goes on nowhere: {error}")))?;
        if asked.scheme() == "https" && url.scheme() != "https" {
            if url.host_str() != asked.host_str() {
                return Err(failed("it sends an upload from TLS to plain HTTP".into()));
            }
            let _ = url.set_scheme("https");
            let _ = url.set_port(asked.port());
        }
        Ok(Upload(url))
    }

    /// A request with a body that may be long: it may take as long as something moves.
    async fn sending(
        &self,
        url: &Url,
        body: &impl Fn() -> (Body, watch::Receiver<u64>),
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<(Response, Option<String>), Attempt> {
        let (sender, mut current) = watch::channel(None);
        let sending = self.exchange_with(self.clients().for_uploads(url.host_str().unwrap_or_default()), url, |http| {
            let (body, moved) = body();
            sender.send_replace(Some(moved));
            request(http).body(body)
        });
        let stall = self.patience();
        let stalled = async {
            loop {
                let moved = current.borrow_and_update().clone();
                let Some(mut moved) = moved else {
                    // Who we are is asked for first, which has deadlines of its own.
                    if current.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    continue;
                };
                match tokio::time::timeout(stall, moved.changed()).await {
                    Ok(Ok(())) => {}
                    Err(_) => return stall,
                    // All of it has left.
                    Ok(Err(_)) => match tokio::time::timeout(ANSWER, current.changed()).await {
                        Ok(Ok(())) => {}
                        _ => return ANSWER,
                    },
                }
            }
        };
        let answer = tokio::select! {
            answer = sending => return answer,
            waited = stalled => waited,
        };
        let why = format!("an upload did not move for {} s", answer.as_secs());
        Err(Attempt { error: Error::Registry { host: self.host().into(), why }, retry: Some(Duration::ZERO) })
    }

    /// Asks, and asks again as whom the answer wants; any other answer is the caller's to judge.
    pub(super) async fn exchange(
        &self,
        url: &Url,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<(Response, Option<String>), Attempt> {
        self.exchange_with(self.clients().for_content(self.authority()), url, request).await
    }

    async fn exchange_with(
        &self,
        http: &reqwest::Client,
        url: &Url,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<(Response, Option<String>), Attempt> {
        // Uploads may go on elsewhere, where nobody has to know who we are.
        let own = is_origin(self.base(), url);
        let mut asked = 0;
        loop {
            let authorization = if own { self.current().await } else { None };
            let mut request = request(http);
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let answer = request.send().await.map_err(|error| self.unreachable(error))?;
            if own && answer.status() == StatusCode::UNAUTHORIZED && asked < super::session::MAX_ASKED {
                asked += 1;
                if self.authorize(&answer, authorization.as_deref()).await? {
                    continue;
                }
            }
            return Ok((answer, authorization));
        }
    }
}

//! Who we are at a registry: credentials, and the token that they (or nothing) buy (distribution's token protocol).
//!
//! Credentials are for the registry they were given for and for the token server it names, and are never shown.

use std::{fmt, time::Duration};

use berth_proto::berth::image::v1::Auth;
use http::StatusCode;
use serde::Deserialize;

use super::{
    clients::{Clients, Unreached},
    session::{Attempt, MAX_ERROR, limited, retry_after, said},
};
use crate::{error::Error, registry::challenge::Challenge};

/// Larger answers of token servers are not read.
const MAX_TOKEN: usize = 1 << 20;
const CLIENT: &str = "berth";

/// Credentials for one registry. They are never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// An OAuth2 refresh token.
    Identity(String),
    /// A bearer token to be used as it is.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// From a request; `None` where it has none.
    pub(crate) fn from_wire(auth: Auth) -> Option<Self> {
        if !auth.registry_token.is_empty() {
            Some(Self::Token(auth.registry_token))
        } else if !auth.identity_token.is_empty() {
            Some(Self::Identity(auth.identity_token))
        } else if !auth.username.is_empty() {
            Some(Self::Password { username: auth.username, password: auth.password })
        } else {
            None
        }
    }

    /// Who this is, for messages.
    pub(crate) fn who(credentials: Option<&Self>) -> String {
        match credentials {
            None => "asked as nobody (no credentials)".into(),
            Some(Self::Password { username, .. }) => format!("asked as {username}"),
            Some(Self::Identity(_) | Self::Token(_)) => "asked with a token".into(),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

/// What an answer to a challenge is.
pub(super) struct Granted {
    /// For the `Authorization` header.
    pub(super) authorization: String,
    /// An OAuth2 refresh token, where one was asked for and given.
    pub(super) refresh: Option<String>,
}

impl Granted {
    fn new(authorization: String) -> Self {
        Self { authorization, refresh: None }
    }
}

/// Who asks whom for what.
pub(super) struct Asking<'a> {
    /// The registry's host and port.
    pub(super) host: &'a str,
    /// The repository, as people write it.
    pub(super) repository: &'a str,
    /// It is spoken to over TLS.
    pub(super) secure: bool,
    /// What is asked for where the challenge does not say.
    pub(super) scope: &'a str,
    pub(super) credentials: Option<&'a Credentials>,
    /// That is asked for whatever the challenge says.
    pub(super) own_scope: bool,
    /// A refresh token is wanted as well.
    pub(super) offline: bool,
}

/// The `Authorization` that answers a challenge; `None` where we have nothing to answer with.
pub(super) async fn answer(
    clients: &Clients,
    challenge: &Challenge,
    asking: &Asking<'_>,
) -> Result<Option<Granted>, Attempt> {
    let credentials = asking.credentials;
    let (realm, service, scope) = match (challenge, credentials) {
        (_, Some(Credentials::Token(token))) => {
            return Ok(Some(Granted::new(format!("Bearer {token}"))));
        }
        (Challenge::Basic, Some(Credentials::Password { username, password })) => {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            return Ok(Some(Granted::new(format!("Basic {pair}"))));
        }
        (Challenge::Basic, _) => return Ok(None),
        (Challenge::Bearer { realm, service, scope }, _) => {
            let scope = scope.as_deref().filter(|_| !asking.own_scope);
            (realm, service.as_deref(), scope.unwrap_or(asking.scope))
        }
    };
    let failed = |why: String| Error::Registry { host: asking.host.into(), why };
    let url = reqwest::Url::parse(realm)
        .map_err(|e| Attempt::last(failed(format!("its token server {realm:?} is no address: {e}"))))?;
    if asking.secure && url.scheme() != "https" && credentials.is_some() {
        let why = format!("its token server {realm:?} is not reached over TLS; credentials are not sent there");
        return Err(Attempt::last(failed(why)));
    }
    let request = request(clients, url, service, scope, asking);
    let answer = request.send().await.map_err(|error| {
        let Unreached { why, for_good } = clients.unreached(realm, error);
        let error = failed(format!("its token server {realm}: {why}"));
        Attempt { error, retry: (!for_good).then_some(Duration::ZERO) }
    })?;
    let status = answer.status();
    if !status.is_success() {
        let wait = retry_after(&answer);
        let said = said(&limited(answer, MAX_ERROR).await.unwrap_or_default());
        let in_brackets = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let why = format!("its token server {realm} answered {status}{in_brackets}, {}", Credentials::who(credentials));
        return Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if credentials.is_some() => {
                Attempt::last(Error::Credentials { host: asking.host.into(), why })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Attempt::last(Error::Denied {
                repository: asking.repository.into(),
                why: format!("{}: {why}", asking.host),
            }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Attempt { error: failed(why), retry: Some(wait) }
            }
            status if status.is_server_error() => Attempt { error: failed(why), retry: Some(wait) },
            _ => Attempt::last(failed(why)),
        });
    }
    let bytes = limited(answer, MAX_TOKEN).await.map_err(|e| e.attempt(asking.host, "the token"))?;
    // What the server says may hold a token: it is not repeated in the message.
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|_| Attempt::last(failed(format!("the answer of its token server {realm} is malformed"))))?;
    let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let token = token.ok_or_else(|| Attempt::last(failed(format!("its token server {realm} gave no token"))))?;
    let refresh = answer.refresh_token.filter(|token| !token.is_empty());
    Ok(Some(Granted { authorization: format!("Bearer {token}"), refresh }))
}

fn request(
    clients: &Clients,
    mut url: reqwest::Url,
    service: Option<&str>,
    scope: &str,
    asking: &Asking<'_>,
) -> reqwest::RequestBuilder {
    let http = clients.for_tokens(url.host_str().unwrap_or_default());
    if let Some(Credentials::Identity(token)) = asking.credentials {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", CLIENT),
            ("service", service.unwrap_or_default()),
            ("scope", scope),
        ]);
        return http
            .post(url)
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish());
    }
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(service.map(|service| ("service", service)));
        if asking.offline {
            query.extend_pairs([("offline_token", "true"), ("client_id", CLIENT)]);
        }
        // Several stand in one challenge with spaces between.
        query.extend_pairs(scope.split(' ').filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
    }
    match asking.credentials {
        Some(Credentials::Password { username, password }) => http.get(url).basic_auth(username, Some(password)),
        _ => http.get(url),
    }
}

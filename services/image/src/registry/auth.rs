//! Who we are at a registry: credentials, and the token that they (or nothing) buy (distribution's token protocol).

use std::fmt;

use berth_proto::berth::image::v1::Auth;
use serde::Deserialize;

use super::challenge::Challenge;
use crate::error::Error;

/// Larger answers of token servers are not read.
const MAX_TOKEN: usize = 1 << 20;
const CLIENT: &str = "berth";

/// Credentials for one registry. They are never shown.
#[derive(Clone)]
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
}

/// The `Authorization` that answers a challenge.
pub(crate) async fn answer(
    http: &reqwest::Client,
    challenge: &Challenge,
    scope: &str,
    credentials: Option<&Credentials>,
    host: &str,
) -> Result<Option<String>, Error> {
    let (realm, service, asked) = match (challenge, credentials) {
        (_, Some(Credentials::Token(token))) => return Ok(Some(format!("Bearer {token}"))),
        (Challenge::Basic, Some(Credentials::Password { username, password })) => {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            return Ok(Some(format!("Basic {pair}")));
        }
        (Challenge::Basic, _) => return Ok(None),
        (Challenge::Bearer { realm, service, scope }, _) => (realm, service.as_deref(), scope.as_deref()),
    };
    let failed = |why: String| Error::Registry { host: host.into(), why };
    let mut url =
        reqwest::Url::parse(realm).map_err(|e| failed(format!("its token server {realm:?} is no address: {e}")))?;
    let scope = asked.unwrap_or(scope);
    let request = match credentials {
        Some(Credentials::Identity(token)) => {
            let mut form = reqwest::Url::parse("form:/").map_err(|e| failed(e.to_string()))?;
            form.query_pairs_mut().extend_pairs([
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", CLIENT),
                ("service", service.unwrap_or_default()),
                ("scope", scope),
            ]);
            let request = http.post(url).header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body(form.query().unwrap_or_default().to_owned())
        }
        _ => {
            {
                let mut query = url.query_pairs_mut();
                query.extend_pairs(service.map(|service| ("service", service)));
                query.append_pair("scope", scope);
            }
            match credentials {
                Some(Credentials::Password { username, password }) => {
                    http.get(url).basic_auth(username, Some(password))
                }
                _ => http.get(url),
            }
        }
    };
    let answer = request.send().await.map_err(|e| failed(format!("its token server: {}", chain(&e))))?;
    let status = answer.status();
    if !status.is_success() {
        let who = Credentials::who(credentials);
        return Err(Error::Denied {
            repository: scope.into(),
            why: format!("{host}'s token server answered {status}, {who}"),
        });
    }
    let bytes = super::session::limited(answer, MAX_TOKEN).await.map_err(&failed)?;
    let answer: Answer =
        serde_json::from_slice(&bytes).map_err(|e| failed(format!("its token server's answer: {e}")))?;
    let token = answer.token.or(answer.access_token).ok_or_else(|| failed("its token server gave no token".into()))?;
    Ok(Some(format!("Bearer {token}")))
}

/// An error of the HTTP client with its causes.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    berth_core::failure::chain(error)
}

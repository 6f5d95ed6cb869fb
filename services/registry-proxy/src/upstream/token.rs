//! Who we are at an upstream: nobody or a user, and the tokens that this buys (distribution's token protocol).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use url::Url;

use super::{challenge::Challenge, limited};
use crate::{flights::Flights, refusal::Refusal};

/// Larger answers of token servers are not read.
const MAX_ANSWER: usize = 1 << 20;
/// The protocol's own default.
const DEFAULT_LIFE: u64 = 60;
/// A token is renewed this long before its end, so that it does not end on the way.
const MARGIN: Duration = Duration::from_secs(10);
/// More scopes than these are forgotten, all at once.
const MAX_SCOPES: usize = 4096;

/// The `Authorization` for each scope.
pub(crate) struct Tokens {
    upstream: String,
    http: reqwest::Client,
    credentials: Option<(String, String)>,
    /// The upstream itself is spoken to in the clear.
    clear: bool,
    cached: Mutex<HashMap<String, (String, Instant)>>,
    flights: Flights<(Challenge, String), Result<(String, Duration), Refusal>>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    pub(crate) fn new(
        upstream: &str,
        http: reqwest::Client,
        credentials: Option<(String, String)>,
        clear: bool,
    ) -> Self {
        let cached = Mutex::default();
        Self { upstream: upstream.into(), http, credentials, clear, cached, flights: Flights::default() }
    }

    /// Who we are, for people.
    pub(crate) fn who(&self) -> &str {
        self.credentials.as_ref().map_or("nobody", |(user, _)| user)
    }

    /// What was good for this scope and still should be.
    pub(crate) fn cached(&self, scope: &str) -> Option<String> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.get(scope).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    /// Answers a challenge; `None` where it cannot be: there are no credentials, or they were sent already.
    pub(crate) async fn get(
        &self,
        challenge: &Challenge,
        scope: &str,
        sent: Option<&str>,
    ) -> Result<Option<String>, Refusal> {
        if let Some(other) = self.cached(scope).filter(|cached| Some(cached.as_str()) != sent) {
            // Somebody else got one meanwhile.
            return Ok(Some(other));
        }
        let (value, life) = match (challenge, &self.credentials) {
            (Challenge::Basic, None) => return Ok(None),
            (Challenge::Basic, Some((user, password))) => {
                let value = basic(user, password);
                if Some(value.as_str()) == sent {
                    return Ok(None);
                }
                (value, Duration::from_secs(24 * 3600))
            }
            (Challenge::Bearer { .. }, credentials) => {
                let (upstream, http, clear) = (self.upstream.clone(), self.http.clone(), self.clear);
                let (asked, wanted, credentials) = (challenge.clone(), scope.to_owned(), credentials.clone());
                let key = (challenge.clone(), scope.to_owned());
                self.flights
                    .join(key, || async move { buy(&upstream, &http, clear, &asked, &wanted, credentials).await })
                    .await
                    .unwrap_or_else(|| Err(Refusal::upstream("getting a token broke off")))?
            }
        };
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_SCOPES {
            cached.clear();
        }
        cached.insert(scope.to_owned(), (value.clone(), Instant::now() + life.saturating_sub(MARGIN)));
        Ok(Some(value))
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Gets a token.
async fn buy(
    upstream: &str,
    http: &reqwest::Client,
    clear: bool,
    challenge: &Challenge,
    scope: &str,
    credentials: Option<(String, String)>,
) -> Result<(String, Duration), Refusal> {
    let Challenge::Bearer { realm, service, scope: asked } = challenge else {
        return Err(Refusal::upstream(format!("{upstream} wants no token")));
    };
    let failed = |why: String| Refusal::upstream(format!("{upstream}'s token server {realm}: {why}"));
    let mut url = Url::parse(realm).map_err(|error| failed(error.to_string()))?;
    if credentials.is_some() && url.scheme() != "https" && !clear {
        return Err(failed("the password would be sent to it unencrypted".into()));
    }
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(service.as_ref().map(|service| ("service", service)));
        query.append_pair("scope", asked.as_deref().unwrap_or(scope));
    }
    let mut request = http.get(url);
    if let Some((user, password)) = &credentials {
        request = request.basic_auth(user, Some(password));
    }
    let answer = request.send().await.map_err(|error| failed(berth_core::failure::chain(&error.without_url())))?;
    let status = answer.status();
    if matches!(status.as_u16(), 400 | 401 | 403 | 404) {
        let who = credentials.as_ref().map_or("nobody", |(user, _)| user);
        let message = format!("{upstream}'s token server answered {status} to {scope}, asked as {who}");
        return Err(Refusal::new(http::StatusCode::FORBIDDEN, "DENIED", message));
    }
    if !status.is_success() {
        return Err(failed(format!("it answered {status}")));
    }
    let body = limited(answer, MAX_ANSWER).await.map_err(&failed)?;
    // What the parser says could quote the token.
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| failed("its answer is no token".into()))?;
    let token = answer.token.or(answer.access_token).ok_or_else(|| failed("its answer has no token".into()))?;
    let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(24 * 3600));
    Ok((format!("Bearer {token}"), life))
}

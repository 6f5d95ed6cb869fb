//! Whether a registry accepts credentials: its `/v2/` is asked as whoever wants to use it will ask (distribution's token
//! protocol, or basic authentication). Mirrors have no part in it: credentials are not for them.

use berth_core::reference::DEFAULT_DOMAIN;
use http::{StatusCode, header};

use super::{
    Credentials, Registries,
    auth::{self, Asking},
    challenge::Challenge,
    clients::{Unreached, tls},
};
use crate::error::Error;

impl Registries {
    /// Asks the registry at `server` (a host as in references; empty for Docker Hub). An OAuth2 refresh token, where it gives
    /// one: it is worth as much as the password from now on.
    pub(crate) async fn login(&self, server: &str, credentials: &Credentials) -> Result<Option<String>, Error> {
        let domain = domain(server)?;
        let asking = async {
            let host = self.own(domain).await;
            let url = format!("{}/v2/", host.base);
            let own = reqwest::Url::parse(&url).map(|url| url.origin());
            let http = self.clients.for_content(host.authority());
            let (mut authorization, mut refresh) = (None, None);
            loop {
                let mut request = http.get(&url);
                if let Some(authorization) = &authorization {
                    request = request.header(header::AUTHORIZATION, authorization);
                }
                let answer = request.send().await.map_err(|error| match tls(&error, host.authority()) {
                    Some(error) => error,
                    None => {
                        let Unreached { why, .. } = self.clients.unreached(&host.base, error);
                        Error::Registry { host: host.name().into(), why }
                    }
                })?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(refresh);
                }
                let refused = Err(Error::Login { url: url.clone(), status });
                // Somebody else to whom we were sent does not learn who we are.
                let is_own = own.as_ref().is_ok_and(|own| *own == answer.url().origin());
                if status != StatusCode::UNAUTHORIZED || authorization.is_some() || !is_own {
                    return refused;
                }
                let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
                let challenge = challenges.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
                let Some(challenge) = challenge else { return refused };
                let asking = Asking {
                    host: host.name(),
                    repository: domain,
                    secure: host.base.starts_with("https:"),
                    scope: "",
                    own_scope: false,
                    credentials: Some(credentials),
                    offline: true,
                };
                let granted = auth::answer(&self.clients, &challenge, &asking).await;
                let Some(granted) = granted.map_err(|attempt| attempt.error)? else { return refused };
                (authorization, refresh) = (Some(granted.authorization), granted.refresh);
            }
        };
        let slow = || Error::Registry {
            host: domain.into(),
            why: format!("the login took longer than {} s", self.patience.as_secs()),
        };
        tokio::time::timeout(self.patience, asking).await.map_err(|_| slow())?
    }
}

/// A server's name in references, from how people write it.
fn domain(server: &str) -> Result<&str, Error> {
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let bare = bare.split('/').next().unwrap_or(bare);
    match bare {
        "" if !server.is_empty() => Err(Error::Request("the server's address has no host")),
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => Ok(DEFAULT_DOMAIN),
        host if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)) => Ok(host),
        _ => Err(Error::Request("a server is a host, perhaps with a port: registry.example.com:5000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_however_they_are_written() {
        assert_eq!(domain("").unwrap(), DEFAULT_DOMAIN);
        assert_eq!(domain("https://index.docker.io/v1/").unwrap(), DEFAULT_DOMAIN);
        assert_eq!(domain("http://reg.lan:5000/v2/").unwrap(), "reg.lan:5000");
        assert_eq!(domain("[::1]:5000").unwrap(), "[::1]:5000");
        for wrong in ["https://", "me@reg.lan", "reg lan", "a?b"] {
            assert!(domain(wrong).is_err(), "{wrong}");
        }
    }
}

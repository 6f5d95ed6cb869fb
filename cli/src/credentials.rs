//! Credentials for registries, as `docker login` leaves them: in `config.json` of `$DOCKER_CONFIG` (or `~/.docker`), or with
//! a helper program that is named there. They travel to the service with one call and are never printed.

use std::{
    collections::HashMap,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_core::Reference;
use berth_proto::berth::{image::v1::Auth, runtime::v1::RegistryAuth};
use serde::Deserialize;

/// Docker Hub's name in the file.
const HUB: &str = "https://index.docker.io/v1/";
/// What a helper answers where it knows nothing.
const NOT_FOUND: &str = "credentials not found";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: HashMap<String, Entry>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// What is known for the registry of `image`; nothing where there is nothing, which is an anonymous pull.
pub(crate) fn find(image: &str) -> Option<Auth> {
    // A name that is none is the service's to refuse.
    let reference: Reference = image.parse().ok()?;
    let path = file()?;
    let bytes = std::fs::read(&path).ok()?;
    let config: Config = match serde_json::from_slice(&bytes) {
        Ok(config) => config,
        Err(error) => {
            // Where, not what: the file is full of secrets.
            warn(&format!(
                "{} is not read ({:?} at line {}); going on without credentials",
                path.display(),
                error.classify(),
                error.line()
            ));
            return None;
        }
    };
    let host = reference.domain();
    let key = if host == "docker.io" { HUB } else { host };
    let helper = config.cred_helpers.get(key).or_else(|| config.cred_helpers.get(host)).unwrap_or(&config.creds_store);
    if !helper.is_empty() {
        return ask(helper, key);
    }
    let entry = config.auths.iter().find(|(name, _)| *name == key || bare(name) == bare(key))?.1;
    read(entry)
}

/// Whether there may be credentials at all.
pub(crate) fn may_be_there() -> bool {
    file().is_some_and(|file| file.exists())
}

fn file() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(directory.join("config.json"))
}

/// A registry's host, however the file writes it.
fn bare(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    name.split('/').next().unwrap_or(name)
}

fn read(entry: &Entry) -> Option<Auth> {
    let mut auth = Auth {
        username: entry.username.clone(),
        password: entry.password.clone(),
        identity_token: entry.identitytoken.clone(),
        registry_token: entry.registrytoken.clone(),
    };
    if !entry.auth.is_empty() {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(entry.auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        auth.username = username.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    (auth != Auth::default()).then_some(auth)
}

/// Asks `docker-credential-HELPER`.
fn ask(helper: &str, key: &str) -> Option<Auth> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: &str| warn(&format!("{program} gave no credentials ({why}); going on without"));
    let child =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            failed(&error.to_string());
            return None;
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has answered already.
        let _ = stdin.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if !text.contains(NOT_FOUND) {
            failed(&output.status.to_string());
        }
        return None;
    }
    let Ok(helped) = serde_json::from_slice::<Helped>(&output.stdout) else {
        failed("its answer is not what it should be");
        return None;
    };
    Some(match helped.username.as_str() {
        "<token>" => Auth { identity_token: helped.secret, ..Auth::default() },
        _ => Auth { username: helped.username, password: helped.secret, ..Auth::default() },
    })
}

fn warn(message: &str) {
    let _ = writeln!(std::io::stderr(), "WARNING: {message}");
}

/// The same for the runtime service.
pub(crate) fn for_create(auth: Auth) -> RegistryAuth {
    RegistryAuth {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_login_left_is_read() {
        let config: Config = serde_json::from_str(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},"reg.example:5000":{"identitytoken":"t"}},
                "credHelpers":{"x.example":"none"},"other":1}"#,
        )
        .unwrap();
        let hub = read(&config.auths[HUB]).unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("user", "pa:ss"));
        assert_eq!(read(&config.auths["reg.example:5000"]).unwrap().identity_token, "t");
        assert!(read(&Entry::default()).is_none() && read(&Entry { auth: "%%".into(), ..Entry::default() }).is_none());
    }

    #[test]
    fn registries_are_found_however_they_are_written() {
        assert_eq!(bare("https://reg.example:5000/v2/"), "reg.example:5000");
        assert_eq!(bare("reg.example"), "reg.example");
    }
}

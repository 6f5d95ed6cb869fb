//! Credentials for registries, where Docker keeps them: in `config.json` of `$DOCKER_CONFIG` (or `~/.docker`), or with a
//! helper program that is named there. They travel to the service with one call and are never printed.

mod file;
mod helper;

use std::io::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_core::Reference;
use berth_proto::berth::{image::v1::Auth, runtime::v1::RegistryAuth};
use serde_json::{Map, Value, json};

use self::file::{Config, Entry, file};
use crate::outcome::Error;

/// Docker Hub's name in the file.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";

/// What is known for the registry of `image`; nothing where there is nothing, which is an anonymous pull.
pub(crate) fn find(image: &str) -> Option<Auth> {
    // A name that is none is the service's to refuse.
    let reference: Reference = image.parse().ok()?;
    of(key(reference.domain()))
}

/// What is known for a registry, by its name in the file.
pub(crate) fn of(key: &str) -> Option<Auth> {
    let config = match Config::read() {
        Ok(config) => config?,
        Err(why) => {
            warn(&format!("{why}; going on without credentials"));
            return None;
        }
    };
    if let Some(helper) = config.helper(key) {
        return helper::get(helper, key).unwrap_or_else(|why| {
            warn(&format!("{why}; going on without credentials"));
            None
        });
    }
    let alike = || config.auths.iter().find(|(name, _)| bare(name) == bare(key)).map(|(_, entry)| entry);
    read(config.auths.get(key).or_else(alike)?)
}

/// A registry's name in the file, from how a person writes it; empty for Docker Hub.
pub(crate) fn key(server: &str) -> &str {
    match server {
        "" | "docker.io" | HUB => HUB,
        server => bare(server),
    }
}

/// How the user wants to see a list, by the format's name in the file: "psFormat".
pub(crate) fn list_format(name: &str) -> Option<String> {
    match Config::read() {
        Ok(config) => config?.text(name).map(Into::into),
        Err(why) => {
            warn(&format!("{why}; going on without {name}"));
            None
        }
    }
}

/// Whether there may be credentials at all.
pub(crate) fn may_be_there() -> bool {
    file().is_some_and(|file| file.exists())
}

/// Where the file is, and what else Docker's program keeps for a user.
pub(crate) fn directory() -> Option<std::path::PathBuf> {
    Some(file()?.parent()?.to_owned())
}

/// Where credentials were kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// With a helper program, or just as they were before.
    Well,
    /// In this file, for everybody to read who may read it.
    Plainly(std::path::PathBuf),
}

/// Keeps credentials for a registry.
///
/// # Errors
/// The helper does not take them, or the file cannot be read or written.
pub(crate) fn store(key: &str, auth: &Auth) -> Result<Kept, Error> {
    let config = Config::read().map_err(Error::Invalid)?.unwrap_or_default();
    let helper = config.helper(key);
    let entry = match helper {
        Some(helper) => {
            helper::store(helper, key, auth)
                .map_err(|why| Error::Invalid(format!("Error saving credentials: {why}")))?;
            json!({})
        }
        None => written(auth),
    };
    let (path, changed) = file::change(|root| {
        let auths = section(root)?;
        let changed = auths.get(key) != Some(&entry);
        auths.insert(key.to_owned(), entry);
        Ok(changed)
    })?;
    Ok(if helper.is_none() && changed { Kept::Plainly(path) } else { Kept::Well })
}

/// Forgets the credentials for a registry; what could not be forgotten, and why.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn erase(key: &str) -> Result<Vec<String>, Error> {
    let Some(config) = Config::read().map_err(Error::Invalid)? else { return Ok(Vec::new()) };
    let failed = match config.helper(key) {
        Some(helper) => helper::erase(helper, key).err().map(|why| format!("{key}: {why}")),
        None => None,
    };
    file::change(|root| {
        if !root.contains_key("auths") {
            return Ok(false);
        }
        let auths = section(root)?;
        let before = auths.len();
        // All that `find` would find.
        auths.retain(|name, _| bare(name) != bare(key));
        Ok(auths.len() != before)
    })?;
    Ok(failed.into_iter().collect())
}

fn section(root: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, String> {
    root.entry("auths").or_insert_with(|| json!({})).as_object_mut().ok_or_else(|| "its \"auths\" is no object".into())
}

/// An entry of the file.
fn written(auth: &Auth) -> Value {
    let pair = BASE64_STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    let mut entry = json!({ "auth": pair });
    if !auth.identity_token.is_empty() {
        entry["identitytoken"] = Value::from(auth.identity_token.clone());
    }
    entry
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
        assert_eq!((key(""), key("docker.io"), key("https://r.lan:5/v2/")), (HUB, HUB, "r.lan:5"));
    }

    #[test]
    fn what_is_written_is_read() {
        let auth = Auth { username: "user".into(), password: "pa:ss".into(), ..Auth::default() };
        assert_eq!(written(&auth), json!({ "auth": "dXNlcjpwYTpzcw==" }));
        let identity = Auth { username: "user".into(), identity_token: "t".into(), ..Auth::default() };
        for auth in [auth, identity] {
            let entry: Entry = serde_json::from_value(written(&auth)).unwrap();
            assert_eq!(read(&entry), Some(auth));
        }
    }
}

//! Docker's credential helpers: `docker-credential-NAME get|store|erase`, told on standard input. Secrets go through pipes
//! and never through arguments.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use berth_proto::berth::image::v1::Auth;
use serde::{Deserialize, Serialize};

/// What a helper answers where it knows nothing.
const NOT_FOUND: &str = "credentials not found";
/// The user name that stands for an OAuth2 refresh token.
const TOKEN: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

#[derive(Serialize)]
struct Stored<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    username: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

/// What it knows for a registry.
pub(super) fn get(helper: &str, key: &str) -> Result<Option<Auth>, String> {
    let output = ask(helper, "get", key.as_bytes())?;
    if is_unknown(&output) {
        return Ok(None);
    }
    let output = succeeded(helper, output)?;
    let helped: Helped =
        serde_json::from_slice(&output).map_err(|_| format!("{} answered what is no answer", program(helper)))?;
    Ok(Some(match helped.username.as_str() {
        TOKEN => Auth { identity_token: helped.secret, ..Auth::default() },
        _ => Auth { username: helped.username, password: helped.secret, ..Auth::default() },
    }))
}

/// Gives it something to keep.
pub(super) fn store(helper: &str, key: &str, auth: &Auth) -> Result<(), String> {
    let (username, secret) = match auth.identity_token.as_str() {
        "" => (auth.username.as_str(), auth.password.as_str()),
        token => (TOKEN, token),
    };
    let said = serde_json::to_vec(&Stored { server: key, username, secret }).map_err(|error| error.to_string())?;
    succeeded(helper, ask(helper, "store", &said)?).map(drop)
}

/// Has it forget a registry; one that it does not know is forgotten.
pub(super) fn erase(helper: &str, key: &str) -> Result<(), String> {
    let output = ask(helper, "erase", key.as_bytes())?;
    if is_unknown(&output) { Ok(()) } else { succeeded(helper, output).map(drop) }
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

fn is_unknown(output: &Output) -> bool {
    !output.status.success() && String::from_utf8_lossy(&output.stdout).contains(NOT_FOUND)
}

fn succeeded(helper: &str, output: Output) -> Result<Vec<u8>, String> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    // By the protocol a helper that fails says why on standard output.
    let said = String::from_utf8_lossy(&output.stdout);
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    Err(format!("{} failed ({}): {said}", program(helper), output.status))
}

fn ask(helper: &str, verb: &str, input: &[u8]) -> Result<Output, String> {
    let program = program(helper);
    let failed = |error: std::io::Error| format!("{program} cannot be run ({error})");
    let mut command = Command::new(&program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has answered already.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().map_err(failed)
}

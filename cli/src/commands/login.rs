//! `login` and `logout`: who the caller is at a registry, as Docker asks and keeps it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use berth_proto::berth::image::v1::{Auth, LoginRequest};
use clap::Arg;

use super::each::line;
use crate::{
    args::{
        Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    credentials::{self, HUB, Kept},
    outcome::Error,
    terminal::ask,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["login"],
    about: "Authenticate to a registry",
    usage: "[OPTIONS] [SERVER]",
    operands: (0, 1),
    flags,
    run: |client, given| Box::pin(login(client, given)),
    ..Entry::PLAIN
};

pub(crate) const LOGOUT: Entry = Entry {
    paths: &["logout"],
    about: "Log out from a registry",
    usage: "[SERVER]",
    operands: (0, 1),
    run: |_, given| Box::pin(async move { logout(&given) }),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("password", "string", "Password or personal access token").short('p'),
        switch("password-stdin", "Take the password or personal access token from standard input"),
        value("username", "string", "Username").short('u'),
    ]
}

async fn login(client: Client, given: Given) -> Result<u8, Error> {
    let (mut username, mut password) = (given.text_or_empty("username"), given.text_or_empty("password"));
    if given.on("password-stdin") {
        if given.has("password") && !password.is_empty() {
            return Err(Error::Invalid(
                "conflicting options: cannot specify both --password and --password-stdin".into(),
            ));
        }
        if username.is_empty() {
            return Err(Error::Invalid("the --password-stdin option requires --username to be set".into()));
        }
        io::stdin().read_to_string(&mut password).map_err(Error::io("cannot read the password"))?;
        let line = password.strip_suffix('\n').unwrap_or(&password);
        password = line.strip_suffix('\r').unwrap_or(line).to_owned();
    } else if !password.is_empty() {
        say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if given.has("username") && username.trim().is_empty() {
        return Err(Error::Invalid("username is empty".into()));
    }
    let server = credentials::key(given.operand());
    let mut known = None;
    if username.is_empty() && password.is_empty() {
        known = credentials::of(server).filter(|auth| !auth.username.is_empty());
        if let Some(auth) = known.clone().filter(|auth| !auth.password.is_empty()) {
            say(&format!("Authenticating with existing credentials... [Username: {}]\n", auth.username));
            say(" Info -> To login with a different account, run 'berth logout' followed by 'berth login'\n\n");
            match check(&client, server, auth).await {
                Err(error) if error.is(berth_core::Kind::Unauthenticated) => {
                    say("Stored credentials invalid or expired");
                }
                Err(error) => say(&format!("Login did not succeed, error: {error}")),
                Ok(()) => return Ok(0),
            }
        }
    }
    if username.is_empty() || password.is_empty() {
        if !io::stdin().is_terminal() {
            return Err(Error::Invalid("Error: Cannot perform an interactive login from a non TTY device".into()));
        }
        if username.is_empty() {
            username = ask_for_name(server, known.map(|auth| auth.username)).await?;
        }
        if password.is_empty() {
            password = ask::secret("Password: ").await?;
        }
        if password.is_empty() {
            return Err(Error::Invalid("Error: Password Required".into()));
        }
    }
    let auth = Auth { username: username.trim().into(), password, ..Auth::default() };
    check(&client, server, auth).await?;
    Ok(0)
}

async fn ask_for_name(server: &str, known: Option<String>) -> Result<String, Error> {
    if server == HUB {
        line(
            "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have a Docker \
             ID, head over to https://hub.docker.com/ to create one.\n\
             You can log in with your password or a Personal Access Token (PAT).\n",
        )?;
    }
    let prompt = known.as_ref().map_or_else(|| "Username: ".to_owned(), |name| format!("Username ({name}): "));
    let typed = ask::line(&prompt).await?;
    let name = if typed.is_empty() { known.unwrap_or_default() } else { typed };
    if name.is_empty() {
        return Err(Error::Invalid("Error: Non-null Username Required".into()));
    }
    Ok(name)
}

/// Asks the registry, and keeps what it accepts.
async fn check(client: &Client, server: &str, mut auth: Auth) -> Result<(), Error> {
    let asked = if server == HUB { "" } else { server };
    let request = LoginRequest { server: asked.into(), auth: Some(auth.clone()) };
    let answer = client.images().await?.login(request).await?.into_inner();
    if !answer.identity_token.is_empty() {
        (auth.password, auth.identity_token) = (String::new(), answer.identity_token);
    }
    if let Kept::Plainly(path) = credentials::store(server, &auth)? {
        say(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    line(&answer.status)
}

fn logout(given: &Given) -> Result<u8, Error> {
    let server = credentials::key(given.operand());
    line(&format!("Removing login credentials for {server}"))?;
    let failed = credentials::erase(server)?;
    if !failed.is_empty() {
        say(&format!("WARNING: could not erase credentials:\n{}", failed.join("\n")));
    }
    Ok(0)
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

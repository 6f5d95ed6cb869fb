//! `run`: create, attach, start, stay until the end.

use clap::Arg;

use super::{create, each::line, foreground::Foreground};
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    outcome::Error,
    spec,
    terminal::{keys, keys::Keys, raw},
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["run", "container run"],
    about: "Create a container from an image and start it",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    operands: (1, usize::MAX),
    ends_at: 1,
    flags,
    completes: Completes::Images,
    codes: (125, 125),
    run: |client, given| Box::pin(run(client, given)),
};

fn flags() -> Vec<Arg> {
    let mut flags = spec::flags();
    flags.extend([
        switch("detach", "Leave the container in the background and print its ID").short('d'),
        value("detach-keys", "string", "Keys that leave the container running (default ctrl-p,ctrl-q)"),
        switch("sig-proxy", "Pass signals on to the container (default true)"),
    ]);
    flags
}

async fn run(client: Client, given: Given) -> Result<u8, Error> {
    let spec = spec::build(&given)?;
    let keys = detach_keys(&given)?;
    let detached = given.on("detach");
    let attached = attached(&given)?;
    if detached {
        if attached.is_some() {
            return Err(Error::Invalid("conflicting options: cannot specify both --attach and --detach".into()));
        }
        let created = Box::pin(create::make(&client, &given, spec)).await?;
        // Said before it starts: a container that cannot is there all the same, and must be looked at or removed.
        line(&created.id)?;
        let request = berth_proto::berth::runtime::v1::StartRequest { container: created.id };
        client.containers().await?.start(request).await?;
        return Ok(0);
    }
    let (stdin, stdout, stderr) = attached.unwrap_or((spec.open_stdin, true, true));
    let (tty, removed) = (spec.tty, spec.auto_remove);
    if tty && stdin && !raw::stdin_is_terminal() {
        return Err(Error::NotATerminal);
    }
    let created = Box::pin(create::make(&client, &given, spec)).await?;
    let proxy = given.on_unless_denied("sig-proxy");
    Foreground { container: created.id, tty, stdin, stdout, stderr, keys, proxy, removed }.start(&client).await
}

/// The streams of `--attach`.
fn attached(given: &Given) -> Result<Option<(bool, bool, bool)>, Error> {
    let names = given.all("attach");
    if names.is_empty() {
        return Ok(None);
    }
    let mut streams = (false, false, false);
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams.0 = true,
            "stdout" => streams.1 = true,
            "stderr" => streams.2 = true,
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid argument \"{name}\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                )));
            }
        }
    }
    Ok(Some(streams))
}

/// The keys of `--detach-keys`.
///
/// # Errors
/// There are no such keys.
pub(crate) fn detach_keys(given: &Given) -> Result<Keys, Error> {
    Ok(Keys::parse(given.text("detach-keys").filter(|text| !text.is_empty()).unwrap_or(keys::DEFAULT))?)
}

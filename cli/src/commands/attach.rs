//! `attach`: our streams become a running container's.

use berth_proto::berth::runtime::v1::{InspectRequest, state::Status};
use clap::Arg;

use super::{foreground::Foreground, run::detach_keys};
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    outcome::Error,
    terminal::raw,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["attach", "container attach"],
    about: "Connect standard input, output and error to a running container",
    usage: "[OPTIONS] CONTAINER",
    operands: (1, 1),
    flags,
    completes: Completes::Running,
    run: |client, given| Box::pin(attach(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("detach-keys", "string", "Keys that leave the container running (default ctrl-p,ctrl-q)"),
        switch("no-stdin", "Output only"),
        switch("sig-proxy", "Pass signals on to the container (default true)"),
    ]
}

async fn attach(client: Client, given: Given) -> Result<u8, Error> {
    let keys = detach_keys(&given)?;
    let request = InspectRequest { container: given.operand().to_owned(), ..InspectRequest::default() };
    let container = client.containers().await?.inspect(request).await?.into_inner().container;
    let container = container.ok_or(Error::Contract("Inspect answered no container"))?;
    match container.state.unwrap_or_default().status() {
        Status::Running => {}
        Status::Paused => {
            return Err(Error::Invalid("You cannot attach to a paused container, unpause it first".into()));
        }
        Status::Restarting => {
            return Err(Error::Invalid("You cannot attach to a restarting container, wait until it is running".into()));
        }
        _ => return Err(Error::Invalid("You cannot attach to a stopped container, start it first".into())),
    }
    let spec = container.spec.unwrap_or_default();
    let stdin = spec.open_stdin && !given.on("no-stdin");
    if spec.tty && stdin && !raw::stdin_is_terminal() {
        return Err(Error::NotATerminal);
    }
    let foreground = Foreground {
        container: container.id,
        tty: spec.tty,
        stdin,
        stdout: true,
        stderr: true,
        keys,
        proxy: given.on_unless_denied("sig-proxy"),
        removed: spec.auto_remove,
    };
    foreground.join(&client).await
}

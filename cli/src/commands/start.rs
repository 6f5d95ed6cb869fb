//! `start`: containers that are there run.

use std::sync::{Mutex, PoisonError};

use berth_proto::berth::runtime::v1::{InspectRequest, StartRequest};
use clap::Arg;

use super::{each::each, foreground::Foreground, run::detach_keys};
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
    paths: &["start", "container start"],
    about: "Start one or more stopped containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    operands: (1, usize::MAX),
    flags,
    completes: Completes::Startable,
    run: |client, given| Box::pin(start(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("attach", "Stay with its output and pass signals on").short('a'),
        value("detach-keys", "string", "Keys that leave the container running (default ctrl-p,ctrl-q)"),
        switch("interactive", "Pass standard input on, too").short('i'),
    ]
}

async fn start(client: Client, given: Given) -> Result<u8, Error> {
    let (attach, interactive) = (given.on("attach"), given.on("interactive"));
    if !attach && !interactive {
        let containers = client.containers().await?;
        let failed = Mutex::new(Vec::new());
        let code = each(given.operands(), |name| {
            let mut containers = containers.clone();
            let failed = &failed;
            async move {
                match containers.start(StartRequest { container: name.clone() }).await {
                    Ok(_) => Ok(name),
                    Err(status) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                        Err(status.into())
                    }
                }
            }
        })
        .await?;
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !failed.is_empty() {
            return Err(Error::Invalid(format!("failed to start containers: {}", failed.join(", "))));
        }
        return Ok(code);
    }
    if given.operands().len() > 1 {
        return Err(Error::Invalid("you cannot start and attach multiple containers at once".into()));
    }
    let keys = detach_keys(&given)?;
    let request = InspectRequest { container: given.operand().to_owned(), ..InspectRequest::default() };
    let container = client.containers().await?.inspect(request).await?.into_inner().container;
    let container = container.ok_or(Error::Contract("Inspect answered no container"))?;
    let spec = container.spec.unwrap_or_default();
    let stdin = interactive && spec.open_stdin;
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
        proxy: true,
        removed: spec.auto_remove,
    };
    foreground.start(&client).await
}

//! The commands that push a container from state to state: stop, restart, kill, pause, unpause, rename.

use berth_proto::berth::runtime::v1::{
    KillRequest, PauseRequest, RenameRequest, RestartRequest, StopRequest, UnpauseRequest,
};
use clap::Arg;

use super::each::each;
use crate::{
    args::{Answer, Completes, Entry, Given, flag::value},
    client::Client,
    outcome::Error,
};

const ON_CONTAINERS: Entry = Entry {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    operands: (1, usize::MAX),
    completes: Completes::Running,
    ..Entry::PLAIN
};

pub(crate) const STOP: Entry = Entry {
    paths: &["stop", "container stop"],
    about: "Stop one or more running containers",
    flags: ending,
    run: |client, given| Box::pin(stop(client, given)),
    ..ON_CONTAINERS
};

pub(crate) const RESTART: Entry = Entry {
    paths: &["restart", "container restart"],
    about: "Stop one or more containers and start them again",
    completes: Completes::Containers,
    flags: ending,
    run: |client, given| Box::pin(restart(client, given)),
    ..ON_CONTAINERS
};

pub(crate) const KILL: Entry = Entry {
    paths: &["kill", "container kill"],
    about: "Send a signal to one or more running containers",
    flags: || vec![value("signal", "string", "Signal to send, by name or number (default KILL)").short('s')],
    run: |client, given| Box::pin(kill(client, given)),
    ..ON_CONTAINERS
};

pub(crate) const PAUSE: Entry = Entry {
    paths: &["pause", "container pause"],
    about: "Freeze all processes of one or more containers",
    usage: "CONTAINER [CONTAINER...]",
    run: pause,
    ..ON_CONTAINERS
};

pub(crate) const UNPAUSE: Entry = Entry {
    paths: &["unpause", "container unpause"],
    about: "Let all processes of one or more containers go on",
    completes: Completes::Paused,
    usage: "CONTAINER [CONTAINER...]",
    run: unpause,
    ..ON_CONTAINERS
};

pub(crate) const RENAME: Entry = Entry {
    paths: &["rename", "container rename"],
    about: "Give a container another name",
    usage: "CONTAINER NEW_NAME",
    operands: (2, 2),
    completes: Completes::Containers,
    run: |client, given| Box::pin(rename(client, given)),
    ..Entry::PLAIN
};

fn ending() -> Vec<Arg> {
    vec![
        value("signal", "string", "Signal to send first (the container's own where none is given)").short('s'),
        value("timeout", "int", "Seconds until it is killed; -1 for never (10 where the container says nothing)")
            .short('t')
            .alias("time"),
    ]
}

fn timeout(given: &Given) -> Result<Option<i32>, Error> {
    let Some(text) = given.text("timeout") else { return Ok(None) };
    match text.parse() {
        Ok(seconds) if seconds >= -1 => Ok(Some(seconds)),
        _ => Err(Error::Usage {
            message: format!("invalid argument \"{text}\" for \"-t, --timeout\" flag: not a number of seconds"),
            see: "berth stop --help".into(),
        }),
    }
}

async fn stop(client: Client, given: Given) -> Result<u8, Error> {
    let (signal, timeout) = (given.text_or_empty("signal"), timeout(&given)?);
    let containers = client.containers().await?;
    each(given.operands(), |name| {
        let (mut containers, signal) = (containers.clone(), signal.clone());
        async move {
            containers.stop(StopRequest { container: name.clone(), signal, timeout }).await?;
            Ok(name)
        }
    })
    .await
}

async fn restart(client: Client, given: Given) -> Result<u8, Error> {
    let (signal, timeout) = (given.text_or_empty("signal"), timeout(&given)?);
    let containers = client.containers().await?;
    each(given.operands(), |name| {
        let (mut containers, signal) = (containers.clone(), signal.clone());
        async move {
            containers.restart(RestartRequest { container: name.clone(), signal, timeout }).await?;
            Ok(name)
        }
    })
    .await
}

async fn kill(client: Client, given: Given) -> Result<u8, Error> {
    let signal = given.text_or_empty("signal");
    let containers = client.containers().await?;
    each(given.operands(), |name| {
        let (mut containers, signal) = (containers.clone(), signal.clone());
        async move {
            containers.kill(KillRequest { container: name.clone(), signal }).await?;
            Ok(name)
        }
    })
    .await
}

fn pause(client: Client, given: Given) -> Answer {
    Box::pin(async move {
        let containers = client.containers().await?;
        each(given.operands(), |name| {
            let mut containers = containers.clone();
            async move {
                containers.pause(PauseRequest { container: name.clone() }).await?;
                Ok(name)
            }
        })
        .await
    })
}

fn unpause(client: Client, given: Given) -> Answer {
    Box::pin(async move {
        let containers = client.containers().await?;
        each(given.operands(), |name| {
            let mut containers = containers.clone();
            async move {
                containers.unpause(UnpauseRequest { container: name.clone() }).await?;
                Ok(name)
            }
        })
        .await
    })
}

async fn rename(client: Client, given: Given) -> Result<u8, Error> {
    let mut names = given.operands().into_iter();
    let (container, name) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    client.containers().await?.rename(RenameRequest { container, name }).await?;
    Ok(0)
}

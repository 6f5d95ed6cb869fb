//! `exec`: another process in a running container.

use berth_proto::berth::runtime::v1::{ExecRequest, ExecStart, exec_request};
use clap::Arg;

use super::run::detach_keys;
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    outcome::Error,
    spec,
    terminal::{
        input, raw,
        session::{End, Session, requests},
    },
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["exec", "container exec"],
    about: "Run a command in a running container",
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    operands: (2, usize::MAX),
    ends_at: 1,
    flags,
    completes: Completes::Running,
    codes: (125, 1),
    run: |client, given| Box::pin(exec(client, given)),
};

fn flags() -> Vec<Arg> {
    vec![
        switch("detach", "Leave the command in the background").short('d'),
        value("detach-keys", "string", "Keys that leave the command running (default ctrl-p,ctrl-q)"),
        list("env", "list", "Environment variable (NAME=value, or NAME for the caller's value)").short('e'),
        list("env-file", "list", "File with an environment variable on each line"),
        switch("interactive", "Pass standard input on").short('i'),
        switch("privileged", "All capabilities for the command"),
        switch("tty", "Give the command a terminal").short('t'),
        value("user", "string", "User and group, by name or number (user[:group])").short('u'),
        value("workdir", "string", "Working directory inside the container").short('w'),
    ]
}

async fn exec(client: Client, given: Given) -> Result<u8, Error> {
    let (tty, detach) = (given.on("tty"), given.on("detach"));
    let stdin = given.on("interactive") && !detach;
    let keys = detach_keys(&given)?;
    if tty && stdin && !raw::stdin_is_terminal() {
        return Err(Error::NotATerminal);
    }
    let mut env = Vec::new();
    for file in given.all("env-file") {
        env.extend(spec::env_file(file)?);
    }
    for text in given.all("env") {
        env.extend(spec::variable(text)?);
    }
    let mut operands = given.operands().into_iter();
    let start = ExecStart {
        container: operands.next().unwrap_or_default(),
        args: operands.collect(),
        env,
        working_dir: given.text_or_empty("workdir"),
        user: given.text_or_empty("user"),
        tty,
        stdin,
        detach,
        privileged: given.on("privileged"),
        size: if tty { raw::size() } else { None },
    };
    let (sender, stream) = requests(ExecRequest { message: Some(exec_request::Message::Start(start)) });
    let mut answers = client.containers().await?.exec(stream).await?.into_inner();
    // The first answer says that it runs, or why it does not; nothing of the terminal is touched before.
    if answers.message().await?.is_none() {
        return Err(Error::Contract("Exec ended before it started"));
    }
    if detach {
        return Ok(0);
    }
    if tty && stdin {
        raw::enter().map_err(Error::io("cannot make the terminal raw"))?;
    }
    let input = stdin.then(|| input::read(tty.then_some(keys)));
    let mut session = Session::new(input, tty && stdin, false);
    let end = session.join(sender, answers, async |_| {}).await;
    let read = session.output.flush().await;
    raw::restore();
    match end {
        End::Streams(Some(code)) if read => Ok(code.clamp(0, 255) as u8),
        End::Streams(None) => Err(Error::Contract("Exec ended without an exit code")),
        End::Detached => Ok(0),
        End::Signal(number) => Err(Error::Said(128 + number as u8)),
        End::ReaderGone | End::Streams(_) => Err(Error::Said(141)),
        End::Failed(status) => Err(status.into()),
    }
}

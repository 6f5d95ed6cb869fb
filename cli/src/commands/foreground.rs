//! Standing for a container: its streams are ours, its end is ours, and signals reach it. The service may die meanwhile and
//! come back: the container goes on, and so does the waiting.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use berth_proto::berth::runtime::v1::{
    AttachRequest, AttachResponse, AttachStart, KillRequest, RemoveRequest, StartRequest, WaitRequest, WaitResponse,
    attach_request, wait_request::Condition,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::{
    client::Client,
    outcome::Error,
    revival,
    terminal::{
        input,
        keys::Keys,
        raw,
        session::{End, Session, requests},
    },
};

/// A node that was killed has this long to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// A service answers to an attach when it knows who attaches; one that answers later is not waited for.
const REGISTERED: Duration = Duration::from_secs(2);

/// How to stand for a container.
#[derive(Clone, Debug)]
pub(crate) struct Foreground {
    /// Its ID or name.
    pub(crate) container: String,
    /// It has a terminal.
    pub(crate) tty: bool,
    /// Our standard input is its.
    pub(crate) stdin: bool,
    /// Its standard output is ours.
    pub(crate) stdout: bool,
    /// Its standard error is ours.
    pub(crate) stderr: bool,
    /// What detaches.
    pub(crate) keys: Keys,
    /// Signals are passed on where there is no terminal.
    pub(crate) proxy: bool,
    /// It is removed when it ends, and then we are done.
    pub(crate) removed: bool,
}

type Attachment = (mpsc::Sender<AttachRequest>, Streaming<AttachResponse>);

impl Foreground {
    /// Attaches, starts the container and stays until it ends.
    ///
    /// # Errors
    /// It cannot be attached to or started.
    pub(crate) async fn start(self, client: &Client) -> Result<u8, Error> {
        let (sender, stream) = requests(self.hello());
        let mut containers = client.containers().await?;
        let mut attach = tokio::spawn(async move { containers.attach(stream).await });
        let early = tokio::time::timeout(REGISTERED, &mut attach).await.ok();
        let early = early.transpose().map_err(|_| Error::Contract("the attach task ended"))?.transpose()?;
        // Asked for before the start, so that no end is missed.
        let mut containers = client.containers().await?;
        let condition = if self.removed { Condition::Removed } else { Condition::NextExit };
        let request = WaitRequest { container: self.container.clone(), condition: condition as i32 };
        let wait = tokio::spawn(async move { containers.wait(request).await });
        let session = self.session()?;
        let request = StartRequest { container: self.container.clone() };
        if let Err(status) = client.containers().await?.start(request).await {
            raw::restore();
            wait.abort();
            if self.removed {
                // One that never ran is not kept either; where the service was faster, there is nothing to do.
                let request = RemoveRequest { container: self.container.clone(), force: true, volumes: true };
                let _ = client.containers().await?.remove(request).await;
            }
            return Err(status.into());
        }
        let stream = match early {
            Some(attached) => attached,
            None => attach.await.map_err(|_| Error::Contract("the attach task ended"))??,
        };
        self.stay(client, session, (sender, stream.into_inner()), Some(wait)).await
    }

    /// Attaches to a container that runs, and stays until it ends.
    ///
    /// # Errors
    /// It cannot be attached to.
    pub(crate) async fn join(self, client: &Client) -> Result<u8, Error> {
        let attachment = self.attach(client).await?;
        let session = self.session()?;
        self.stay(client, session, attachment, None).await
    }

    fn hello(&self) -> AttachRequest {
        AttachRequest {
            message: Some(attach_request::Message::Start(AttachStart {
                container: self.container.clone(),
                stdin: self.stdin,
                stdout: self.stdout,
                stderr: self.stderr,
                size: if self.tty { raw::size() } else { None },
            })),
        }
    }

    async fn attach(&self, client: &Client) -> Result<Attachment, Error> {
        let (sender, stream) = requests(self.hello());
        let answers = client.containers().await?.attach(stream).await?.into_inner();
        Ok((sender, answers))
    }

    fn session(&self) -> Result<Session, Error> {
        let on_terminal = self.tty && self.stdin && raw::stdin_is_terminal();
        if on_terminal {
            raw::enter().map_err(Error::io("cannot make the terminal raw"))?;
        }
        let input = self.stdin.then(|| input::read(self.tty.then(|| self.keys.clone())));
        Ok(Session::new(input, self.tty, self.proxy))
    }

    async fn stay(
        self,
        client: &Client,
        mut session: Session,
        mut attachment: Attachment,
        wait: Option<tokio::task::JoinHandle<Result<tonic::Response<WaitResponse>, Status>>>,
    ) -> Result<u8, Error> {
        loop {
            let (sender, answers) = attachment;
            match session.join(sender, answers, async |signal| self.kill(client, signal).await).await {
                End::Streams(_) => break,
                End::Detached => {
                    raw::restore();
                    session.output.flush().await;
                    let _ = writeln!(io::stderr(), "read escape sequence");
                    return Ok(0);
                }
                End::Signal(number) => return Err(Error::Said(128 + number as u8)),
                End::ReaderGone => return Err(Error::Said(141)),
                End::Failed(status) if lost(&status) => {
                    tokio::select! {
                        back = revive(client) => back?,
                        number = ended_by(&mut session) => return Err(Error::Said(128 + number as u8)),
                    }
                    match self.attach(client).await {
                        Ok(again) => attachment = again,
                        // It ended meanwhile.
                        Err(_) => break,
                    }
                }
                End::Failed(status) => {
                    raw::restore();
                    return Err(status.into());
                }
            }
        }
        let read = session.output.flush().await;
        raw::restore();
        let first = match wait {
            Some(wait) => wait.await.ok(),
            None => None,
        };
        let code = self.end(client, first).await?;
        if read { Ok(code) } else { Err(Error::Said(141)) }
    }

    /// The container's exit code, from the wait that was begun, else from a new one.
    async fn end(
        &self,
        client: &Client,
        first: Option<Result<tonic::Response<WaitResponse>, Status>>,
    ) -> Result<u8, Error> {
        let mut answer = first;
        loop {
            match answer {
                Some(Ok(response)) => return exit_code(response.into_inner()),
                Some(Err(status)) if lost(&status) => revive(client).await?,
                Some(Err(status)) => return Err(status.into()),
                None => {}
            }
            let condition = if self.removed { Condition::Removed } else { Condition::NotRunning };
            let request = WaitRequest { container: self.container.clone(), condition: condition as i32 };
            answer = Some(client.containers().await?.wait(request).await);
        }
    }

    async fn kill(&self, client: &Client, signal: &str) {
        let request = KillRequest { container: self.container.clone(), signal: signal.to_owned() };
        if let Ok(mut containers) = client.containers().await {
            // One that ended just now needs no signal.
            let _ = containers.kill(request).await;
        }
    }
}

/// The signal that ends the command while there is nobody to pass it on to.
async fn ended_by(session: &mut Session) -> i32 {
    loop {
        match session.signals.recv().await {
            Some((_, number)) if session.tty => return number,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn exit_code(response: WaitResponse) -> Result<u8, Error> {
    if !response.error.is_empty() {
        let _ = writeln!(io::stderr(), "berth: {}", response.error);
    }
    Ok(response.exit_code.clamp(0, 255) as u8)
}

/// The connection broke, as opposed to: the service said no.
pub(crate) fn lost(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

/// Waits until the node answers again.
///
/// # Errors
/// It did not.
pub(crate) async fn revive(client: &Client) -> Result<(), Error> {
    let socket = client.socket();
    revival::connect(socket, PATIENCE).await.map(drop).map_err(|source| Error::Connect {
        socket: socket.into(),
        source,
        hint: "The node went away and did not come back; the container goes on, see 'berth ps' once it does",
    })
}

//! What the shim and the child that becomes the container's process tell each other, over a socket that closes by itself
//! when the program is executed. The child speaks; where it must wait, the shim answers with one word.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
    },
};

use super::error::{Error, Step as _};

/// A message is no longer than this.
const MAX: usize = 16 * 1024;

/// What the child says.
#[derive(Debug)]
pub(crate) enum Message {
    /// A helper made the process and is gone: its pid, in the host's namespace.
    Pid(i32),
    /// It has a user namespace and waits for its maps.
    NeedsMaps,
    /// Its namespaces and mounts are made; it waits for the hooks that run before the root changes.
    Prepared,
    /// The master of its terminal.
    Console(OwnedFd),
    /// Everything but the program is done.
    Ready,
    /// Something was done in a lesser way than asked for.
    Warning(String),
    /// It failed and is gone.
    Failed(Error),
    /// The socket closed: the program is executed, or the child died.
    Closed,
}

const PID: u8 = 1;
const NEEDS_MAPS: u8 = 2;
const PREPARED: u8 = 3;
const READY: u8 = 4;
const WARNING: u8 = 5;
const FAILED: u8 = 6;
const NOT_FOUND: u8 = 7;
const NOT_EXECUTABLE: u8 = 8;
const SPEC: u8 = 9;
const UNSUPPORTED: u8 = 10;
const CONSOLE: u8 = 11;

/// The shim's end.
#[derive(Debug)]
pub(crate) struct Parent(OwnedFd);

/// The child's end; closed by execve.
#[derive(Debug)]
pub(crate) struct Child(OwnedFd);

/// Both ends.
pub(crate) fn pair() -> Result<(Parent, Child), Error> {
    let (parent, child) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .step(|| "making a socket pair")?;
    Ok((Parent(parent), Child(child)))
}

impl Parent {
    /// The child's next word, which must come within `limit`.
    pub(crate) fn hear(&self, limit: Duration) -> Result<Message, Error> {
        let what = || "hearing from the container's process";
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left.min(1 << 30) as i32).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => return Err(Error::step(what(), format!("it said nothing for {} s", limit.as_secs()))),
                Ok(_) => return receive(self.0.as_raw_fd()).step(what),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).step(what),
            }
        }
    }

    /// Closes a child's copy of this end, so that the child hears when the shim is gone.
    pub(crate) fn abandon(&self) {
        // SAFETY: called in a child that ends by execve or _exit, so the owner is never dropped there, nor used again.
        unsafe { libc::close(self.0.as_raw_fd()) };
    }

    /// Lets the child go on.
    pub(crate) fn go(&self) -> Result<(), Error> {
        match nix::sys::socket::send(self.0.as_raw_fd(), b"go", MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(Error::NotRunning),
            Err(error) => Err(error).step(|| "telling the container's process to go on"),
        }
    }
}

fn receive(fd: RawFd) -> io::Result<Message> {
    let mut bytes = vec![0; MAX];
    let mut slices = [io::IoSliceMut::new(&mut bytes)];
    let mut space = cmsg_space!(RawFd);
    let received = match recvmsg::<()>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
        // The child died with our answer unread.
        Err(Errno::ECONNRESET) => return Ok(Message::Closed),
        other => other?,
    };
    let size = received.bytes;
    let mut console = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            for fd in fds {
                // SAFETY: the kernel just installed this descriptor for us alone.
                console = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    let bytes = &bytes[..size];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match bytes.split_first() {
        None => Message::Closed,
        Some((&PID, rest)) => Message::Pid(rest.try_into().map(i32::from_le_bytes).unwrap_or(0)),
        Some((&NEEDS_MAPS, _)) => Message::NeedsMaps,
        Some((&PREPARED, _)) => Message::Prepared,
        Some((&READY, _)) => Message::Ready,
        Some((&CONSOLE, _)) => {
            Message::Console(console.ok_or_else(|| io::Error::other("a terminal was announced and not sent"))?)
        }
        Some((&WARNING, rest)) => Message::Warning(text(rest)),
        Some((&NOT_FOUND, rest)) => Message::Failed(Error::CommandNotFound(text(rest))),
        Some((&NOT_EXECUTABLE, rest)) => Message::Failed(Error::NotExecutable(text(rest))),
        Some((&SPEC, rest)) => Message::Failed(Error::Spec(text(rest))),
        Some((&UNSUPPORTED, rest)) => Message::Failed(Error::Unsupported(text(rest))),
        Some((_, rest)) => {
            let rest = text(rest);
            let (what, why) = rest.split_once('\n').unwrap_or((&rest, ""));
            Message::Failed(Error::step(what, why))
        }
    })
}

impl Child {
    /// By write, not send: by the end a seccomp program is loaded, which may know no sockets.
    fn send(&self, kind: u8, payload: &[u8]) -> nix::Result<()> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&payload[..payload.len().min(MAX - 1)]);
        nix::unistd::write(&self.0, &bytes).map(|_| ())
    }

    /// Tells which process was made.
    pub(crate) fn made(&self, pid: i32) -> Result<(), Error> {
        self.send(PID, &pid.to_le_bytes()).step(|| "telling the shim")
    }

    /// Asks for the maps of the new user namespace, and waits for them.
    pub(crate) fn needs_maps(&self) -> Result<(), Error> {
        self.send(NEEDS_MAPS, &[]).step(|| "telling the shim")?;
        self.wait()
    }

    /// Lets the shim run hooks, and waits for it.
    pub(crate) fn prepared(&self) -> Result<(), Error> {
        self.send(PREPARED, &[]).step(|| "telling the shim")?;
        self.wait()
    }

    /// Hands over the master of the terminal.
    pub(crate) fn console(&self, master: &OwnedFd) -> Result<(), Error> {
        let (kind, fds) = ([CONSOLE], [master.as_raw_fd()]);
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.0.as_raw_fd(), &[io::IoSlice::new(&kind)], &rights, MsgFlags::empty(), None)
            .map(|_| ())
            .step(|| "handing over the terminal")
    }

    /// Says that everything but the program is done, and waits to be started.
    pub(crate) fn ready(&self) -> Result<(), Error> {
        self.send(READY, &[]).step(|| "telling the shim")?;
        self.wait()
    }

    /// Says what could not be done as asked.
    pub(crate) fn warn(&self, text: &str) {
        // If nobody listens any more, the next step will find out.
        let _ = self.send(WARNING, text.as_bytes());
    }

    /// Says what failed.
    pub(crate) fn fail(&self, error: &Error) {
        let (kind, text) = match error {
            Error::CommandNotFound(text) => (NOT_FOUND, text.clone()),
            Error::NotExecutable(text) => (NOT_EXECUTABLE, text.clone()),
            Error::Spec(text) => (SPEC, text.clone()),
            Error::Unsupported(text) => (UNSUPPORTED, text.clone()),
            Error::Step { what, why } => (FAILED, format!("{what}\n{why}")),
            Error::NotRunning | Error::Paused => (FAILED, format!("making a process\n{error}")),
        };
        // If nobody listens any more, nobody needs to know.
        let _ = self.send(kind, text.as_bytes());
    }

    /// The descriptor, which must stay open while others are closed.
    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Waits until the shim says to go on.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let mut word = [0; 8];
        loop {
            // read, not recv: a seccomp program is loaded by now and may know no sockets.
            match nix::unistd::read(&self.0, &mut word) {
                Ok(0) => return Err(Error::step("waiting to be started", "the shim is gone")),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(Error::step("waiting to be started", error)),
            }
        }
    }
}

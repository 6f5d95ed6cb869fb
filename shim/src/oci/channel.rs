//! What the shim and the child that becomes the container's process tell each other: one message each way at a time,
//! over a socket that closes by itself when the program is executed.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::error::{Error, Step as _};

const MAX: usize = 16 * 1024;

/// What the child says.
#[derive(Debug)]
pub(crate) enum Message {
    /// It waits to be started, or (an exec's helper) tells the pid of the process.
    Ready { pid: i32, console: Option<OwnedFd> },
    /// It failed and is gone.
    Failed(Error),
    /// The socket closed: the program is executed, or the child died.
    Closed,
}

const READY: u8 = 1;
const FAILED: u8 = 2;
const NOT_FOUND: u8 = 3;
const NOT_EXECUTABLE: u8 = 4;

/// The shim's end.
#[derive(Debug)]
pub(crate) struct Parent(AsyncFd<OwnedFd>);

/// The child's end; closed by execve.
#[derive(Debug)]
pub(crate) struct Child(OwnedFd);

/// Both ends.
pub(crate) fn pair() -> Result<(Parent, Child), Error> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (parent, child) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).step(|| "making a socket pair")?;
    nix::fcntl::fcntl(&parent, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .step(|| "setting up a socket")?;
    Ok((Parent(AsyncFd::new(parent).step(|| "watching a socket")?), Child(child)))
}

impl Parent {
    /// The child's next word.
    pub(crate) async fn hear(&self) -> Result<Message, Error> {
        self.0.async_io(Interest::READABLE, |fd| receive(fd.as_raw_fd())).await.step(|| "hearing from the container's child")
    }

    /// Lets the child go on.
    pub(crate) fn go(&self) -> Result<(), Error> {
        nix::sys::socket::send(self.0.as_raw_fd(), b"go", MsgFlags::MSG_NOSIGNAL)
            .map(|_| ())
            .step(|| "starting the container's process")
    }
}

fn receive(fd: RawFd) -> std::io::Result<Message> {
    let mut bytes = vec![0; MAX];
    let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
    let mut space = cmsg_space!(RawFd);
    let received = recvmsg::<()>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
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
        Some((&READY, rest)) => {
            let pid = rest.try_into().map(i32::from_le_bytes).unwrap_or(0);
            Message::Ready { pid, console }
        }
        Some((&NOT_FOUND, rest)) => Message::Failed(Error::CommandNotFound(text(rest))),
        Some((&NOT_EXECUTABLE, rest)) => Message::Failed(Error::NotExecutable(text(rest))),
        Some((_, rest)) => {
            let rest = text(rest);
            let (what, why) = rest.split_once('\n').unwrap_or((&rest, ""));
            Message::Failed(Error::step(what, why))
        }
    })
}

impl Child {
    /// Says that everything up to here is done.
    pub(crate) fn ready(&self, pid: i32, console: Option<&OwnedFd>) -> Result<(), Error> {
        let mut bytes = vec![READY];
        bytes.extend(pid.to_le_bytes());
        let fds: Vec<RawFd> = console.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        sendmsg::<()>(self.0.as_raw_fd(), &[std::io::IoSlice::new(&bytes)], control, MsgFlags::empty(), None)
            .map(|_| ())
            .step(|| "telling the shim")
    }

    /// Says what failed.
    pub(crate) fn fail(&self, error: &Error) {
        let (kind, text) = match error {
            Error::CommandNotFound(text) => (NOT_FOUND, text.clone()),
            Error::NotExecutable(text) => (NOT_EXECUTABLE, text.clone()),
            Error::Step { what, why } => (FAILED, format!("{what}\n{why}")),
            Error::Spec(text) => (FAILED, format!("the container's configuration cannot be used\n{text}")),
        };
        let mut bytes = vec![kind];
        bytes.extend(text.bytes().take(MAX - 1));
        // If nobody listens any more, nobody needs to know.
        let _ = nix::sys::socket::send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
    }

    /// Waits until the shim says to go on.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let mut word = [0; 8];
        loop {
            match nix::sys::socket::recv(self.0.as_raw_fd(), &mut word, MsgFlags::empty()) {
                Ok(0) => return Err(Error::step("waiting to be started", "the shim is gone")),
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(Error::step("waiting to be started", error)),
            }
        }
    }

    /// The descriptor, which must stay open while others are closed.
    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

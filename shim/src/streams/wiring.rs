//! From what a process's streams shall be to the descriptors it gets.

use std::{
    fs::{File, OpenOptions},
    os::fd::OwnedFd,
    rc::Rc,
};

use berth_core::stream::Kind;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;

use super::{Input, Outputs, watched};
use crate::{
    error::{During as _, Error},
    oci::Stdio,
};

/// What a stream is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Plug {
    /// `/dev/null`.
    #[default]
    Nothing,
    /// The shim, which hands on to log and clients.
    Shim,
    /// The shim, which hands on to a FIFO of somebody else's.
    Fifo(String),
}

impl Plug {
    /// What another runtime service called it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Fifo(path) => path.clone(),
            Self::Nothing | Self::Shim => String::new(),
        }
    }
}

/// The shim's ends of a process's pipes.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Makes the streams of a process that has no terminal.
pub(crate) fn wire(stdin: &Plug, stdout: &Plug, stderr: &Plug) -> Result<(Stdio, Ends), Error> {
    let mut ends = Ends::default();
    let mut theirs = None;
    if *stdin != Plug::Nothing {
        let (read, write) = pipe()?;
        (theirs, ends.stdin) = (Some(read), Some(write));
    }
    let out = |plug: &Plug, end: &mut Option<OwnedFd>| -> Result<OwnedFd, Error> {
        if *plug == Plug::Nothing {
            return OpenOptions::new().write(true).open("/dev/null").map(File::into).during(|| "opening /dev/null");
        }
        let (read, write) = pipe()?;
        *end = Some(read);
        Ok(write)
    };
    let stdio = Stdio::Streams {
        stdin: theirs,
        stdout: out(stdout, &mut ends.stdout)?,
        stderr: out(stderr, &mut ends.stderr)?,
    };
    Ok((stdio, ends))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC).during(|| "making a pipe")
}

impl Ends {
    /// Begins to read and to write, once the process exists.
    pub(crate) fn begin(self, console: Option<OwnedFd>, outputs: &Rc<Outputs>, input: &Input) -> Result<(), Error> {
        let watch = |fd, interest| watched(fd, interest).during(|| "watching a stream");
        if let Some(console) = console {
            let console = watch(console, Interest::READABLE | Interest::WRITABLE)?;
            input.open(Rc::clone(&console));
            outputs.read(Kind::Stdout, console);
        }
        if let Some(stdin) = self.stdin {
            input.open(watch(stdin, Interest::WRITABLE)?);
        }
        for (kind, fd) in [(Kind::Stdout, self.stdout), (Kind::Stderr, self.stderr)] {
            if let Some(fd) = fd {
                outputs.read(kind, watch(fd, Interest::READABLE)?);
            }
        }
        Ok(())
    }
}

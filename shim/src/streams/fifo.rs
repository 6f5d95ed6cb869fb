//! FIFOs that another runtime service (containerd) made and reads or writes.
//!
//! Opening one never waits, and a reader that is gone for a while, as when containerd is started again, ends nothing.

use std::{io, os::fd::OwnedFd, rc::Rc};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Input, Outbox, watched};

/// Sends what a process prints into a FIFO.
pub(crate) async fn spill(outbox: Rc<Outbox>, path: String) {
    let done = spill_into(&outbox, &path).await;
    if let Err(error) = done {
        crate::note::note!("writing to {path}: {error}");
    }
    outbox.abandon();
}

async fn spill_into(outbox: &Outbox, path: &str) -> io::Result<()> {
    use berth_core::stream::Kind;
    // Reading as well: then there is always a reader, and writing waits for the true one instead of failing.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = watched(openat(CWD, path, flags, Mode::empty())?, Interest::WRITABLE)?;
    loop {
        let frames = outbox.next().await;
        if frames.is_empty() {
            return Ok(());
        }
        for (kind, bytes) in &frames {
            match kind {
                Kind::End => return Ok(()),
                Kind::Stdout | Kind::Stderr => write_all(&fd, bytes).await?,
                _ => {}
            }
        }
        outbox.sent(frames.iter().map(|(_, bytes)| bytes.len()).sum());
    }
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match rustix::io::write(fd.get_ref(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends what comes out of a FIFO to a process, until those who wrote to it have closed it.
pub(crate) async fn feed(path: String, input: Rc<Input>, tty: bool) {
    if let Err(error) = feed_from(&path, &input).await {
        crate::note::note!("reading from {path}: {error}");
    }
    // A terminal stays when nobody types.
    if !tty {
        input.close();
    }
}

async fn feed_from(path: &str, input: &Input) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = watched(openat(CWD, path, flags, Mode::empty())?, Interest::READABLE)?;
    let mut bytes = vec![0; 16 * 1024];
    loop {
        // Not ready before somebody has opened it for writing: only then does reading nothing mean the end.
        let mut ready = fd.readable().await?;
        match rustix::io::read(fd.get_ref(), &mut bytes[..]) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                if !input.write(&bytes[..length]).await {
                    return Ok(());
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

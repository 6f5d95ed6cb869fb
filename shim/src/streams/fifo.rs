//! FIFOs that another runtime service (containerd) made and reads or writes.
//!
//! Opening one never waits, and a reader that is gone for a while, as when containerd is started again, ends nothing.

use std::{io, os::fd::OwnedFd, rc::Rc};

use rustix::{
    fs::{CWD, Mode, OFlags, inotify, openat},
    io::{Errno, ioctl_fionread},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Input, Outbox, watched};

/// Sends what a process prints into a FIFO.
pub(crate) async fn spill(outbox: Rc<Outbox>, path: String) {
    let done = tokio::select! {
        done = spill_into(&outbox, &path) => done,
        () = outbox.abandoned() => Ok(()),
    };
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
        for (kind, bytes) in outbox.next().await {
            match kind {
                Kind::End => return until_read(fd.get_ref(), path).await,
                Kind::Stdout | Kind::Stderr => {
                    write_all(&fd, &bytes).await?;
                    outbox.sent(bytes.len());
                }
                _ => {}
            }
        }
    }
}

/// Waits until the reader has taken everything. Clients of containerd close their end as soon as they hear of the exit,
/// and what is in the FIFO then is lost; so the exit is told after this.
async fn until_read(fd: &OwnedFd, path: &str) -> io::Result<()> {
    use inotify::{CreateFlags, WatchFlags};
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    // Only who reads alone closes without having written.
    inotify::add_watch(&events, path, WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE)?;
    let events = watched(events, Interest::READABLE)?;
    let mut buffer = [0; 4096];
    while ioctl_fionread(fd)? > 0 {
        let mut ready = events.readable().await?;
        match rustix::io::read(events.get_ref(), &mut buffer) {
            Ok(_) if ioctl_fionread(fd)? > 0 && has_closed(&buffer) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        buffer.fill(0);
    }
    Ok(())
}

/// One of the events says that a reader closed. Events about one file have no names, so each has the same length.
fn has_closed(events: &[u8]) -> bool {
    const LENGTH: usize = size_of::<libc::inotify_event>();
    let mask = |event: &[u8]| u32::from_ne_bytes([event[4], event[5], event[6], event[7]]);
    events.chunks_exact(LENGTH).any(|event| mask(event) & libc::IN_CLOSE_NOWRITE != 0)
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

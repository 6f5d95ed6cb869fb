//! Waiting for a service that was killed: it comes back by putting a new socket in the old one's place, which the kernel
//! tells whoever watches the directory.

use std::{
    io,
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use berth_core::connect;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::net::UnixStream;

/// Connects as soon as somebody listens at `socket`, or fails when `patience` is over.
///
/// # Errors
/// Nobody listened, or the caller may not connect.
pub(crate) async fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + patience;
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let mut watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    watch.add_watch(directory, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB)?;
    loop {
        // Watched before it is tried, so that nothing is missed in between.
        let refused = match connect::connect(socket.to_owned()).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => error,
            other => return other,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(refused);
        }
        watch = tokio::task::spawn_blocking(move || changed(watch, left)).await.map_err(io::Error::other)?;
    }
}

/// Waits until something happens in the directory, or the time is over.
fn changed(watch: Inotify, left: Duration) -> Inotify {
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    // Whatever ends the wait, the socket is tried again.
    let _ = poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout);
    while watch.read_events().is_ok_and(|events| !events.is_empty()) {}
    watch
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn connects_when_a_socket_takes_the_old_ones_place() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, new) = (directory.path().join("s"), directory.path().join("s.new"));
        drop(UnixListener::bind(&socket).unwrap());
        let waiting = connect(&socket, Duration::from_secs(20));
        let returning = async {
            let listener = UnixListener::bind(&new).unwrap();
            std::fs::rename(&new, &socket).unwrap();
            listener
        };
        let (connected, _listener) = tokio::join!(waiting, returning);
        connected.unwrap();
        let absent = connect(&directory.path().join("none"), Duration::from_millis(1)).await;
        assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

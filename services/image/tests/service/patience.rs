//! Waiting that ends: whatever a test waits for in vain makes it fail, and say what is there instead.

use std::{
    fmt::Debug,
    os::fd::AsFd as _,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::inotify::Inotify,
};
use tokio::sync::watch;

/// For one thing to happen on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For a whole test.
const WHOLE: Duration = Duration::from_secs(600);
/// It is looked again after this at the latest: an event may come before what it is the sign of.
const LOOK: u16 = 500;

/// Waits until `is` holds, which is asked again whenever something of this happens.
pub(crate) fn watched(inotify: &Inotify, is: impl Fn() -> bool, there: impl Fn() -> String) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited {} s in vain: {}", PATIENCE.as_secs(), there());
        let mut descriptors = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        if poll(&mut descriptors, LOOK).unwrap() > 0 {
            // What it says does not matter: it is looked at the thing itself.
            let _ = inotify.read_events();
        }
    }
}

/// Waits until a state is as it should be.
pub(crate) async fn reached<T: Debug>(state: &watch::Sender<T>, is: impl FnMut(&T) -> bool) {
    let mut states = state.subscribe();
    if tokio::time::timeout(PATIENCE, states.wait_for(is)).await.is_err() {
        panic!("waited {} s in vain: it is {:?}", PATIENCE.as_secs(), *state.borrow());
    }
}

/// While this lives a test is under way; one that lasts too long ends the whole run, which fails instead of hanging.
pub(crate) struct Watchdog(#[allow(dead_code, reason = "it is dropped")] Sender<()>);

impl Watchdog {
    /// `there` says what is to be seen then.
    pub(crate) fn new(there: impl Fn() -> String + Send + 'static) -> Self {
        let (sender, ended) = channel();
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        std::thread::spawn(move || {
            if ended.recv_timeout(WHOLE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test}: not done after {} s: {}", WHOLE.as_secs(), there());
                std::process::exit(101);
            }
        });
        Self(sender)
    }
}

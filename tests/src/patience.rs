//! Waiting that ends: whatever a test waits for in vain makes it fail, and say what is there instead.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

/// For one thing to happen on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// For a whole test.
const WHOLE: Duration = Duration::from_secs(600);
/// It is looked again after this at the latest: an event may come before what it is the sign of.
const LOOK: u16 = 500;

/// Waits until `is` holds, which is asked again whenever `events` happen at the paths. Blocks.
///
/// # Panics
/// It does not, or a path cannot be watched.
pub fn until<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
    events: AddWatchFlags,
    is: impl FnMut() -> bool,
    there: impl Fn() -> String,
) {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("the kernel has inotify");
    for path in paths {
        inotify.add_watch(path, events).expect("the path is there");
    }
    watched(&inotify, is, there);
}

/// As [`until`], with paths that are watched already. The descriptor does not block.
///
/// # Panics
/// It does not hold in the end; the message says what `there` does.
pub fn watched(inotify: &Inotify, mut is: impl FnMut() -> bool, there: impl Fn() -> String) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited {} s in vain: {}", PATIENCE.as_secs(), there());
        let mut descriptors = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        if poll(&mut descriptors, LOOK).expect("it is a descriptor") > 0 {
            // What it says does not matter: it is looked at the thing itself.
            let _ = inotify.read_events();
        }
    }
}

/// While this lives a test is under way; one that lasts too long ends the whole run, which fails instead of hanging.
#[derive(Debug)]
pub struct Watchdog {
    /// Dropped, it ends the watch.
    _under_way: Sender<()>,
}

impl Watchdog {
    /// `there` says what is to be seen then.
    pub fn new(there: impl Fn() -> String + Send + 'static) -> Self {
        let (sender, ended) = channel();
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        std::thread::spawn(move || {
            if ended.recv_timeout(WHOLE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test}: not done after {} s: {}", WHOLE.as_secs(), there());
                std::process::exit(101);
            }
        });
        Self { _under_way: sender }
    }
}

//! Waiting that ends: whatever a test waits for in vain makes it fail, and say what is there instead.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::Duration,
};

/// For one thing to happen on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For a whole test.
const WHOLE: Duration = Duration::from_secs(600);

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

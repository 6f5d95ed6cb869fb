//! Signals that reach the command while it stands for a process in a container.
//!
//! What holds: whatever the process and the node do with them, the third SIGINT or SIGTERM gives the caller the terminal
//! back.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Signals that are passed on, with the names that the service takes.
const PROXIED: &[(&str, i32)] = &[
    ("HUP", nix::libc::SIGHUP),
    ("INT", nix::libc::SIGINT),
    ("QUIT", nix::libc::SIGQUIT),
    ("USR1", nix::libc::SIGUSR1),
    ("USR2", nix::libc::SIGUSR2),
    ("ALRM", nix::libc::SIGALRM),
    ("TERM", nix::libc::SIGTERM),
    ("CONT", nix::libc::SIGCONT),
];
/// Signals that end the command itself where it holds the terminal; the terminal is put back first.
const ENDING: &[(&str, i32)] = &[
    ("HUP", nix::libc::SIGHUP),
    ("INT", nix::libc::SIGINT),
    ("QUIT", nix::libc::SIGQUIT),
    ("TERM", nix::libc::SIGTERM),
];
/// So many requests to end are enough.
const ENOUGH: u32 = 3;
/// Signals that wait to be passed on.
const QUEUE: usize = 16;

/// A signal that came: its name and number.
pub(crate) type Came = (&'static str, i32);

/// Signals to pass on to the container.
pub(crate) fn proxied() -> mpsc::Receiver<Came> {
    watch(PROXIED)
}

/// Signals at which the command ends.
pub(crate) fn ending() -> mpsc::Receiver<Came> {
    watch(ENDING)
}

/// A receiver that nothing ever comes from.
pub(crate) fn none() -> mpsc::Receiver<Came> {
    mpsc::channel(1).1
}

fn watch(signals: &'static [Came]) -> mpsc::Receiver<Came> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let asked = Arc::new(AtomicU32::new(0));
    for &(name, number) in signals {
        // A signal that cannot be watched keeps its default action.
        let Ok(mut stream) = signal(SignalKind::from_raw(number)) else { continue };
        let (sender, asked) = (sender.clone(), asked.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if matches!(name, "INT" | "TERM") && asked.fetch_add(1, Ordering::Relaxed) + 1 == ENOUGH {
                    give_up();
                }
                // Not waited for room: the next one has to be counted, too.
                let _ = sender.try_send((name, number));
            }
        });
    }
    receiver
}

/// Ends the command from wherever it is, with the terminal as it was.
fn give_up() -> ! {
    super::raw::restore();
    let _ = writeln!(std::io::stderr(), "\ngot {ENOUGH} SIGTERM/SIGINTs, forcefully exiting");
    std::process::exit(1)
}

/// Comes whenever the terminal's size changed.
pub(crate) fn resized() -> Option<Signal> {
    signal(SignalKind::window_change()).ok()
}

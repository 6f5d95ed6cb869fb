//! Signals that reach the command while it stands for a process in a container.

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
    for &(name, number) in signals {
        // A signal that cannot be watched keeps its default action.
        let Ok(mut stream) = signal(SignalKind::from_raw(number)) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send((name, number)).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Comes whenever the terminal's size changed.
pub(crate) fn resized() -> Option<Signal> {
    signal(SignalKind::window_change()).ok()
}

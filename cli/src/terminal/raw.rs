//! Raw mode of the caller's terminal. However the command ends, the terminal is as it was: at its end, on an error, on a
//! panic (which aborts, so that no destructor runs), and on every signal that can be caught.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd, BorrowedFd},
    sync::Mutex,
};

use berth_proto::berth::runtime::v1::TerminalSize;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// What the terminal was before it became raw, and the terminal.
static SAVED: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The size of the terminal that standard output (else standard input) is.
pub(crate) fn size() -> Option<TerminalSize> {
    of(io::stdout().as_fd()).or_else(|| of(io::stdin().as_fd()))
}

fn of(fd: BorrowedFd<'_>) -> Option<TerminalSize> {
    let mut size = nix::pty::Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    nix::ioctl_read_bad!(winsize, nix::libc::TIOCGWINSZ, nix::pty::Winsize);
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes one winsize, which `size` is.
    unsafe { winsize(std::os::fd::AsRawFd::as_raw_fd(&fd), &raw mut size) }.ok()?;
    (size.ws_col > 0).then(|| TerminalSize { columns: size.ws_col.into(), rows: size.ws_row.into() })
}

/// Makes the terminal on standard input raw until [`restore`].
///
/// # Errors
/// It is no terminal.
pub(crate) fn enter() -> io::Result<()> {
    change(cfmakeraw)
}

/// What is typed on standard input is not shown until [`restore`].
///
/// # Errors
/// It is no terminal.
pub(crate) fn hide() -> io::Result<()> {
    change(|terminal| terminal.local_flags.remove(LocalFlags::ECHO))
}

fn change(change: impl FnOnce(&mut Termios)) -> io::Result<()> {
    let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let before = tcgetattr(&terminal)?;
    let mut changed = before.clone();
    change(&mut changed);
    if let Ok(mut saved) = SAVED.lock() {
        if saved.is_none() {
            restore_on_panic();
            *saved = Some((terminal.try_clone()?, before));
        }
        tcsetattr(&terminal, SetArg::TCSANOW, &changed)?;
    }
    Ok(())
}

/// Puts the terminal back as it was before [`enter`]; does nothing where it was not changed.
pub(crate) fn restore() {
    // `try_lock`, because a panic may come while the lock is held.
    if let Ok(mut saved) = SAVED.try_lock()
        && let Some((terminal, before)) = saved.take()
    {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&terminal, SetArg::TCSANOW, &before);
    }
}

fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}

//! A command on a terminal of its own, as a person has it before them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

/// How long something may take to appear on the screen, in milliseconds.
const PATIENCE: u16 = 20_000;

/// A command on a terminal of 33 rows and 101 columns.
#[derive(Debug)]
pub struct Terminal {
    /// The command.
    pub child: Child,
    /// What the person types into and looks at.
    pub master: File,
    /// What the command has.
    pub slave: OwnedFd,
    seen: String,
}

impl Terminal {
    /// Starts the command on one.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal can be made");
        let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor can be doubled"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the command can be started");
        Self { child, master: pty.master.into(), slave: pty.slave, seen: String::new() }
    }

    /// Types this.
    ///
    /// # Panics
    /// Nobody can read it any more.
    pub fn say(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes what is typed");
    }

    /// Reads until the screen shows this, and forgets what came before it.
    ///
    /// # Panics
    /// It never does.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let mut descriptors = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut descriptors, PollTimeout::from(PATIENCE)).expect("it is a descriptor");
            assert_eq!(ready, 1, "the terminal shows {text:?}; it shows {:?}", self.seen);
            let size = self.master.read(&mut buffer).expect("the terminal can be read");
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..size]));
        }
        let at = self.seen.find(text).map_or(0, |at| at + text.len());
        self.seen.drain(..at);
    }

    /// Waits for the command's end and gives its exit code; the terminal must be as it was before.
    ///
    /// # Panics
    /// It was ended by a signal, or has left the terminal raw.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let code = self.child.wait().expect("a child can be waited for").code().expect("it exits");
        let flags = tcgetattr(&self.slave).expect("it is a terminal").local_flags;
        assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON), "the terminal is as it was");
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A process of the container: the first one, or one executed beside it.

use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
};

use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::watch;

use crate::{
    error::Error,
    streams::{Input, Outputs, Plug},
};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0–255; 128 + n after signal n.
    pub(crate) code: u32,
    /// Nanoseconds since 1970.
    pub(crate) at_ns: u64,
}

/// What its streams are connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plugs {
    pub(crate) stdin: Plug,
    pub(crate) stdout: Plug,
    pub(crate) stderr: Plug,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Exec ID; empty for the first process.
    pub(crate) exec_id: String,
    /// It has a terminal.
    pub(crate) tty: bool,
    pub(crate) plugs: Plugs,
    pub(crate) outputs: Rc<Outputs>,
    pub(crate) input: Rc<Input>,
    /// In the host's namespace; 0 before it exists.
    pub(crate) pid: Cell<u32>,
    /// Safe against the pid's reuse.
    pub(crate) pidfd: RefCell<Option<OwnedFd>>,
    /// It has ended; whoever waits may not be told yet.
    pub(crate) reaped: Cell<bool>,
    /// Its program runs, or ran.
    pub(crate) started: Cell<bool>,
    /// The code to report where its program was never executed.
    pub(crate) failed: Cell<Option<u32>>,
    /// The terminal's master, for its size.
    console: RefCell<Option<OwnedFd>>,
    /// The size of a terminal that is not there yet.
    size: Cell<Option<(u16, u16)>>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    pub(crate) fn new(exec_id: &str, tty: bool, plugs: Plugs, outputs: Rc<Outputs>) -> Rc<Self> {
        Rc::new(Self {
            exec_id: exec_id.to_owned(),
            tty,
            plugs,
            outputs,
            input: Rc::default(),
            pid: Cell::new(0),
            pidfd: RefCell::default(),
            reaped: Cell::new(false),
            started: Cell::new(false),
            failed: Cell::new(None),
            console: RefCell::default(),
            size: Cell::new(None),
            exit: watch::Sender::new(None),
        })
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Tells everybody who waits.
    pub(crate) fn ended(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) -> impl Future<Output = Exit> + 'static {
        let mut exit = self.exit.subscribe();
        async move {
            // The sender lives as long as somebody knows the process; without it, nobody will ever say more.
            let Ok(exit) = exit.wait_for(Option::is_some).await else { return std::future::pending().await };
            exit.unwrap_or(Exit { code: 255, at_ns: 0 })
        }
    }

    /// It has a terminal now.
    pub(crate) fn has_console(&self, console: &OwnedFd) {
        *self.console.borrow_mut() = console.try_clone().ok();
        if let Some((columns, rows)) = self.size.get() {
            // A terminal of the wrong size is still a terminal.
            let _ = self.resize(columns, rows);
        }
    }

    /// Sets the size of its terminal, now or when it gets one.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        if !self.tty {
            return Err(Error::Precondition("the process has no terminal".into()));
        }
        self.size.set(Some((columns, rows)));
        if let Some(console) = self.console.borrow().as_ref() {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(console, size)
                .map_err(|error| Error::System { what: "resizing the terminal".into(), why: error.to_string() })?;
        }
        Ok(())
    }

    /// Another runtime service's FIFOs take what it prints.
    pub(crate) fn prints_to_fifos(&self) -> bool {
        [&self.plugs.stdout, &self.plugs.stderr].into_iter().any(|plug| matches!(plug, Plug::Fifo(_)))
    }

    /// No more input will come. A terminal stays: who wants to end it types so.
    pub(crate) fn close_input(&self) {
        if !self.tty {
            self.input.close();
        }
    }

    /// It has ended: nobody reads its input, and its terminal is nobody's.
    pub(crate) fn release(&self) {
        self.input.close();
        self.console.borrow_mut().take();
        self.pidfd.borrow_mut().take();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Error> {
        use std::os::fd::AsRawFd as _;
        let pidfd = self.pidfd.borrow();
        let (Some(pidfd), None) = (pidfd.as_ref(), self.exit()) else {
            return Err(crate::oci::Error::NotRunning.into());
        };
        // SAFETY: the call takes its arguments by value but for the information, which may be absent.
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<()>(), 0) };
        if sent == 0 {
            return Ok(());
        }
        match std::io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Err(crate::oci::Error::NotRunning.into()),
            error => Err(Error::System { what: format!("sending signal {signal}"), why: error.to_string() }),
        }
    }
}

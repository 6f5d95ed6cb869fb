//! Ends of processes: reaped, recorded, told.
//!
//! The order is what others rely on: first the last of the output is in the log, then the record is in the bundle, then
//! whoever waits is told.

use std::rc::Rc;

use berth_core::bundle::{EXIT, ExitRecord};
use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use crate::{
    life::{flushed, oom_killed},
    log::now_ns,
    process::{Exit, Process},
    shim::Shim,
};

impl Shim {
    /// Reaps whoever has ended. Must not be called while the engine makes something: it reaps its helpers itself.
    pub(crate) fn reap(self: &Rc<Self>) {
        loop {
            let (pid, code) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code as u32),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                // Nix knows no real-time signals; whoever was ended by one is reaped all the same.
                Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => continue,
                Err(error) => {
                    crate::note::note!("reaping: {error}");
                    return;
                }
            };
            let known = self.processes().into_iter().find(|process| process.pid.get() == pid.as_raw() as u32);
            // Orphans of the container come here too; nobody asks for them.
            if let Some(process) = known.filter(|process| !process.reaped.get()) {
                self.ended(&process, code);
            }
        }
    }

    fn ended(self: &Rc<Self>, process: &Rc<Process>, code: u32) {
        process.reaped.set(true);
        let exit = Exit { code: process.failed.get().unwrap_or(code), at_ns: now_ns() };
        if process.exec_id.is_empty() {
            self.init_ended(process, exit);
        } else {
            process.outputs.drain();
        }
        process.release();
        if !process.prints_to_fifos() {
            process.ended(exit);
            process.outputs.finish();
            self.events.exited(self, process, exit);
            return;
        }
        process.outputs.finish();
        let (shim, process) = (Rc::clone(self), Rc::clone(process));
        tokio::task::spawn_local(async move {
            flushed(&process).await;
            process.ended(exit);
            shim.events.exited(&shim, &process, exit);
        });
    }

    fn init_ended(&self, process: &Process, exit: Exit) {
        // With its sockets the network namespace goes.
        self.names.borrow_mut().take();
        let container = self.container.borrow();
        if let (true, Some(container), Ok(engine)) = (self.shares_pids.get(), container.as_ref(), self.engine()) {
            // With pids of its own the kernel does it.
            let _ = engine.kill(container, libc::SIGKILL, true);
        }
        process.outputs.drain();
        let record = ExitRecord {
            pid: process.pid.get(),
            exit_code: exit.code,
            exited_at_ns: exit.at_ns,
            oom_killed: container.as_ref().is_some_and(oom_killed),
        };
        if self.options.is_some()
            && let Err(error) = berth_core::bundle::write(&self.bundle, EXIT, &record)
        {
            crate::note::note!("recording the exit: {error}");
        }
    }
}

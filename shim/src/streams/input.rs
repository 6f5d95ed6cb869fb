//! Standard input of a process.

use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// The end that is written to.
#[derive(Debug, Default)]
pub(crate) struct Input {
    fd: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    /// It closes with the first client that attached to it.
    pub(crate) once: Cell<bool>,
}

impl Input {
    pub(crate) fn open(&self, fd: Rc<AsyncFd<OwnedFd>>) {
        *self.fd.borrow_mut() = Some(fd);
    }

    /// Writes all of it; false when nobody reads any more. Waits while the process does not read.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> bool {
        let Some(fd) = self.fd.borrow().clone() else { return false };
        while !bytes.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return false };
            match rustix::io::write(fd.get_ref(), bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(_) => {
                    self.close();
                    return false;
                }
            }
        }
        true
    }

    /// Standard input ends, once what is being written is.
    pub(crate) fn close(&self) {
        self.fd.borrow_mut().take();
    }
}

//! The terminal of a process: a pair in the container's own devpts.

use std::{
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::fs::{FileType, OFlags, fstat, fstatfs, major, minor};

use super::{
    error::{Error, Step as _},
    mount::{Root, attach, beneath::Missing, bind_of},
};

/// Superblock magic of devpts.
const DEVPTS: u64 = 0x1cd1;

/// A pair.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Makes a pair in the devpts beneath `root`, which is checked to be one: a file that an image put in its place would
    /// receive what is meant for the terminal.
    pub(crate) fn open(root: &Root, columns: u16, rows: u16) -> Result<Self, Error> {
        let what = || "opening a terminal of the container";
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = root.open_plain(Path::new("dev/pts/ptmx"), flags).step(what)?;
        let stat = fstat(&master).step(what)?;
        let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2)
            && fstatfs(&master).step(what)?.f_type as u64 == DEVPTS;
        if !is_ptmx {
            return Err(Error::step(what(), "/dev/pts of the container is no devpts file system"));
        }
        rustix::pty::unlockpt(&master).step(what)?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: the call takes its argument by value; what it returns is a new descriptor for us alone.
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
        if slave < 0 {
            return Err(std::io::Error::last_os_error()).step(what);
        }
        // SAFETY: see above.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        if columns != 0 || rows != 0 {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&slave, size).step(|| "setting the terminal's size")?;
        }
        Ok(Self { master, slave })
    }

    /// Puts it where programs look for the system's console.
    pub(crate) fn bind_console(&self, root: &Root) -> Result<(), Error> {
        let what = || "binding the terminal to /dev/console";
        let onto = root.place(Path::new("/dev/console"), Missing::File).step(what)?;
        attach(bind_of(&self.slave, false).step(what)?, onto).step(what)
    }

    /// Makes it the session's terminal and the process's three streams. The caller leads a session without a terminal.
    pub(crate) fn take(&self) -> Result<(), Error> {
        // SAFETY: the call takes its argument by value.
        if unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
            return Err(std::io::Error::last_os_error()).step(|| "taking the terminal");
        }
        for number in 0..3 {
            duplicate(&self.slave, number)?;
        }
        Ok(())
    }
}

/// Makes a descriptor the process's stream of a number; it survives execve.
pub(crate) fn duplicate(fd: &OwnedFd, number: i32) -> Result<(), Error> {
    // SAFETY: 0, 1 and 2 belong to nobody in this child: it is about to become another program.
    let done = unsafe {
        if fd.as_raw_fd() == number {
            libc::fcntl(number, libc::F_SETFD, 0)
        } else {
            libc::dup2(fd.as_raw_fd(), number)
        }
    };
    if done < 0 { Err(std::io::Error::last_os_error()).step(|| "setting up the standard streams") } else { Ok(()) }
}

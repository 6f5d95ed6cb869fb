//! A network namespace, and perhaps a small file system, for one test alone: ports and full disks of one test are invisible
//! to all others.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

#[derive(Clone)]
pub(crate) struct Place {
    network: Arc<File>,
    mounts: Option<Arc<File>>,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::made(None)
    }

    /// With a file system of so many bytes at `directory`, which only processes in here see.
    pub(crate) fn with_disk(directory: &Path, bytes: u64) -> Self {
        Self::made(Some((directory, bytes)))
    }

    fn made(disk: Option<(&Path, u64)>) -> Self {
        // Only the thread moves; the test's own stays where it is.
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
                let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2 is installed");
                assert!(up.success(), "the loopback comes up");
                let mounts = disk.map(|(directory, bytes)| {
                    unshare(CloneFlags::CLONE_NEWNS).unwrap();
                    let none = None::<&str>;
                    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                    let options = format!("size={bytes}");
                    mount(Some("none"), directory, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
                    Arc::new(File::open("/proc/thread-self/ns/mnt").unwrap())
                });
                let network = Arc::new(File::open("/proc/thread-self/ns/net").unwrap());
                Self { network, mounts, environment: Vec::new() }
            });
            made.join().expect("namespaces can be made")
        })
    }

    /// Commands in here find this in their environment.
    pub(crate) fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.environment.push((variable, value.into()));
        self
    }

    pub(crate) fn has_disk(&self) -> bool {
        self.mounts.is_some()
    }

    /// A command in here.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment.iter().cloned());
        let place = self.clone();
        // SAFETY: between fork and exec only setns is called, which is one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if let Some(mounts) = &place.mounts {
                    setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
                }
                Ok(setns(place.network.as_fd(), CloneFlags::CLONE_NEWNET)?)
            })
        };
        command
    }

    /// Runs `body` on a thread in this network, for sockets of the test's own.
    pub(crate) fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let joined = scope.spawn(|| {
                setns(self.network.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            joined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

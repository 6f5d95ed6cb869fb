//! Private network namespaces: each node, with its registry and its clients, has one, so that addresses, ports, links
//! and firewall rules of one test are invisible to all others.

use std::{
    fs::File,
    os::{fd::AsFd, unix::process::CommandExt as _},
    process::Command,
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace with its loopback up; it goes with the last holder.
#[derive(Clone, Debug)]
pub struct Netns(Arc<File>);

impl Netns {
    /// Makes one.
    ///
    /// # Panics
    /// Not root, or no `ip` command.
    pub fn new() -> Self {
        // Only the thread moves; the test's own stays where it is.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
            let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2 is installed");
            assert!(status.success(), "the loopback comes up");
            File::open("/proc/thread-self/ns/net").expect("a thread can open its own namespace")
        });
        Self(Arc::new(made.join().expect("a network namespace can be made")))
    }

    /// The command will run in this namespace.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let namespace = Arc::clone(&self.0);
        // SAFETY: between fork and exec only setns is called, which is one system call and allocates nothing.
        unsafe { command.pre_exec(move || setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(Into::into)) }
    }

    /// A command in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    /// Runs `body` on a thread in this namespace, for sockets of the test's own.
    ///
    /// # Panics
    /// `body` does.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let joined = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
                body()
            });
            joined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

//! The container's cgroup, whichever version the machine has: v1 (also "hybrid") or v2. Nothing else knows which it is.
//!
//! A pid written into `cgroup.procs` makes the kernel wait for a grace period, 6–15 ms. So nobody writes pids here: on v1
//! the child, single-threaded, writes `0` into its own `tasks` files; on v2 it is born into its cgroup.

mod bpf;
mod events;
mod freeze;
mod locate;
mod members;
mod stats;
mod v1;
mod v2;

use std::{
    fs,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

pub use events::OomEvents;
pub use locate::Hierarchy;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
pub use stats::{BlkioEntry, CpuStats, HugetlbStats, MemoryStats, PidsStats, Stats, Throttling};

use super::error::{Error, Step as _};

/// Where a container's cgroup lies. It can be written down and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// One directory a hierarchy; on v2, none.
    v1: Vec<Hierarchy>,
    /// The v2 directory; in hybrid machines it is beside the others and holds processes but limits little.
    v2: Option<PathBuf>,
    /// Mount point of the v2 hierarchy.
    v2_mount: Option<PathBuf>,
}

/// What a process needs to get into a cgroup: opened before it exists.
#[derive(Debug)]
pub(crate) struct Entry {
    tasks: Vec<(PathBuf, fs::File)>,
    directory: Option<OwnedFd>,
}

impl Cgroup {
    /// The cgroup of a container whose configuration asks for `path`; see [`locate::resolve`].
    pub fn of(path: Option<&Path>, id: &str) -> Result<Self, Error> {
        locate::cgroup(path, id)
    }

    /// There is no v1 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// The v2 directory, where v2 is all there is.
    pub(crate) fn v2_directory(&self) -> Option<&Path> {
        if self.is_v2() { self.v2.as_deref() } else { None }
    }

    /// The v1 hierarchies' directories.
    pub(crate) fn v1_hierarchies(&self) -> &[Hierarchy] {
        &self.v1
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|hierarchy| hierarchy.path.as_path()).chain(self.v2.as_deref())
    }

    /// The directory of a v1 controller.
    fn controller(&self, name: &str) -> Option<&Path> {
        self.v1.iter().find(|h| h.controllers.iter().any(|c| c == name)).map(|h| h.path.as_path())
    }

    /// Makes the directories. A cgroup in which somebody lives belongs to another container.
    pub(crate) fn make(&self) -> Result<(), Error> {
        for hierarchy in &self.v1 {
            v1::make(hierarchy)?;
        }
        if let Some(directory) = &self.v2 {
            match &self.v2_mount {
                Some(mount) => v2::make(directory, mount, self.is_v2())?,
                None => fs::create_dir_all(directory).step(|| format!("making {}", directory.display()))?,
            }
        }
        if !self.pids().unwrap_or_default().is_empty() {
            return Err(Error::step("making the container's cgroup", "processes of something else live in it"));
        }
        Ok(())
    }

    /// Sets limits. What this machine cannot do and what can be done without is added to the warnings.
    pub(crate) fn limit(&self, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<(), Error> {
        if self.is_v2() { v2::limit(self, resources, warnings) } else { v1::limit(self, resources, warnings) }
    }

    /// Changes limits of a living container; where one is refused, what was changed before it is put back.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        const CHANGED: [&str; 18] = [
            "cpu.shares",
            "cpu.cfs_period_us",
            "cpu.cfs_quota_us",
            "cpu.rt_period_us",
            "cpu.rt_runtime_us",
            "blkio.weight",
            "blkio.bfq.weight",
            "cpuset.cpus",
            "cpuset.mems",
            "pids.max",
            "memory.memsw.limit_in_bytes",
            "memory.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "cpu.weight",
            "cpu.max",
            "memory.swap.max",
            "memory.max",
            "memory.low",
        ];
        let mut before: Vec<(&Path, &str, String)> = Vec::new();
        for directory in self.directories() {
            for file in CHANGED {
                if let Some(text) = read(directory, file) {
                    before.push((directory, file, text.trim().to_owned()));
                }
            }
        }
        let changed = self.limit(resources, &mut Vec::new());
        if changed.is_err() {
            // Twice: which of two that depend on each other goes first depends on the values.
            for (directory, file, text) in before.iter().chain(&before) {
                let _ = write(directory, file, text);
            }
        }
        changed
    }

    /// Allows and forbids devices. Only once, while nobody lives in the cgroup.
    pub(crate) fn devices(&self, resources: &LinuxResources) -> Result<(), Error> {
        let rules = resources.devices().as_deref().unwrap_or_default();
        if rules.is_empty() {
            return Ok(());
        }
        match self.v2_directory() {
            Some(directory) => bpf::allow_devices(directory, rules),
            None => v1::devices(self, rules),
        }
    }

    /// Opens the doors.
    pub(crate) fn entry(&self) -> Result<Entry, Error> {
        let mut tasks = Vec::new();
        for path in self.v1.iter().map(|hierarchy| hierarchy.path.join("tasks")) {
            let file = fs::OpenOptions::new().write(true).open(&path);
            tasks.push((path.clone(), file.step(|| format!("opening {}", path.display()))?));
        }
        // Also beside v1 hierarchies: writing to cgroup.procs waits for an RCU grace period, some 12 ms; to be born inside
        // waits for nothing.
        let directory = match &self.v2 {
            Some(directory) => {
                Some(fs::File::open(directory).step(|| format!("opening {}", directory.display()))?.into())
            }
            None => None,
        };
        Ok(Entry { tasks, directory })
    }
}

impl Entry {
    /// For clone3: in the v2 hierarchy the child is born inside.
    pub(crate) fn birth(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(|directory| directory.as_fd())
    }

    /// Moves the calling process, which must be single-threaded, where it was not born inside.
    pub(crate) fn join(&self) -> Result<(), Error> {
        use std::io::Write as _;
        for (path, file) in &self.tasks {
            let mut file = file;
            file.write_all(b"0").step(|| format!("writing 0 to {}", path.display()))?;
        }
        Ok(())
    }
}

/// Writes a value to a control file.
fn write(directory: &Path, file: &str, value: impl std::fmt::Display) -> Result<(), Error> {
    let path = directory.join(file);
    let text = value.to_string();
    fs::write(&path, &text).step(|| format!("writing {text} to {}", path.display()))
}

/// A control file's text; `None` where there is no such file.
fn read(directory: &Path, file: &str) -> Option<String> {
    fs::read_to_string(directory.join(file)).ok()
}

/// A control file's number; `max` is the greatest.
fn number(directory: &Path, file: &str) -> Option<u64> {
    let text = read(directory, file)?;
    let text = text.trim();
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

//! What a node leaves behind when it is gone: there must be nothing. Everything of a node carries its directory's or its
//! cgroup's name somewhere, which is what is looked for, so tests that run beside it are not blamed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Everything on this machine that belongs to the node in `directory` with this cgroup parent (without slash), one
/// line each.
pub fn of(directory: &Path, cgroup: &str) -> Vec<String> {
    let name = directory.to_str().expect("test directories have plain names");
    let mut found = Vec::new();
    for process in processes() {
        let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let state = String::from_utf8_lossy(&read("stat")).rsplit(") ").next().unwrap_or_default().to_owned();
        let cwd = fs::read_link(process.join("cwd")).unwrap_or_default();
        let cgroups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let ours = cmdline.contains(name) || cwd.starts_with(directory) || cgroups.contains(cgroup);
        // A zombie is its parent's to reap and holds nothing.
        if ours && !state.starts_with('Z') {
            found.push(format!("process {}: {cmdline}", process.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table can be read");
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let path = hierarchy.path().join(cgroup);
        if path.exists() {
            found.push(format!("cgroup {}", path.display()));
        }
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains(name) {
            found.push(format!("loop device {}", device.path().display()));
        }
    }
    found
}

/// The directories of all processes in /proc.
pub fn processes() -> Vec<PathBuf> {
    let numeric = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
    fs::read_dir("/proc").into_iter().flatten().flatten().filter(numeric).map(|entry| entry.path()).collect()
}

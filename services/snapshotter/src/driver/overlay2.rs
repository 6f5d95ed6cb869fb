//! overlay2: overlayfs over one directory a layer (kernel: Documentation/filesystems/overlayfs.rst).
//!
//! White-outs in a directory are always real (a character device 0:0, an opaque attribute), whatever it is stacked on, so
//! a layer may sit anywhere. `index`, `redirect_dir` and `metacopy` stay off: what they write into a directory means
//! nothing once it is committed and moved into another stack.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use berth_proto::containerd::types::Mount;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{Driver, bind};
use crate::{
    directory::{Directories, Id},
    error::Error,
};

#[derive(Debug)]
pub(crate) struct Overlay2;

impl Driver for Overlay2 {
    fn name(&self) -> &'static str {
        "overlay2"
    }

    fn prepare(&self, directories: &Directories, id: Id, lower: &[Id]) -> Result<(), Error> {
        directories.make(id, true)?;
        // The root of the merged tree takes its attributes from the uppermost directory.
        match lower.first() {
            Some(parent) => copy_attributes(&directories.files(*parent), &directories.files(id)),
            None => Ok(()),
        }
    }

    fn mounts(&self, directories: &Directories, own: Option<Id>, lower: &[Id]) -> Vec<Mount> {
        let files = |id: Id| directories.files(id);
        match (own, lower) {
            (Some(own), []) => return vec![bind(&files(own), false)],
            (None, [only]) => return vec![bind(&files(*only), true)],
            _ => {}
        }
        let mut options = vec!["index=off".to_owned(), "redirect_dir=off".to_owned(), "metacopy=off".to_owned()];
        if let Some(own) = own {
            options.push(format!("workdir={}", directories.work(own).display()));
            options.push(format!("upperdir={}", files(own).display()));
        }
        let lower: Vec<String> = lower.iter().map(|id| files(*id).display().to_string()).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount { r#type: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
    }

    fn compose(&self, _: &Directories, _: Id, layer: Id, _: Option<Id>) -> Result<Id, Error> {
        Ok(layer)
    }
}

fn copy_attributes(from: &Path, to: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let failed = || Error::io("cannot take over the attributes of", from);
    let metadata = fs::metadata(from).map_err(failed())?;
    chown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(failed())?;
    fs::set_permissions(to, metadata.permissions()).map_err(failed())
}

/// Whether overlayfs works on the file system of `root`, shown by a real mount. The message says what does not.
pub(super) fn probe(root: &Path) -> Result<(), String> {
    let directory = root.join(format!(".probe-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    let result = try_mount(&directory);
    let _ = fs::remove_dir_all(&directory);
    result
}

fn try_mount(directory: &Path) -> Result<(), String> {
    let path = |name: &str| directory.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(path(name)).map_err(|e| format!("cannot make {}: {e}", path(name).display()))?;
    }
    fs::write(path("lower/file"), "").map_err(|e| e.to_string())?;
    let merged: PathBuf = path("merged");
    let options = format!(
        "index=off,redirect_dir=off,metacopy=off,workdir={},upperdir={},lowerdir={}",
        path("work").display(),
        path("upper").display(),
        path("lower").display()
    );
    // In a mount namespace of the thread's own, so that nothing of it is ever seen outside.
    let probe = thread::spawn(move || -> Result<(), String> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .map_err(|e| format!("no private mount namespace: {e}"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|e| e.to_string())?;
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|e| format!("the kernel refuses an overlay mount there: {e}"))?;
        // A white-out needs a device node in the upper directory; a rename needs d_type and attributes there.
        let works = fs::remove_file(merged.join("file")).map_err(|e| format!("a file cannot be removed in it: {e}"));
        let _ = umount2(&merged, MntFlags::MNT_DETACH);
        works
    });
    probe.join().unwrap_or_else(|_| Err("the probe panicked".into()))
}

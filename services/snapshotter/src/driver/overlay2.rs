//! overlay2: overlayfs over one directory a layer (kernel: Documentation/filesystems/overlayfs.rst).
//!
//! White-outs in a directory are always real (a character device 0:0, an opaque attribute), whatever it is stacked on, so
//! a layer may sit anywhere. What a layer leaves open is settled in a small directory of its own between it and what is
//! above. `index`, `redirect_dir` and `metacopy` stay off: what they write into a directory means nothing once it is
//! committed and moved into another stack.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    thread,
};

use berth_proto::containerd::types::Mount;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Composed, Driver, Look, bind};
use crate::{
    directory::{Directories, Id},
    error::Error,
    layer::{
        attributes::{Attributes, is_opaque},
        beneath::Root,
        changes::Own,
        settle::{self, Below},
        tree,
    },
    record::Open,
};

const OPTIONS: [&str; 3] = ["index=off", "redirect_dir=off", "metacopy=off"];

#[derive(Debug)]
pub(crate) struct Overlay2;

impl Driver for Overlay2 {
    fn name(&self) -> &'static str {
        "overlay2"
    }

    fn rebases(&self) -> bool {
        true
    }

    fn prepare(&self, directories: &Directories, id: Id, lower: &[Id]) -> Result<(), Error> {
        directories.make(id, true)?;
        // The root of the merged tree takes its attributes from the uppermost directory.
        match lower.first() {
            Some(parent) => take_over(&directories.files(*parent), &directories.files(id)),
            None => Ok(()),
        }
    }

    fn mounts(&self, directories: &Directories, own: Option<Id>, lower: &[Id]) -> Vec<Mount> {
        let files = |id: Id| directories.files(id);
        let lower = once(lower);
        match (own, lower.as_slice()) {
            (Some(own), []) => return vec![bind(&files(own), false)],
            (None, [only]) => return vec![bind(&files(*only), true)],
            _ => {}
        }
        let mut options: Vec<String> = OPTIONS.iter().map(|option| (*option).to_owned()).collect();
        if let Some(own) = own {
            options.push(format!("workdir={}", directories.work(own).display()));
            options.push(format!("upperdir={}", files(own).display()));
        }
        let lower: Vec<String> = lower.iter().map(|id| files(*id).display().to_string()).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount { r#type: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
    }

    fn own(&self) -> Own {
        Own::Layer
    }

    fn look(&self, directories: &Directories, stack: &[Id], work: Look<'_>) -> Result<(), Error> {
        let stack = once(stack);
        if let [only] = stack[..] {
            return work(&directories.files(only));
        }
        let base = directories.base();
        // Relative, as in `merged`; over the directory that holds them all, which has been entered before.
        let lower: Vec<String> = stack.iter().map(|id| format!("{id}/fs")).collect();
        let options = format!("{},lowerdir={}", OPTIONS.join(","), lower.join(":"));
        privately(|| {
            std::env::set_current_dir(base).map_err(Error::io("cannot enter", base))?;
            let flags = MsFlags::MS_RDONLY;
            mount(Some("overlay"), base, Some("overlay"), flags, Some(options.as_str()))
                .map_err(|error| Error::io("cannot mount over", base)(error.into()))?;
            let worked = work(base);
            let _ = umount2(base, MntFlags::MNT_DETACH);
            worked
        })
        .unwrap_or_else(|why| Err(Error::Driver { driver: "overlay2", path: base.into(), why }))
    }

    fn compose(
        &self,
        directories: &Directories,
        new: Id,
        layer: Id,
        open: &Open,
        lower: &[Id],
    ) -> Result<Composed, Error> {
        let wanted = wanted(directories, layer, open, lower)?;
        if wanted.is_empty() && open.links.is_empty() {
            return Ok(Composed::Layer);
        }
        directories.make(new, true)?;
        take_over(&directories.files(layer), &directories.files(new))?;
        let stack: Vec<Id> = std::iter::once(layer).chain(lower.iter().copied()).collect();
        merged(directories, new, &stack, |merged| {
            settle::links(merged, open)?;
            let failed = || Error::io("cannot set the attributes of directories in", directories.path(new));
            let root = Root::open(merged).map_err(failed())?;
            for (path, attributes) in &wanted {
                let directory = root.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY).map_err(failed())?;
                attributes.apply_at(directory.as_fd(), OsStr::new("."), false).map_err(failed())?;
            }
            Ok(())
        })?;
        Ok(Composed::Over)
    }
}

/// Directories that must look otherwise in this stack than in the layer: those that it does not describe, where the
/// layers below do, and those with white-outs that no other directory is merged with, because overlayfs would list them.
fn wanted(
    directories: &Directories,
    layer: Id,
    open: &Open,
    lower: &[Id],
) -> Result<Vec<(Vec<u8>, Attributes)>, Error> {
    let files = directories.files(layer);
    let failed = || Error::io("cannot compare the layer with those below", &files);
    let lower: Vec<PathBuf> = lower.iter().map(|id| directories.files(*id)).collect();
    let root = Root::open(&files).map_err(failed())?;
    let own = |path: &[u8]| -> std::io::Result<(bool, Option<Attributes>)> {
        let directory = root.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY)?;
        let here = OsStr::new(".");
        let found = tree::stat(directory.as_fd(), here)?;
        let attributes = found.map(|found| Attributes::of(directory.as_fd(), here, &found)).transpose()?;
        Ok((is_opaque(directory.as_fd(), here), attributes))
    };
    let mut wanted = Vec::new();
    for path in &open.undescribed {
        if let Below::Directory(below) = settle::below(&lower, path).map_err(failed())?
            && let (_, Some(own)) = own(path).map_err(failed())?
            && !below.same_access(&own)
        {
            wanted.push((path.clone(), below));
        }
    }
    for path in &open.hiding {
        let (opaque, own) = own(path).map_err(failed())?;
        let merged = !opaque && matches!(settle::below(&lower, path).map_err(failed())?, Below::Directory(_));
        if let Some(own) = own.filter(|_| !merged && !wanted.iter().any(|(wanted, _)| wanted == path)) {
            wanted.push((path.clone(), own));
        }
    }
    Ok(wanted)
}

/// overlayfs takes a directory only once. Of a layer that is in a stack several times the uppermost counts: it has every
/// path that the lower ones have, and hides all that they hide.
fn once(stack: &[Id]) -> Vec<Id> {
    let mut seen = HashSet::new();
    stack.iter().copied().filter(|id| seen.insert(*id)).collect()
}

/// Gives a directory the attributes of another.
fn take_over(from: &Path, to: &Path) -> Result<(), Error> {
    let here = OsStr::new(".");
    let copy = || -> std::io::Result<()> {
        let open = |path| openat(CWD, path, tree::READ, Mode::empty());
        let (from, to) = (open(from)?, open(to)?);
        match tree::stat(from.as_fd(), here)? {
            Some(found) => Attributes::of(from.as_fd(), here, &found)?.apply_at(to.as_fd(), here, false),
            None => Ok(()),
        }
    };
    copy().map_err(Error::io("cannot take over the attributes of", from))
}

/// Works on the whole tree of a stack; what is changed there goes into the directory `upper`.
fn merged(
    directories: &Directories,
    upper: Id,
    stack: &[Id],
    work: impl FnOnce(&Path) -> Result<(), Error> + Send,
) -> Result<(), Error> {
    let mountpoint = directories.path(upper).join("merged");
    fs::create_dir(&mountpoint).map_err(Error::io("cannot make", &mountpoint))?;
    // Relative, so that many of them still fit into the one page that mount(2) takes.
    let lower: Vec<String> = once(stack).iter().map(|id| format!("{id}/fs")).collect();
    let options =
        format!("{},workdir={upper}/work,upperdir={upper}/fs,lowerdir={}", OPTIONS.join(","), lower.join(":"));
    privately(|| {
        std::env::set_current_dir(directories.base()).map_err(Error::io("cannot enter", directories.base()))?;
        overlay(&mountpoint, &options).map_err(|error| Error::io("cannot mount", &mountpoint)(error.into()))?;
        let worked = work(&mountpoint);
        let _ = umount2(&mountpoint, MntFlags::MNT_DETACH);
        worked
    })
    .unwrap_or_else(|why| Err(Error::Driver { driver: "overlay2", path: directories.base().into(), why }))?;
    fs::remove_dir(&mountpoint).map_err(Error::io("cannot remove", &mountpoint))
}

fn overlay(target: &Path, options: &str) -> nix::Result<()> {
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options))
}

/// Runs on a thread with a mount namespace and a working directory of its own, so that nothing of it is ever seen
/// outside.
fn privately<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let alone = || -> Result<T, String> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .map_err(|e| format!("no private mount namespace: {e}"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|e| e.to_string())?;
        Ok(work())
    };
    thread::scope(|scope| scope.spawn(alone).join().unwrap_or_else(|_| Err("the thread panicked".into())))
}

/// Whether overlayfs works on the file system of `root`, shown by a real mount. The message says what does not.
pub(super) fn probe(root: &Path) -> Result<(), String> {
    if root.to_str().is_none_or(|root| root.contains([':', ',', '\\'])) {
        return Err(
            "its path has a colon, a comma, a backslash or no valid UTF-8, which mount options cannot carry".into()
        );
    }
    let directory = root.join(".probe");
    let _ = tree::remove(&directory);
    let result = try_mount(&directory);
    let _ = tree::remove(&directory);
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
        "{},workdir={},upperdir={},lowerdir={}",
        OPTIONS.join(","),
        path("work").display(),
        path("upper").display(),
        path("lower").display()
    );
    privately(|| {
        overlay(&merged, &options).map_err(|e| format!("the kernel refuses an overlay mount there: {e}"))?;
        // A white-out needs a device node in the upper directory; a rename needs d_type and attributes there.
        let works = fs::remove_file(merged.join("file")).map_err(|e| format!("a file cannot be removed in it: {e}"));
        let _ = umount2(&merged, MntFlags::MNT_DETACH);
        works
    })?
}

//! A snapshot mounted as a container's runtime would, and looked at. The mount is detached: nobody else sees it, and it
//! goes with its descriptor.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use berth_proto::containerd::types::Mount;
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen, open_tree,
    },
};

pub(crate) struct Mounted(OwnedFd);

impl Mounted {
    pub(crate) fn new(mounts: &[Mount]) -> Self {
        let [mount] = mounts else { panic!("one mount: {mounts:?}") };
        Self(match mount.r#type.as_str() {
            "bind" => {
                open_tree(CWD, mount.source.as_str(), OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
                    .unwrap()
            }
            "overlay" => overlay(&mount.options).unwrap_or_else(|error| panic!("{error}: {mount:?}")),
            other => panic!("a mount of type {other}"),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        // Also for other programs.
        let mut path = PathBuf::from(format!("/proc/{}/fd/{}/", std::process::id(), self.0.as_fd().as_raw_fd()));
        if !name.is_empty() {
            path.push(name);
        }
        path
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    pub(crate) fn metadata(&self, name: &str) -> fs::Metadata {
        self.path(name).symlink_metadata().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names in a directory.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        names(&self.path(name))
    }

    /// An extended attribute, if it is there.
    pub(crate) fn xattr(&self, name: &str, attribute: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 4096];
        let size = rustix::fs::lgetxattr(self.path(name), attribute, &mut value[..]).ok()?;
        value.truncate(size);
        Some(value)
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Option by option, so that no length of the whole matters.
fn overlay(options: &[String]) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options {
        let (key, value) = option.split_once('=').unwrap();
        if key == "lowerdir" {
            for lower in value.split(':') {
                fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
            }
        } else {
            fsconfig_set_string(context.as_fd(), key, value)?;
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

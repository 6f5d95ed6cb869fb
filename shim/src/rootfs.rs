//! The container's root file system: mounted by the shim, in a mount namespace that is the shim's own, so that it goes away
//! with the shim however that ends.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use containerd_shim_protos::api::Mount;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{UnmountFlags, unmount},
};

use crate::{
    error::{During as _, Error},
    oci::mount::{Options, attach, bind_of_path, new_mount, propagate, set_attributes},
};

/// The kernel takes no longer word where a file system is configured step by step.
const LONGEST_WORD: usize = 255;

/// Gives this process its own mount namespace: what the host mounts later arrives, what is mounted here stays here.
pub(crate) fn separate() -> Result<(), Error> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).during(|| "making a mount namespace")?;
    propagate(Path::new("/"), libc::MS_SLAVE | libc::MS_REC)?;
    Ok(())
}

/// Mounts everything, in order, at or beneath `onto`. A failure leaves nothing mounted.
pub(crate) fn mount(mounts: &[Mount], onto: &Path) -> Result<(), Error> {
    if mounts.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(onto).during(|| format!("making {}", onto.display()))?;
    for mount in mounts {
        let place = onto.join(mount.target.trim_start_matches('/'));
        if let Err(error) = mount_one(mount, &place) {
            clear(onto);
            return Err(error);
        }
    }
    Ok(())
}

/// Unmounts whatever is mounted there.
pub(crate) fn clear(place: &Path) {
    while unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

fn mount_one(mount: &Mount, place: &Path) -> Result<(), Error> {
    let what = || format!("mounting {} from {} at {}", mount.type_, mount.source, place.display());
    let onto = openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    let options = Options::parse(&mount.options);
    let made = if mount.type_ == "bind" || options.bind.is_some() {
        let made = bind_of_path(Path::new(&mount.source), options.bind == Some(true)).during(what)?;
        // A copy is a peer of what it was copied from: what the container mounts there is not the host's.
        let slave = crate::oci::mount::Attributes { propagation: libc::MS_SLAVE, ..Default::default() };
        set_attributes(made.as_fd(), slave, true).during(what)?;
        if !options.own.is_empty() {
            set_attributes(made.as_fd(), options.own, false).during(what)?;
        }
        made
    } else {
        // Directories that are opened for their names must stay open until the mount is made.
        let mut open = Vec::new();
        let data = words(&options.data, &mut open).during(what)?;
        match new_mount(&mount.type_, Some(&mount.source), &data, options.own.set) {
            Ok(made) => made,
            // Kernels before 6.7 do not know layers one by one.
            Err(error) if mount.type_ == "overlay" => {
                return mount_by_string(mount, &options, place).map_err(|_| error.into());
            }
            Err(error) => return Err(error.into()),
        }
    };
    for (propagation, recursive) in &options.propagation {
        let attributes = crate::oci::mount::Attributes { propagation: *propagation, ..Default::default() };
        set_attributes(made.as_fd(), attributes, *recursive).during(what)?;
    }
    attach(&made, &onto).during(what)
}

/// Options as the kernel takes them one by one: an overlay's layers apart, a path that is too long or has characters that
/// mean something by an open descriptor.
fn words(
    data: &[(String, Option<String>)],
    open: &mut Vec<OwnedFd>,
) -> rustix::io::Result<Vec<(String, Option<String>)>> {
    let mut words = Vec::new();
    for (key, value) in data {
        match (key.as_str(), value) {
            ("lowerdir", Some(value)) => {
                for layer in layers(value) {
                    words.push(("lowerdir+".to_owned(), Some(short(layer, open)?)));
                }
            }
            ("upperdir" | "workdir", Some(value)) => {
                words.push((key.clone(), Some(short(PathBuf::from(value), open)?)));
            }
            _ => words.push((key.clone(), value.clone())),
        }
    }
    Ok(words)
}

/// The layers of an overlay: a colon or backslash of a path has a backslash before it.
fn layers(value: &str) -> Vec<PathBuf> {
    let mut layers = Vec::new();
    let mut layer = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => layer.extend(letters.next()),
            ':' => layers.push(std::mem::take(&mut layer).into()),
            _ => layer.push(letter),
        }
    }
    layers.push(layer.into());
    layers.retain(|layer: &PathBuf| !layer.as_os_str().is_empty());
    layers
}

fn short(path: PathBuf, open: &mut Vec<OwnedFd>) -> rustix::io::Result<String> {
    match path.to_str() {
        Some(text) if text.len() <= LONGEST_WORD && !text.contains(['\\', ':', ',']) => Ok(text.to_owned()),
        _ => by_descriptor(&path, open),
    }
}

fn by_descriptor(path: &Path, open: &mut Vec<OwnedFd>) -> rustix::io::Result<String> {
    let fd = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open.push(fd);
    Ok(name)
}

/// An overlay by mount(2), whose options are one string of a page at most: every directory by its descriptor.
fn mount_by_string(mount: &Mount, options: &Options, place: &Path) -> Result<(), Error> {
    let what = || format!("mounting {} at {}", mount.type_, place.display());
    let mut open = Vec::new();
    let mut text = String::new();
    for (key, value) in &options.data {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(key);
        let Some(value) = value else { continue };
        text.push('=');
        match key.as_str() {
            "lowerdir" => {
                let names =
                    layers(value).iter().map(|layer| by_descriptor(layer, &mut open)).collect::<Result<Vec<_>, _>>();
                text.push_str(&names.during(what)?.join(":"));
            }
            "upperdir" | "workdir" => text.push_str(&by_descriptor(Path::new(value), &mut open).during(what)?),
            _ => text.push_str(value),
        }
    }
    let string = |text: &[u8]| CString::new(text).during(what);
    let (source, kind) = (string(mount.source.as_bytes())?, string(mount.type_.as_bytes())?);
    let (onto, text) = (string(place.as_os_str().as_encoded_bytes())?, string(text.as_bytes())?);
    let flags = if options.own.set & libc::MOUNT_ATTR_RDONLY != 0 { libc::MS_RDONLY } else { 0 };
    // SAFETY: all strings are valid for the call, which only reads them.
    let done = unsafe { libc::mount(source.as_ptr(), onto.as_ptr(), kind.as_ptr(), flags, text.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).during(what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_apart() {
        assert_eq!(layers(r"/a:/b\:c:/d\\e"), [Path::new("/a"), Path::new("/b:c"), Path::new(r"/d\e")]);
    }

    #[test]
    fn long_paths_go_by_descriptor() {
        let mut open = Vec::new();
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(200)).join("y".repeat(200));
        fs::create_dir_all(&long).unwrap();
        let lowerdir = format!("/etc:{}", long.display());
        let words = words(&[("lowerdir".into(), Some(lowerdir))], &mut open).unwrap();
        assert_eq!(words[0], ("lowerdir+".to_owned(), Some("/etc".to_owned())));
        assert!(words[1].1.as_ref().unwrap().starts_with("/proc/self/fd/") && open.len() == 1);
    }
}

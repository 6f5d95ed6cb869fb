//! What is in the container's /dev besides mounts.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDeviceType, Spec};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, makedev},
    io::Errno,
};

use super::{
    error::{Error, Step as _},
    mount::{Root, attach, beneath::Missing, bind_of},
};

/// A device file to make.
struct Device {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
}

const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Everyone expects these links; `core` only where the kernel has what it points to.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Fills /dev. Where the configuration binds a /dev from elsewhere, that one is left as it is.
pub(crate) fn fill(spec: &Spec, root: &Root, in_user_namespace: bool) -> Result<(), Error> {
    let bound = spec.mounts().iter().flatten().any(|mount| {
        mount.destination() == Path::new("/dev")
            && (mount.typ().as_deref() == Some("bind")
                || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind"))
    });
    if bound {
        return Ok(());
    }
    // What is asked for is the mode, whatever the shim's umask.
    let umask = rustix::process::umask(Mode::empty());
    let filled =
        devices(spec)?.iter().try_for_each(|device| make(root, device, in_user_namespace)).and_then(|()| links(root));
    rustix::process::umask(umask);
    filled
}

fn devices(spec: &Spec) -> Result<Vec<Device>, Error> {
    let mut devices: Vec<Device> = DEFAULT
        .iter()
        .map(|(name, major, minor)| Device {
            path: Path::new("/dev").join(name),
            kind: FileType::CharacterDevice,
            number: makedev(*major, *minor),
            mode: 0o666,
            owner: (0, 0),
        })
        .collect();
    for device in spec.linux().iter().flat_map(|linux| linux.devices().iter().flatten()) {
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                return Err(Error::Spec(format!("{} is a device of no kind", device.path().display())));
            }
        };
        // Its own comes after the default one and replaces it.
        devices.retain(|other| other.path != *device.path());
        devices.push(Device {
            path: device.path().clone(),
            kind,
            number: makedev(device.major() as u32, device.minor() as u32),
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        });
    }
    Ok(devices)
}

/// The directory of a path, made where missing, and the name in it.
fn split(root: &Root, path: &Path) -> Result<(OwnedFd, std::ffi::OsString), Error> {
    let what = || format!("making {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::Spec(format!("{} is no place for a device", path.display())))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok((root.place(directory, Missing::Directory).step(what)?, name.to_owned()))
}

fn make(root: &Root, device: &Device, in_user_namespace: bool) -> Result<(), Error> {
    let what = || format!("making the device {}", device.path.display());
    if in_user_namespace && device.kind != FileType::Fifo {
        return bind(root, device);
    }
    let (directory, name) = split(root, &device.path)?;
    let mknod = || rustix::fs::mknodat(&directory, &name, device.kind, Mode::from_raw_mode(device.mode), device.number);
    match mknod() {
        // An image may have put something there.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(&directory, &name, AtFlags::empty()).step(what)?;
            mknod().step(what)?;
        }
        // A machine that may not make devices can still show the host's.
        Err(Errno::PERM) if device.kind != FileType::Fifo => return bind(root, device),
        other => other.step(what)?,
    }
    let (uid, gid) = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
    if device.owner != (0, 0) {
        rustix::fs::chownat(&directory, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).step(what)?;
    }
    Ok(())
}

/// Shows the host's device of the same name, if it is the same device.
fn bind(root: &Root, device: &Device) -> Result<(), Error> {
    let what = || format!("binding the device {}", device.path.display());
    let host = rustix::fs::openat(CWD, &device.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    let stat = rustix::fs::fstat(&host).step(what)?;
    if FileType::from_raw_mode(stat.st_mode) != device.kind || stat.st_rdev != device.number {
        return Err(Error::step(what(), "the host has another device under this name"));
    }
    let onto = root.place(&device.path, Missing::File).step(what)?;
    attach(bind_of(&host, false).step(what)?, onto).step(what)
}

fn links(root: &Root) -> Result<(), Error> {
    let what = |name: &str| format!("linking /dev/{name}");
    let dev = root.place(Path::new("/dev"), Missing::Directory).step(|| "opening /dev of the container")?;
    let core = Path::new("/proc/kcore").exists().then_some(("core", "/proc/kcore"));
    for (name, target) in LINKS.into_iter().chain(core) {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).step(|| what(name)),
        }
    }
    // The container's terminals are those of its own devpts.
    match rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        // Something is mounted there on purpose.
        Err(Errno::BUSY) => return Ok(()),
        Err(error) => return Err(error).step(|| what("ptmx")),
    }
    rustix::fs::symlinkat("pts/ptmx", &dev, "ptmx").step(|| what("ptmx"))
}

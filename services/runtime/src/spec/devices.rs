//! Device files: which ones the container gets, and which ones its cgroup lets it use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use berth_proto::berth::runtime::v1::{ContainerSpec, Device};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::Error;

/// Character devices that every container may use: null, zero, full, random, urandom, tty, console, ptmx, and all
/// pseudo-terminals.
const EVERYBODY: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];
/// Below the host's /dev, but no devices of the machine: each container has its own, or none.
const NOT_SHARED: [&str; 9] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".lxd-mounts", ".udev"];
/// Directories are followed this deep.
const DEPTH: usize = 8;

/// Device files to make, and rules of the cgroup, the last that fits winning.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) files: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// The devices of a container, as the machine has them now.
pub(super) fn of(spec: &ContainerSpec) -> Result<Devices, Error> {
    let mut devices = Devices::default();
    if spec.privileged {
        devices.rules.push(rule(true, None, None, None, "rwm"));
        walk(Path::new("/dev"), DEPTH, &mut |path, metadata| {
            if !metadata.file_type().is_symlink() {
                devices.files.extend(file(path, metadata));
            }
        });
    } else {
        devices.rules.push(rule(false, None, None, None, "rwm"));
        // Making one is nothing yet: opening it is what counts.
        for kind in [LinuxDeviceType::C, LinuxDeviceType::B] {
            devices.rules.push(rule(true, Some(kind), None, None, "m"));
        }
        for (major, minor) in EVERYBODY {
            devices.rules.push(rule(true, Some(LinuxDeviceType::C), Some(major), minor, "rwm"));
        }
    }
    for device in &spec.devices {
        asked(device, spec.privileged, &mut devices)?;
    }
    if !spec.privileged {
        for text in &spec.device_cgroup_rules {
            devices.rules.push(read_rule(text).ok_or_else(|| wrong_rule(text))?);
        }
    }
    Ok(devices)
}

/// A rule as Docker takes it: "c 1:3 rwm", with `*` for every number, and `a` for both kinds.
fn read_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let kind = match kind {
        "a" => None,
        "b" => Some(LinuxDeviceType::B),
        "c" => Some(LinuxDeviceType::C),
        _ => return None,
    };
    let number = |text: &str| match text {
        "*" => Some(None),
        digits => digits.parse::<u32>().ok().map(|number| Some(i64::from(number))),
    };
    let (major, minor) = numbers.split_once(':')?;
    let accesses = (1..=3).contains(&access.len()) && access.chars().all(|c| "rwm".contains(c));
    accesses.then_some(rule(true, kind, number(major)?, number(minor)?, access))
}

fn wrong_rule(text: &str) -> Error {
    Error::invalid(format!("invalid device cgroup format '{text}'"))
}

fn asked(device: &Device, privileged: bool, devices: &mut Devices) -> Result<(), Error> {
    let path = Path::new(&device.host_path);
    let inside = if device.container_path.is_empty() { path } else { Path::new(&device.container_path) };
    let failed = |source| Error::Device { path: path.into(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mut found = Vec::new();
    if metadata.is_dir() {
        walk(path, DEPTH, &mut |at, metadata| {
            if let (Some(one), Ok(rest)) = (file(at, metadata), at.strip_prefix(path)) {
                found.push((inside.join(rest), one));
            }
        });
    } else {
        found.extend(file(inside, &metadata).map(|one| (inside.to_owned(), one)));
    }
    if found.is_empty() {
        return Err(failed(io::Error::other("not a device node")));
    }
    let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
    for (path, mut one) in found {
        one.set_path(path);
        if !privileged {
            devices.rules.push(rule(true, Some(one.typ()), Some(one.major()), Some(one.minor()), access));
        }
        devices.files.retain(|other| other.path() != one.path());
        devices.files.push(one);
    }
    Ok(())
}

/// Everything below a directory that is no directory, in the order of names. What goes away meanwhile, or cannot be
/// read, is not there.
fn walk(directory: &Path, depth: usize, found: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().to_str().is_some_and(|name| NOT_SHARED.contains(&name)) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            if depth > 0 {
                walk(&entry.path(), depth - 1, found);
            }
        } else {
            found(&entry.path(), &metadata);
        }
    }
}

/// A device file as there is one; `None` where it is none.
fn file(path: &Path, metadata: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    let typ = if kind.is_char_device() {
        LinuxDeviceType::C
    } else if kind.is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    let number = metadata.rdev();
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(path))
        .set_typ(typ)
        .set_major(i64::from(libc::major(number)))
        .set_minor(i64::from(libc::minor(number)))
        .set_file_mode(Some(metadata.mode() & 0o7777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    Some(device)
}

fn rule(
    allow: bool,
    typ: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(typ).set_major(major).set_minor(minor).set_access(Some(access.into()));
    rule
}

/// Refuses device mappings that cannot be meant. Whether the device is there is seen when the container starts.
pub(super) fn check(devices: &[Device], rules: &[String]) -> Result<(), Error> {
    if let Some(text) = rules.iter().find(|text| read_rule(text).is_none()) {
        return Err(wrong_rule(text));
    }
    for device in devices {
        let absolute = |path: &str| path.starts_with('/');
        if !absolute(&device.host_path) || !device.container_path.is_empty() && !absolute(&device.container_path) {
            return Err(Error::invalid(format!(
                "invalid device specification: {}:{}: both paths must be absolute",
                device.host_path, device.container_path
            )));
        }
        if device.permissions.chars().any(|c| !"rwm".contains(c)) {
            return Err(Error::invalid(format!("invalid device mode: {}", device.permissions)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, container: &str, permissions: &str) -> Device {
        Device { host_path: host.into(), container_path: container.into(), permissions: permissions.into() }
    }

    #[test]
    fn nothing_but_the_harmless_ones_is_allowed() {
        let devices = of(&ContainerSpec::default()).unwrap();
        assert!(devices.files.is_empty());
        assert!(!devices.rules[0].allow() && devices.rules[0].major().is_none());
        let opens = |rule: &&LinuxDeviceCgroup| rule.allow() && rule.access().as_deref() == Some("rwm");
        assert_eq!(devices.rules.iter().filter(opens).count(), EVERYBODY.len());
    }

    #[test]
    fn a_device_of_the_host() {
        let spec = ContainerSpec { devices: vec![device("/dev/null", "/dev/x", "r")], ..ContainerSpec::default() };
        let devices = of(&spec).unwrap();
        let file = &devices.files[0];
        assert_eq!((file.path().as_path(), file.major(), file.minor()), (Path::new("/dev/x"), 1, 3));
        let rule = devices.rules.last().unwrap();
        assert_eq!((rule.minor(), rule.access().as_deref()), (Some(3), Some("r")));
    }

    #[test]
    fn privileged_has_them_all() {
        let devices = of(&ContainerSpec { privileged: true, ..ContainerSpec::default() }).unwrap();
        assert!(devices.rules.len() == 1 && devices.rules[0].allow());
        assert!(devices.files.iter().any(|file| file.path() == Path::new("/dev/null")));
        assert!(!devices.files.iter().any(|file| file.path().starts_with("/dev/pts")));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let refused = |host| {
            let spec = ContainerSpec { devices: vec![device(host, "", "")], ..ContainerSpec::default() };
            of(&spec).unwrap_err().to_string()
        };
        assert!(refused("/etc/passwd").contains("\"/etc/passwd\": not a device node"), "{}", refused("/etc/passwd"));
        assert!(refused("/dev/not-there").contains("adding custom device \"/dev/not-there\""));
        let checked = |one: Device| check(&[one], &[]);
        assert!(checked(device("dev/null", "", "")).is_err() && checked(device("/dev/null", "", "x")).is_err());
    }

    #[test]
    fn rules_by_hand() {
        let with = |rule: &str| ContainerSpec { device_cgroup_rules: vec![rule.into()], ..ContainerSpec::default() };
        let devices = of(&with("c 10:* rw")).unwrap();
        let last = devices.rules.last().unwrap();
        assert_eq!((last.major(), last.minor(), last.access().as_deref()), (Some(10), None, Some("rw")));
        for text in ["c 10 rw", "x 1:1 r", "c 1:1 q", "c 1:1", "c -1:1 r"] {
            let refused = check(&[], &[text.into()]).unwrap_err().to_string();
            assert_eq!(refused, format!("invalid device cgroup format '{text}'"));
        }
    }
}

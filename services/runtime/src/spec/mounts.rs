//! What is mounted in the container, in the order in which it is: the system's own mounts, then the user's and the files
//! with the container's names, shallow before deep.

use std::path::{Path, PathBuf};

use berth_proto::berth::runtime::v1::{self as proto, ContainerSpec};
use oci_spec::runtime::Mount;

use super::{Error, Input, process::INIT, tmpfs};

/// What the network tells the container, and where programs look for it.
const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];
/// Mounts of the system that a read-only root leaves writable.
const ALWAYS_WRITABLE: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];

/// All mounts, and the propagation that the root needs for them; `None` for the usual.
pub(super) fn of(input: &Input<'_>) -> Result<(Vec<Mount>, Option<String>), Error> {
    let (users, propagation) = users(input)?;
    let over = |destination: &str| users.iter().any(|mount| mount.destination() == Path::new(destination));
    let mut mounts: Vec<Mount> = system(input)
        .into_iter()
        // Whoever brings a /dev of their own brings what is in it.
        .filter(|(at, ..)| !(over(at) || at.starts_with("/dev/") && over("/dev")))
        .map(|(at, typ, source, options)| mount(Path::new(at), typ, &source, options))
        .collect();
    mounts.extend(users);
    Ok((mounts, propagation))
}

type System = (&'static str, &'static str, PathBuf, Vec<String>);

fn system(input: &Input<'_>) -> Vec<System> {
    let spec = input.spec;
    let words = |options: &str| options.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut mounts: Vec<System> = [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        // It shows the queues of the namespace that it is mounted from.
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    ]
    .map(|(at, typ, source, options)| (at, typ, source.into(), words(options)))
    .into();
    let of_another = |source: &Path| ("/dev/shm", "bind", source.into(), words("rbind,rprivate,nosuid,noexec,nodev"));
    match &*spec.ipc_mode {
        "none" => {}
        "host" => mounts.push(of_another(Path::new("/dev/shm"))),
        mode if mode.starts_with("container:") => mounts.push(of_another(input.shm)),
        _ => {
            let size = if spec.shm_size == 0 { 64 << 20 } else { spec.shm_size };
            let options = words(&format!("nosuid,noexec,nodev,mode=1777,size={size}"));
            mounts.push(("/dev/shm", "tmpfs", "shm".into(), options));
        }
    }
    for (at, _, _, options) in &mut mounts {
        if spec.read_only && !ALWAYS_WRITABLE.contains(at) && !options.iter().any(|option| option == "ro") {
            options.push("ro".into());
        }
        if spec.privileged && matches!(*at, "/sys" | "/sys/fs/cgroup") {
            options.retain(|option| option != "ro");
        }
    }
    mounts
}

fn users(input: &Input<'_>) -> Result<(Vec<Mount>, Option<String>), Error> {
    let spec = input.spec;
    let mut mounts = Vec::new();
    let mut propagation = None;
    for point in input.mounts.iter().filter(|point| point.r#type != "tmpfs") {
        let mode = if point.propagation.is_empty() { "rprivate" } else { &point.propagation };
        match mode {
            "shared" | "rshared" => propagation = Some("shared".to_owned()),
            "slave" | "rslave" if propagation.is_none() => propagation = Some("rslave".to_owned()),
            _ => {}
        }
        mounts.push(bind(&clean(&point.destination), Path::new(&point.source), mode, point.read_write));
    }
    for given in spec.mounts.iter().filter(|given| given.r#type() == proto::mount::Type::Tmpfs) {
        mounts.push(mount(&clean(&given.target), "tmpfs", Path::new("tmpfs"), tmpfs::options(given)?));
    }
    for (name, at) in FILES {
        let at = Path::new(at);
        if !mounts.iter().any(|mount| mount.destination() == at) {
            mounts.push(bind(at, &input.files.join(name), "rprivate", !spec.read_only));
        }
    }
    if spec.init {
        mounts.push(bind(Path::new(INIT), input.init, "rprivate", false));
    }
    // What lies deeper would be hidden by what is mounted above it later.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok((mounts, propagation))
}

fn bind(destination: &Path, source: &Path, propagation: &str, writable: bool) -> Mount {
    let mut options = vec!["rbind".to_owned(), propagation.to_owned()];
    if !writable {
        // With everything that is mounted beneath.
        options.extend(["ro".to_owned(), "rro".to_owned()]);
    }
    mount(destination, "bind", source, options)
}

fn mount(destination: &Path, typ: &str, source: &Path, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(typ.into()))
        .set_source(Some(source.into()))
        .set_options(Some(options));
    mount
}

/// Without double and trailing slashes, `.` and `..`.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            name => clean.push(name),
        }
    }
    clean
}

/// Refuses mounts that cannot be meant.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), Error> {
    for given in &spec.mounts {
        let target = &given.target;
        if !target.starts_with('/') {
            return Err(Error::invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
        }
        if clean(target) == Path::new("/") {
            return Err(Error::invalid("invalid specification: destination can't be '/'"));
        }
        if !matches!(&*given.propagation, "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") {
            return Err(Error::invalid(format!("invalid propagation mode: {}", given.propagation)));
        }
        if given.r#type() == proto::mount::Type::Tmpfs {
            tmpfs::options(given)?;
        }
    }
    Ok(())
}

/// What is mounted where, for the tests of others.
#[cfg(test)]
pub(super) fn point(source: &str, destination: &str, read_write: bool) -> proto::MountPoint {
    proto::MountPoint {
        r#type: "bind".into(),
        source: source.into(),
        destination: destination.into(),
        read_write,
        ..proto::MountPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(input: &Input<'_>) -> Vec<String> {
        let line = |mount: &Mount| {
            let options = mount.options().clone().unwrap_or_default().join(",");
            format!("{} {} {options}", mount.destination().display(), mount.source().as_ref().unwrap().display())
        };
        of(input).unwrap().0.iter().map(line).collect()
    }

    #[test]
    fn the_systems_own_come_first() {
        let spec = ContainerSpec { shm_size: 4096, ..ContainerSpec::default() };
        let mounts = listed(&Input::of(&spec));
        assert_eq!(mounts[0], "/proc proc nosuid,noexec,nodev");
        assert!(mounts.contains(&"/sys sysfs nosuid,noexec,nodev,ro".into()));
        assert!(mounts.contains(&"/dev/shm shm nosuid,noexec,nodev,mode=1777,size=4096".into()));
        assert_eq!(mounts.last().unwrap(), "/etc/resolv.conf /files/resolv.conf rbind,rprivate");
    }

    #[test]
    fn the_users_replace_them() {
        let spec = ContainerSpec { read_only: true, ..ContainerSpec::default() };
        let points = [
            point("/h/deep", "/data/a/b", false),
            point("/h/top", "/data/", true),
            point("/h/dev", "/dev", true),
            point("/h/hosts", "/etc/hosts", true),
        ];
        let mounts = listed(&Input { mounts: &points, ..Input::of(&spec) });
        assert!(!mounts.iter().any(|mount| mount.starts_with("/dev/")), "{mounts:?}");
        let place = |start: &str| mounts.iter().position(|mount| mount.starts_with(start)).unwrap();
        assert!(place("/data /h/top rbind,rprivate") < place("/data/a/b /h/deep rbind,rprivate,ro,rro"));
        assert_eq!(mounts.iter().filter(|mount| mount.starts_with("/etc/hosts ")).count(), 1);
        assert!(mounts.contains(&"/etc/hostname /files/hostname rbind,rprivate,ro,rro".into()));
    }

    #[test]
    fn privileged_may_write_to_sys_and_ipc_is_the_hosts() {
        let spec = ContainerSpec { privileged: true, ipc_mode: "host".into(), ..ContainerSpec::default() };
        let mounts = listed(&Input::of(&spec));
        assert!(mounts.contains(&"/sys sysfs nosuid,noexec,nodev".into()));
        assert!(mounts.contains(&"/sys/fs/cgroup cgroup nosuid,noexec,nodev".into()));
        assert!(mounts.contains(&"/dev/shm /dev/shm rbind,rprivate,nosuid,noexec,nodev".into()));
        assert!(mounts.contains(&"/dev/mqueue mqueue nosuid,noexec,nodev".into()));
    }

    #[test]
    fn an_init_comes_along_where_it_is_asked_for() {
        let spec = ContainerSpec { init: true, ..ContainerSpec::default() };
        let mounts = listed(&Input::of(&spec));
        assert!(mounts.contains(&"/sbin/docker-init /root/init rbind,rprivate,ro,rro".into()), "{mounts:?}");
        assert!(!listed(&Input::of(&ContainerSpec::default())).iter().any(|mount| mount.contains("init")));
    }

    #[test]
    fn shared_memory_is_where_the_mode_says() {
        let shm = |mode: &str| {
            let spec = ContainerSpec { ipc_mode: mode.into(), ..ContainerSpec::default() };
            listed(&Input::of(&spec)).into_iter().find(|mount| mount.starts_with("/dev/shm "))
        };
        assert_eq!(shm("none"), None);
        for own in ["", "private", "shareable"] {
            assert!(shm(own).unwrap().starts_with("/dev/shm shm "), "{own}");
        }
        assert!(shm("container:x").unwrap().starts_with("/dev/shm /bundle/shm rbind"));
    }

    #[test]
    fn shared_mounts_need_a_shared_root() {
        let spec = ContainerSpec::default();
        let with = |propagation: &str| {
            let point = proto::MountPoint { propagation: propagation.into(), ..point("/h", "/x", true) };
            of(&Input { mounts: &[point], ..Input::of(&spec) }).unwrap().1
        };
        assert_eq!(with(""), None);
        assert_eq!(with("rshared").as_deref(), Some("shared"));
        assert_eq!(with("rslave").as_deref(), Some("rslave"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |target: &str| {
            let mount = proto::Mount { target: target.into(), ..Default::default() };
            check(&ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() }).unwrap_err().to_string()
        };
        assert_eq!(refused("x"), "invalid mount path: 'x' mount path must be absolute");
        assert_eq!(refused("/a/.."), "invalid specification: destination can't be '/'");
        assert_eq!(clean("/a//b/./c/"), Path::new("/a/b/c"));
    }
}

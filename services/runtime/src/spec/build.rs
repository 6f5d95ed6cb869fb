//! The whole configuration of a container's bundle.

use std::path::Path;

use berth_core::bundle::{GROUP_ADD, ROOTFS};
use berth_proto::berth::runtime::v1::{ContainerSpec, MountPoint};
use oci_spec::runtime::{Linux, Root, Spec};

use super::{
    Error, capabilities, devices, host::Host, mounts, namespaces, process, resources, seccomp, security::Security,
};

const VERSION: &str = "1.0.2";
/// Tell about the machine, or about its other users.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Change the machine.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a configuration is made from.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) id: &'a str,
    /// Completed.
    pub(crate) spec: &'a ContainerSpec,
    /// The program and its arguments.
    pub(crate) args: &'a [String],
    /// Binds and volumes; temporary file systems are in the specification.
    pub(crate) mounts: &'a [MountPoint],
    pub(crate) network: Network,
    /// A process of the container whose pid namespace is shared.
    pub(crate) pid_of: Option<u32>,
    /// A process of the container whose ipc namespace is shared.
    pub(crate) ipc_of: Option<u32>,
    /// Where the shim puts the /dev/shm of the container whose ipc namespace is shared.
    pub(crate) shm: &'a Path,
    /// The program that is the first process of those that ask for one.
    pub(crate) init: &'a Path,
    /// Directory with `hosts`, `hostname` and `resolv.conf`.
    pub(crate) files: &'a Path,
    /// Where its cgroup lies, from the root of the hierarchies.
    pub(crate) cgroups_path: &'a Path,
}

/// Whose network it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// That of the namespace which the shim is given (also where another container has it too).
    Own,
    Host,
}

impl Input<'_> {
    /// What the container calls itself.
    pub(super) fn hostname(&self) -> String {
        if !self.spec.hostname.is_empty() {
            self.spec.hostname.clone()
        } else if self.network == Network::Host || self.spec.uts_mode == "host" {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            self.id.chars().take(12).collect()
        }
    }
}

/// Makes the configuration.
///
/// # Errors
/// A device is not there any more, or something cannot be meant that [`super::check()`] refuses too.
pub(crate) fn build(input: &Input<'_>) -> Result<Spec, Error> {
    build_on(input, &Host::look())
}

fn build_on(input: &Input<'_>, host: &Host) -> Result<Spec, Error> {
    let asked = input.spec;
    let security = Security::parse(&asked.security_opts)?;
    let capabilities = capabilities::of(asked.privileged, &asked.cap_add, &asked.cap_drop, host)?;
    let (mounts, propagation) = mounts::of(input)?;
    let mut root = Root::default();
    root.set_path(ROOTFS.into()).set_readonly(Some(asked.read_only));
    let mut spec = Spec::default();
    spec.set_version(VERSION.into())
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(process::of(input, &capabilities, &security, host)?))
        .set_hostname(Some(input.hostname()).filter(|_| asked.uts_mode != "host"))
        .set_domainname(Some(asked.domainname.clone()).filter(|name| !name.is_empty() && asked.uts_mode != "host"));
    let mut annotations = asked.annotations.clone();
    if !asked.group_add.is_empty() {
        annotations.insert(GROUP_ADD.to_owned(), asked.group_add.join(","));
    }
    spec.set_annotations(Some(annotations).filter(|annotations| !annotations.is_empty()));
    let devices = devices::of(asked)?;
    let mut resources = resources::of(&asked.resources.clone().unwrap_or_default(), host)?;
    resources.set_devices(Some(devices.rules));
    let (masked, read_only) = guarded(asked, &security);
    let some = |paths: Vec<String>| Some(paths).filter(|paths| !paths.is_empty());
    let mut linux = Linux::default();
    let mut sysctls = asked.sysctls.clone();
    // For OCI runtimes from before 1.1 of the specification, which know no `domainname`.
    if let Some(name) = spec.domainname() {
        sysctls.insert("kernel.domainname".into(), name.clone());
    }
    linux
        .set_sysctl(Some(sysctls).filter(|sysctls| !sysctls.is_empty()))
        .set_resources(Some(resources))
        .set_cgroups_path(Some(input.cgroups_path.into()))
        .set_namespaces(Some(namespaces::of(input, host)))
        .set_devices(Some(devices.files).filter(|files| !files.is_empty()))
        .set_rootfs_propagation(propagation)
        .set_masked_paths(some(masked))
        .set_readonly_paths(some(read_only));
    if !asked.privileged {
        linux.set_seccomp(seccomp::of(&security.seccomp, &capabilities, host)?);
    }
    spec.set_linux(Some(linux));
    Ok(spec)
}

/// What of /proc and /sys a container cannot see, and what it cannot change.
pub(crate) fn guarded_paths(asked: &ContainerSpec) -> (Vec<String>, Vec<String>) {
    Security::parse(&asked.security_opts).map_or_else(|_| Default::default(), |security| guarded(asked, &security))
}

fn guarded(asked: &ContainerSpec, security: &Security) -> (Vec<String>, Vec<String>) {
    if asked.privileged || security.system_paths_open {
        return Default::default();
    }
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    (owned(&MASKED), owned(&READ_ONLY))
}

#[cfg(test)]
impl<'a> Input<'a> {
    /// An ordinary container.
    pub(super) fn of(spec: &'a ContainerSpec) -> Self {
        Self {
            id: "0123456789abcdef",
            spec,
            args: &[],
            mounts: &[],
            network: Network::Own,
            pid_of: None,
            ipc_of: None,
            shm: Path::new("/bundle/shm"),
            init: Path::new("/root/init"),
            files: Path::new("/files"),
            cgroups_path: Path::new("/berth/x"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(spec: &ContainerSpec) -> Linux {
        build_on(&Input::of(spec), &Host::whole(true)).unwrap().linux().clone().unwrap()
    }

    #[test]
    fn an_ordinary_container_is_confined() {
        let asked = ContainerSpec { read_only: true, domainname: "d".into(), ..ContainerSpec::default() };
        let spec = build_on(&Input::of(&asked), &Host::whole(true)).unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("0123456789ab"));
        assert_eq!(spec.domainname().as_deref(), Some("d"));
        assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
        let linux = spec.linux().clone().unwrap();
        assert!(linux.seccomp().is_some() && linux.devices().is_none());
        assert_eq!(linux.masked_paths().as_ref().unwrap().len(), MASKED.len());
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/berth/x")));
        assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(false));
    }

    #[test]
    fn privileged_is_not() {
        let linux = linux(&ContainerSpec { privileged: true, ..ContainerSpec::default() });
        assert!(linux.seccomp().is_none() && linux.masked_paths().is_none() && linux.readonly_paths().is_none());
    }

    #[test]
    fn options_take_single_walls_down() {
        let with =
            |option: &str| linux(&ContainerSpec { security_opts: vec![option.into()], ..ContainerSpec::default() });
        assert!(with("seccomp=unconfined").seccomp().is_none());
        assert!(with("systempaths=unconfined").masked_paths().is_none());
        assert!(with("systempaths=unconfined").seccomp().is_some());
    }

    #[test]
    fn the_hosts_name_stays_the_hosts() {
        let asked = ContainerSpec { uts_mode: "host".into(), ..ContainerSpec::default() };
        assert_eq!(build_on(&Input::of(&asked), &Host::whole(true)).unwrap().hostname(), &None);
    }
}

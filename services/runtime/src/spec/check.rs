//! What is refused when a container is created, in Docker's words.

use std::path::Path;

use berth_proto::berth::runtime::v1::ContainerSpec;
use oci_spec::runtime::Capability;

use super::{
    Error, capabilities, complete, devices, health, host::Host, log, mounts, namespaces, resources, rlimits, seccomp,
    security::Security, sysctls,
};

/// Refuses what cannot be meant or cannot be done here; answers with warnings about what is left out.
///
/// # Errors
/// See [`Error`].
pub(crate) fn check(spec: &ContainerSpec) -> Result<Vec<String>, Error> {
    check_on(spec, &Host::look())
}

fn check_on(spec: &ContainerSpec, host: &Host) -> Result<Vec<String>, Error> {
    texts(spec)?;
    complete::check_working_dir(&spec.working_dir)?;
    let mut warnings = resources::check(&spec.resources.clone().unwrap_or_default(), host)?;
    if let Some(score) = spec.oom_score_adj {
        if !(-1000..=1000).contains(&score) {
            return Err(Error::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")));
        }
        if score < host.oom_score_adj && !host.has(Capability::SysResource) {
            warnings.push(format!("oom-score-adj cannot be lowered on this machine: it stays {}", host.oom_score_adj));
        }
    }
    capabilities::of(spec.privileged, &spec.cap_add, &spec.cap_drop, host)?;
    let missing = capabilities::not_to_be_had(&spec.cap_add, host);
    if !missing.is_empty() {
        warnings.push(format!("capabilities that this machine does not have are left out: {}", missing.join(", ")));
    }
    let security = Security::parse(&spec.security_opts)?;
    seccomp::check(&security.seccomp)?;
    if let Some(profile) = security.apparmor.filter(|_| !host.apparmor) {
        warnings.push(format!("AppArmor is not enabled on this machine: the profile {profile} confines nothing"));
    }
    namespaces::check(spec)?;
    if spec.network_mode == "host" && !spec.ports.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    sysctls::check(spec)?;
    rlimits::of(&spec.ulimits)?;
    mounts::check(spec)?;
    devices::check(&spec.devices, &spec.device_cgroup_rules)?;
    annotations(spec)?;
    log::log(spec, Path::new("/"))?;
    groups(spec)?;
    health::check(spec)?;
    Ok(warnings)
}

/// The kernel ends every text at a zero byte: what comes after it would be lost.
fn texts(spec: &ContainerSpec) -> Result<(), Error> {
    let lists = [&spec.entrypoint, &spec.command, &spec.env].into_iter().flatten();
    if lists.chain([&spec.working_dir, &spec.user, &spec.hostname]).any(|text| text.contains('\0')) {
        return Err(Error::invalid(
            "arguments, environment, user, working directory and names cannot hold a zero byte",
        ));
    }
    let nameless = |variable: &&String| variable.is_empty() || variable.starts_with('=');
    match spec.env.iter().find(nameless) {
        Some(variable) => Err(Error::invalid(format!("invalid environment variable: {variable}"))),
        None => Ok(()),
    }
}

/// Names that begin with "berth." are this node's own words to its runtime.
fn annotations(spec: &ContainerSpec) -> Result<(), Error> {
    match spec.annotations.keys().find(|name| name.is_empty() || name.starts_with("berth.")) {
        Some(name) => {
            Err(Error::invalid(format!("invalid annotation {name:?}: it is empty, or begins with \"berth.\"")))
        }
        None => Ok(()),
    }
}

fn groups(spec: &ContainerSpec) -> Result<(), Error> {
    let wrong = |group: &&String| group.is_empty() || group.contains([',', ':', '\n', '\0']);
    match spec.group_add.iter().find(wrong) {
        Some(group) => Err(Error::invalid(format!("invalid group: {group:?}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::{Mount, PortMapping, Resources, Ulimit};

    use super::*;

    fn refusal(spec: ContainerSpec) -> String {
        check_on(&spec, &Host::whole(false)).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_wrong_with_nothing() {
        assert!(check_on(&ContainerSpec::default(), &Host::whole(false)).unwrap().is_empty());
        check(&ContainerSpec::default()).unwrap();
    }

    #[test]
    fn every_part_is_asked() {
        let none = ContainerSpec::default;
        let texts = |text: &str| vec![text.to_owned()];
        let small = Resources { memory: 1024, ..Resources::default() };
        let limit = Ulimit { name: "x".into(), ..Ulimit::default() };
        let relative = Mount { target: "x".into(), ..Mount::default() };
        for (spec, text) in [
            (ContainerSpec { resources: Some(small), ..none() }, "Minimum memory limit allowed is 6MB"),
            (ContainerSpec { cap_add: texts("fly"), ..none() }, "unknown capability"),
            (ContainerSpec { security_opts: texts("x=y"), ..none() }, "invalid --security-opt 2"),
            (ContainerSpec { security_opts: texts("seccomp={"), ..none() }, "decoding seccomp profile failed"),
            (ContainerSpec { sysctls: [("vm.x".into(), "1".into())].into(), ..none() }, "is not allowed"),
            (ContainerSpec { ulimits: vec![limit], ..none() }, "invalid ulimit type: x"),
            (ContainerSpec { mounts: vec![relative], ..none() }, "mount path must be absolute"),
            (ContainerSpec { working_dir: "x".into(), ..none() }, "needs to be an absolute path"),
            (ContainerSpec { oom_score_adj: Some(1001), ..none() }, "range for oom score adj"),
            (ContainerSpec { env: texts("=x"), ..none() }, "invalid environment variable: =x"),
            (ContainerSpec { command: texts("a\0b"), ..none() }, "zero byte"),
            (ContainerSpec { group_add: texts("a,b"), ..none() }, "invalid group"),
            (ContainerSpec { pid_mode: "x".into(), ..none() }, "invalid PID mode: x"),
        ] {
            let refusal = refusal(spec);
            assert!(refusal.contains(text), "{refusal}");
        }
    }

    #[test]
    fn ports_of_the_hosts_network_are_its_own() {
        let ports = vec![PortMapping { container_port: 80, ..PortMapping::default() }];
        let on = |network_mode: &str| {
            let spec = ContainerSpec { network_mode: network_mode.into(), ports: ports.clone(), ..Default::default() };
            check_on(&spec, &Host::whole(false)).unwrap()
        };
        assert_eq!(on("host"), ["Published ports are discarded when using host network mode"]);
        assert!(on("").is_empty());
    }

    #[test]
    fn what_the_machine_lacks_is_a_warning() {
        let mut host = Host::whole(false);
        host.capabilities = 0;
        let spec = ContainerSpec {
            cap_add: vec!["SYS_RESOURCE".into()],
            security_opts: vec!["apparmor=p".into()],
            oom_score_adj: Some(-1),
            ..ContainerSpec::default()
        };
        assert_eq!(check_on(&spec, &host).unwrap().len(), 3);
    }
}

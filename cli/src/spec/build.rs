//! From flags to a container's specification.

use std::{collections::HashMap, fs};

use berth_proto::berth::runtime::v1::{ContainerSpec, LogConfig};

use super::{
    env, health,
    limits::{self, number},
    mount, network, port, rates, unsupported,
};
use crate::{args::Given, outcome::Error};

/// The specification that the flags and operands of `run` and `create` mean. `--publish-all` is not in it.
///
/// # Errors
/// A value that cannot be meant, or a flag that cannot be passed on.
pub(crate) fn build(given: &Given) -> Result<ContainerSpec, Error> {
    unsupported::refuse(given)?;
    let mut operands = given.operands();
    let image = if operands.is_empty() { String::new() } else { operands.remove(0) };
    let open_stdin = given.on("interactive");
    let attached = !given.on("detach");
    let restart_policy = given.text_or_empty("restart");
    check_restart(&restart_policy)?;
    if given.on("rm") && !matches!(restart_policy.as_str(), "" | "no") {
        return Err(Error::Invalid("conflicting options: cannot specify both --restart and --rm".into()));
    }
    let (network_mode, networks) = network::networks(given)?;
    let spec = ContainerSpec {
        image,
        entrypoint: given.text("entrypoint").map(|program| vec![program.to_owned()]).unwrap_or_default(),
        command: operands,
        env: env::all(&given.all("env-file"), &given.all("env"))?,
        working_dir: working_dir(given)?,
        user: given.text_or_empty("user"),
        hostname: given.text_or_empty("hostname"),
        domainname: given.text_or_empty("domainname"),
        tty: given.on("tty"),
        open_stdin,
        stdin_once: open_stdin && attached,
        labels: env::labels(&given.all("label-file"), &given.all("label"))?,
        stop_signal: given.text_or_empty("stop-signal"),
        stop_timeout: number(given, "stop-timeout")?,
        auto_remove: given.on("rm"),
        read_only: given.on("read-only"),
        privileged: given.on("privileged"),
        cap_add: given.owned("cap-add"),
        cap_drop: given.owned("cap-drop"),
        security_opts: given.all("security-opt").into_iter().map(security).collect::<Result<_, _>>()?,
        group_add: given.owned("group-add"),
        sysctls: pairs(given, "sysctl")?,
        ulimits: each(given, "ulimit", limits::ulimit)?,
        resources: Some(limits::resources(given)?),
        mounts: mounts(given)?,
        volumes_from: given.owned("volumes-from"),
        devices: each(given, "device", limits::device)?,
        shm_size: limits::bytes(given, "shm-size")?.unsigned_abs(),
        network_mode,
        networks,
        ports: each(given, "publish", port::publish)?.into_iter().flatten().collect(),
        dns: each(given, "dns", network::resolver)?,
        dns_search: given.owned("dns-search"),
        dns_options: given.owned("dns-option"),
        extra_hosts: each(given, "add-host", network::extra_host)?,
        pid_mode: mode(given, "pid", "PID", &["host"])?,
        ipc_mode: mode(given, "ipc", "IPC", &["none", "private", "shareable", "host"])?,
        uts_mode: mode(given, "uts", "UTS", &["host"])?,
        userns_mode: mode(given, "userns", "USER", &["host"])?,
        cgroupns_mode: mode(given, "cgroupns", "CGROUP", &["private", "host"])?,
        oom_score_adj: oom_score(given)?,
        cgroup_parent: given.text_or_empty("cgroup-parent"),
        runtime: given.text_or_empty("runtime"),
        platform: given.text_or_empty("platform"),
        log: Some(LogConfig { driver: given.text_or_empty("log-driver"), options: pairs(given, "log-opt")? }),
        restart_policy,
        init: given.on("init"),
        annotations: loose_pairs(given, "annotation"),
        device_cgroup_rules: each(given, "device-cgroup-rule", rates::rule)?,
        health_check: health::check(given)?,
        storage_opts: pairs(given, "storage-opt")?,
        exposed_ports: exposed(given)?.into_iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect(),
    };
    if spec.image.is_empty() {
        return Err(Error::Invalid("invalid reference format: the image is empty".into()));
    }
    Ok(spec)
}

/// Reads each value of a list.
fn each<T>(given: &Given, flag: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Error> {
    let named = |text: &str| {
        read(text).map_err(|why| Error::Invalid(format!("invalid argument \"{text}\" for \"--{flag}\" flag: {why}")))
    };
    given.all(flag).into_iter().map(named).collect()
}

fn mounts(given: &Given) -> Result<Vec<berth_proto::berth::runtime::v1::Mount>, Error> {
    let mut mounts = each(given, "volume", mount::volume)?;
    mounts.extend(each(given, "mount", mount::long)?);
    mounts.extend(each(given, "tmpfs", mount::tmpfs)?);
    let mut targets = std::collections::BTreeSet::new();
    match mounts.iter().find(|mount| !targets.insert(mount.target.trim_end_matches('/').to_owned())) {
        Some(twice) => Err(Error::Invalid(format!("Duplicate mount point: {}", twice.target))),
        None => Ok(mounts),
    }
}

fn working_dir(given: &Given) -> Result<String, Error> {
    let directory = given.text_or_empty("workdir");
    if !directory.is_empty() && !directory.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory '{directory}' is invalid, it needs to be an absolute path"
        )));
    }
    Ok(directory)
}

fn pairs(given: &Given, flag: &str) -> Result<HashMap<String, String>, Error> {
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=value".to_owned()),
    };
    Ok(each(given, flag, pair)?.into_iter().collect())
}

/// As [`pairs`], where a name alone has an empty value.
fn loose_pairs(given: &Given, flag: &str) -> HashMap<String, String> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    given.all(flag).into_iter().map(pair).collect()
}

/// The ports of `--expose`.
fn exposed(given: &Given) -> Result<Vec<(u16, String)>, Error> {
    Ok(each(given, "expose", port::expose)?.into_iter().flatten().collect())
}

/// A kind of namespace: whose it is, in one of the words that there are for it. Docker's words for a wrong one.
fn mode(given: &Given, flag: &str, kind: &str, known: &[&str]) -> Result<String, Error> {
    let text = given.text_or_empty(flag);
    let container =
        matches!(flag, "pid" | "ipc") && text.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if text.is_empty() || known.contains(&text.as_str()) || container {
        return Ok(text);
    }
    Err(Error::Invalid(format!("--{flag}: invalid {kind} mode")))
}

fn oom_score(given: &Given) -> Result<Option<i32>, Error> {
    let score: Option<i32> = number(given, "oom-score-adj")?;
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::Invalid(format!("invalid value {score}, range for oom score adj is [-1000, 1000]")))
        }
        score => Ok(score),
    }
}

/// Whether this can be a restart policy.
///
/// # Errors
/// It cannot.
pub(crate) fn check_restart(policy: &str) -> Result<(), Error> {
    let retries = policy.strip_prefix("on-failure:").is_some_and(|n| n.parse::<u32>().is_ok());
    if matches!(policy, "" | "no" | "always" | "unless-stopped" | "on-failure") || retries {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "invalid restart policy: {policy:?}; use one of 'no', 'always', 'on-failure[:N]', or 'unless-stopped'"
    )))
}

/// A security option; a seccomp profile's file is read here, because it lies with the caller.
fn security(text: &str) -> Result<String, Error> {
    let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    if name != "seccomp" || matches!(value, "unconfined" | "builtin") || value.starts_with('{') {
        let joined = if value.is_empty() { name.to_owned() } else { format!("{name}={value}") };
        return Ok(joined);
    }
    let bytes = fs::read(value).map_err(Error::io(format!("opening seccomp profile ({value}) failed")))?;
    let profile: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Invalid(format!("the seccomp profile ({value}) is not JSON: {error}")))?;
    Ok(format!("seccomp={profile}"))
}

/// The ports of `--publish-all`: what the image and `--expose` name, each on a free port of the host.
///
/// # Errors
/// A port that is none.
pub(crate) fn publish_all(given: &Given, exposed_by_image: &[String], spec: &mut ContainerSpec) -> Result<(), Error> {
    let of_image = exposed_by_image.iter().map(|text| port::expose(text)).collect::<Result<Vec<_>, _>>()?;
    for (port, protocol) in of_image.into_iter().flatten().chain(exposed(given)?) {
        let port = u32::from(port);
        if spec.ports.iter().all(|mapping| mapping.container_port != port || mapping.protocol != protocol) {
            spec.ports.push(berth_proto::berth::runtime::v1::PortMapping {
                container_port: port,
                protocol,
                ..Default::default()
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::args::{Global, Parsed, parse};

    fn spec(words: &[&str]) -> Result<ContainerSpec, Error> {
        let words: VecDeque<_> = ["run"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        match parse(&Global::default(), words)? {
            Parsed::Run { given, .. } => build(&given),
            Parsed::Print(_) => Err(Error::Said(0)),
        }
    }

    #[test]
    fn a_long_command_line() {
        let spec = spec(&[
            "-itd",
            "--rm",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "-p",
            "8000-8001:80-81",
            "-v",
            "data:/data",
            "--tmpfs",
            "/run",
            "-e",
            "A=1",
            "-l",
            "x=y",
            "--ulimit",
            "nofile=10",
            "--entrypoint",
            "",
            "-w",
            "/w",
            "--net",
            "host",
            "--oom-kill-disable",
            "--stop-timeout",
            "3",
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "--log-opt",
            "max-size=1m",
            "busybox",
            "sh",
            "-c",
            "exit 3",
        ])
        .unwrap();
        assert!(spec.tty && spec.open_stdin && !spec.stdin_once && spec.auto_remove);
        assert_eq!(spec.entrypoint, [""]);
        assert_eq!((spec.image.as_str(), spec.command.len(), spec.network_mode.as_str()), ("busybox", 3, "host"));
        assert_eq!((spec.ports.len(), spec.mounts.len(), spec.stop_timeout), (2, 2, Some(3)));
        let resources = spec.resources.unwrap();
        assert!(resources.memory == 64 << 20 && resources.nano_cpus == 500_000_000 && resources.oom_kill_disable);
    }

    #[test]
    fn what_cannot_be_meant_or_passed_on_is_said() {
        for (words, why) in [
            (&["-m", "x", "i"][..], "invalid size: 'x'"),
            (&["--health-cmd", "true", "--no-healthcheck", "i"], "--no-healthcheck conflicts with --health-* options"),
            (&["--health-interval", "-1s", "i"], "--health-interval cannot be negative"),
            (&["--health-timeout", "5", "i"], "for \"--health-timeout\" flag: time: invalid duration \"5\""),
            (&["--health-retries", "-1", "i"], "--health-retries cannot be negative"),
            (&["--annotation", "a=b", "--storage-opt", "size", "i"], "NAME=value"),
            (&["--restart", "never", "i"], "invalid restart policy"),
            (&["--restart", "always", "--rm", "i"], "conflicting options"),
            (&["-w", "rel", "i"], "absolute path"),
            (&["--pid", "x", "i"], "--pid: invalid PID mode"),
            (&["-v", "a0:/x", "-v", "b0:/x", "i"], "Duplicate mount point"),
            (&["--security-opt", "seccomp=/not/there.json", "i"], "/not/there.json"),
            (&["--cpus", "1", "--cpu-quota", "5", "i"], "conflicting options"),
            (&["--userns", "private", "i"], "--userns: invalid USER mode"),
            (&["--sysctl", "x", "i"], "NAME=value"),
            (&[""], "invalid reference format"),
        ] {
            let error = spec(words).unwrap_err().to_string();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_seccomp_profile_is_read_by_the_caller() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }").unwrap();
        let option = format!("seccomp={}", file.path().display());
        assert_eq!(security(&option).unwrap(), r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#);
        assert_eq!(security("no-new-privileges:true").unwrap(), "no-new-privileges=true");
        assert_eq!(security("seccomp=unconfined").unwrap(), "seccomp=unconfined");
    }

    proptest! {
        #[test]
        fn never_panics(flag in 0usize..100, value in "[a-z0-9=:,./-]{0,16}") {
            let flags = crate::spec::flags();
            let name = format!("--{}={value}", flags[flag % flags.len()].get_long().unwrap());
            let _ = spec(&[&name, "busybox"]);
        }
    }
}

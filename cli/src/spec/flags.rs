//! The flags that `run` and `create` share: all of Docker's.

use clap::Arg;

use super::unsupported;
use crate::args::flag::{list, switch, value};

/// All of them.
pub(crate) fn container() -> Vec<Arg> {
    let all = [identity(), process(), network(), storage(), limits(), isolation(), health_and_logs()].concat();
    // What is always refused is read, so that the refusal can say why, and shown to nobody.
    let hidden = |flag: &Arg| flag.is_hide_set() || flag.get_long().is_some_and(unsupported::is_refused);
    all.into_iter().map(|flag| flag.clone().hide(hidden(&flag))).collect()
}

fn identity() -> Vec<Arg> {
    vec![
        value("name", "string", "Name of the container (invented where none is given)"),
        value("hostname", "string", "Host name inside the container").short('h'),
        value("domainname", "string", "NIS domain name inside the container"),
        list("label", "list", "Label of the container (NAME=value)").short('l'),
        list("label-file", "list", "File with a label on each line"),
        list("annotation", "map", "Annotation for the OCI runtime"),
        value("cidfile", "string", "File to write the container's ID to; it must not exist"),
        value("platform", "string", "Platform of the image (os/architecture[/variant])"),
        value("pull", "string", "When to pull the image: always, missing or never (default \"missing\")"),
        switch("quiet", "No output of the pull").short('q'),
        switch("disable-content-trust", "Accepted for compatibility; without effect").hide(true),
    ]
}

fn process() -> Vec<Arg> {
    vec![
        list("attach", "list", "Attach to stdin, stdout or stderr only").short('a'),
        switch("interactive", "Keep standard input open").short('i'),
        switch("tty", "Give the container a terminal").short('t'),
        value("entrypoint", "string", "Program to run instead of the image's entry point"),
        list("env", "list", "Environment variable (NAME=value, or NAME for the caller's value)").short('e'),
        list("env-file", "list", "File with an environment variable on each line"),
        value("user", "string", "User and group, by name or number (user[:group])").short('u'),
        list("group-add", "list", "Further group, by name or number"),
        value("workdir", "string", "Working directory inside the container").short('w'),
        switch("init", "Run a small init as the first process, which passes on signals and reaps processes"),
        value("stop-signal", "string", "Signal that stops the container"),
        value("stop-timeout", "int", "Seconds until a stopping container is killed"),
        switch("rm", "Remove the container and its anonymous volumes when it ends"),
        value("restart", "string", "What to do when the container ends: no, always, unless-stopped, on-failure[:N]"),
        value("runtime", "string", "Runtime handler of the node's configuration"),
    ]
}

fn network() -> Vec<Arg> {
    vec![
        list("network", "network", "Network to connect to: bridge, host, none, container:NAME").alias("net"),
        list("network-alias", "list", "Further name on the network").alias("net-alias"),
        list("publish", "list", "Publish a port ([ip:][host[-range]:]container[-range][/protocol])").short('p'),
        switch("publish-all", "Publish all exposed ports on free ports of the host").short('P'),
        list("expose", "list", "Port or range to expose besides the image's"),
        list("add-host", "list", "Line for /etc/hosts (host:ip; host-gateway stands for the host)"),
        list("dns", "list", "Address of a name server"),
        list("dns-option", "list", "Option of the resolver").alias("dns-opt"),
        list("dns-search", "list", "Search domain"),
        value("ip", "ip", "IPv4 address"),
        value("ip6", "ip", "IPv6 address"),
        list("link", "list", "Link to another container"),
        list("link-local-ip", "list", "Link-local address"),
        value("mac-address", "string", "MAC address"),
    ]
}

fn storage() -> Vec<Arg> {
    vec![
        list("volume", "list", "Mount a host path or a volume ([source:]target[:options])").short('v'),
        list("mount", "mount", "Mount something (type=bind|volume|tmpfs,source=…,target=…,…)"),
        list("tmpfs", "list", "Mount a tmpfs (target[:options])"),
        list("volumes-from", "list", "Mount another container's volumes"),
        value("volume-driver", "string", "Driver of volumes"),
        switch("read-only", "Mount the root file system read-only"),
        value("shm-size", "bytes", "Size of /dev/shm"),
        list("storage-opt", "list", "Option of the storage driver (size=…, where it has one)"),
        list("device", "list", "Device of the host (host[:container][:rwm])"),
        list("device-cgroup-rule", "list", "Further rule of the device cgroup (c 1:3 rwm)"),
        value("gpus", "gpu-request", "GPUs"),
        switch("use-api-socket", "Mount the engine's socket"),
    ]
}

/// Limits that `update` can change, too.
pub(crate) fn changeable_limits() -> Vec<Arg> {
    vec![
        value("memory", "bytes", "Memory").short('m'),
        value("memory-reservation", "bytes", "Memory below which nothing is reclaimed"),
        value("memory-swap", "bytes", "Memory and swap together; -1 for no limit"),
        value("cpus", "decimal", "Number of CPUs"),
        value("cpu-shares", "int", "Weight among others").short('c'),
        value("cpu-period", "int", "Period of the CPU quota, in microseconds"),
        value("cpu-quota", "int", "CPU time in each period, in microseconds"),
        value("cpu-rt-period", "int", "Period of real-time scheduling, in microseconds"),
        value("cpu-rt-runtime", "int", "Real-time CPU time in each period, in microseconds"),
        value("cpuset-cpus", "string", "CPUs to run on (0-3, 0,1)"),
        value("cpuset-mems", "string", "Memory nodes to use (0-3, 0,1)"),
        value("pids-limit", "int", "Number of processes; -1 for no limit"),
        value("blkio-weight", "uint16", "Weight of block I/O (10 to 1000)"),
        value("kernel-memory", "bytes", "Accepted for compatibility; without effect").hide(true),
    ]
}

fn limits() -> Vec<Arg> {
    let mut flags = changeable_limits();
    flags.extend([
        value("memory-swappiness", "int", "How readily memory is swapped out (0 to 100)"),
        switch("oom-kill-disable", "No kill when memory runs out"),
        value("oom-score-adj", "int", "How readily the kernel kills it (-1000 to 1000)"),
        value("cpu-count", "int", "Number of CPUs (Windows)").hide(true),
        value("cpu-percent", "int", "Percent of the CPUs (Windows)").hide(true),
        list("ulimit", "ulimit", "Limit of each process (name=soft[:hard])"),
        list("blkio-weight-device", "list", "Weight of block I/O on a device (path:weight)"),
        list("device-read-bps", "list", "Bytes read from a device each second (path:bytes)"),
        list("device-read-iops", "list", "Reads from a device each second (path:number)"),
        list("device-write-bps", "list", "Bytes written to a device each second (path:bytes)"),
        list("device-write-iops", "list", "Writes to a device each second (path:number)"),
        value("io-maxbandwidth", "bytes", "Bandwidth of the system drive (Windows)").hide(true),
        value("io-maxiops", "uint", "Operations on the system drive (Windows)").hide(true),
        value("cgroup-parent", "string", "Parent cgroup"),
    ]);
    flags
}

fn isolation() -> Vec<Arg> {
    vec![
        list("cap-add", "list", "Capability to add"),
        list("cap-drop", "list", "Capability to drop"),
        switch("privileged", "All capabilities, all devices, no confinement"),
        list(
            "security-opt",
            "list",
            "no-new-privileges, seccomp=FILE|unconfined, apparmor=NAME, systempaths=unconfined",
        ),
        list("sysctl", "map", "Kernel parameter of the container's namespaces (name=value)"),
        value("pid", "string", "Process namespace: host or container:NAME"),
        value("ipc", "string", "IPC namespace: private, shareable, none, host or container:NAME"),
        value("uts", "string", "UTS namespace: host"),
        value("userns", "string", "User namespace: host"),
        value("cgroupns", "string", "Cgroup namespace: private or host"),
        value("isolation", "string", "Kind of isolation (Windows)").hide(true),
    ]
}

fn health_and_logs() -> Vec<Arg> {
    vec![
        value("health-cmd", "string", "Command that checks the container's health"),
        value("health-interval", "duration", "Time between checks"),
        value("health-retries", "int", "Failures until it counts as unhealthy"),
        value("health-start-interval", "duration", "Time between checks at the start"),
        value("health-start-period", "duration", "Time in which failures do not count"),
        value("health-timeout", "duration", "Time a check may take"),
        switch("no-healthcheck", "No health check, whatever the image says"),
        value("log-driver", "string", "Where output goes: json-file or none"),
        list("log-opt", "list", "Option of the log driver (name=value)"),
    ]
}

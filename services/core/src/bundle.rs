//! A container's bundle directory: what the runtime service and the shim agree on beyond the OCI bundle itself.
//!
//! The runtime service makes the directory and fills it before it starts the shim; the shim alone writes
//! [`EXIT`], [`SHIM_PID`], [`INIT_PID`] and [`SPANS`]; [`NAMES`] the service may write at any time. The directory lives on
//! the state file system and is gone after a reboot, as the processes are. A bundle without [`OPTIONS`] comes from another
//! runtime service (containerd): the shim then does exactly what shim v2 says, with the standard streams named in its
//! requests.
//!
//! The order of things, with a bundle of ours:
//!
//! 1. The runtime service writes [`CONFIG`] and [`OPTIONS`], listens on [`SHIM_SOCKET`], and executes the shim from a
//!    sealed copy: `containerd-shim-berth-v2 -namespace berth -id ID -bundle BUNDLE serve`, the bundle as its working
//!    directory, a session of its own, [`SHIM_LOG`] as standard output and error, the listening socket as descriptor
//!    [`SHIM_SOCKET_FD`] and, where the configuration's network namespace is `/proc/self/fd/4`, that namespace as
//!    descriptor [`NETNS_FD`].
//! 2. Over the socket it speaks `containerd.task.v2.Task`. `Create` carries the mounts of the root file system; its
//!    streams are empty, because [`Options`] says where they go. Whoever shall see the first byte attaches between
//!    `Create` and `Start`. `Wait` answers when [`EXIT`] is there. `Delete`, then `Shutdown`, end it.
//! 3. `Exec` carries an OCI process as JSON; `stdin`, `stdout` and `stderr` are empty for `/dev/null` or
//!    [`ATTACHED`], which means a client of [`ATTACH_SOCKET`] whose hello names the exec ID and which comes between
//!    `Exec` and `Start`.
//! 4. A failure is a ttrpc status: `NOT_FOUND` the program is not there (exit code 127) or there is no such process,
//!    `PERMISSION_DENIED` the program cannot be executed (126), `FAILED_PRECONDITION` not running or paused,
//!    `INVALID_ARGUMENT` the configuration cannot be used, `UNIMPLEMENTED` not possible here, else `INTERNAL`.
//! 5. The metadata of a request may carry `traceparent` (W3C Trace Context); the shim's span of it is in [`SPANS`].
//! 6. Where [`NAMES`] is there at `Create`, the shim answers on [`NAME_SERVER`] in the container's network namespace; it
//!    looks at the file, and at the [`Zone`]s that it names, for each query anew, so that a rename is all it takes to
//!    change them. Where the file comes to be later (a running container is connected to its first network that has
//!    names), an `Update` whose annotations have [`NAMES_CAME`] tells. Who writes it sees to it that the namespace is this
//!    container's own.
//! 7. A shim that died without [`EXIT`], or hangs, is cleaned up after by `containerd-shim-berth-v2 … delete`, which
//!    kills what is left of it. One that nobody tells to create anything for a minute ends by itself.
//!
//! Sockets in the directory are reached by a path relative to it or through `/proc/self/fd/N/`, because a socket's
//! address holds 107 bytes and a bundle's path may be longer.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The OCI runtime configuration.
pub const CONFIG: &str = "config.json";
/// [`Options`], as JSON.
pub const OPTIONS: &str = "berth.json";
/// Where the shim mounts the root file system, in its own mount namespace.
pub const ROOTFS: &str = "rootfs";
/// Where the configuration finds another container's /dev/shm; see [`Options::shm_of`].
pub const SHM: &str = "shm";
/// ttrpc socket of the shim: the runtime service listens on it before the shim starts and hands it over as
/// descriptor [`SHIM_SOCKET_FD`].
pub const SHIM_SOCKET: &str = "shim.sock";
/// Where clients attach; see [`crate::stream`].
pub const ATTACH_SOCKET: &str = "attach.sock";
/// Pid of the shim and when it started, in ticks since the machine did (field 22 of `/proc/PID/stat`), as decimal text
/// with a space between; written before it serves.
pub const SHIM_PID: &str = "shim.pid";
/// Pid of the container's first process, as decimal text.
pub const INIT_PID: &str = "init.pid";
/// [`ExitRecord`] of the first process, as JSON; appears whole, by a rename, before anybody is told.
pub const EXIT: &str = "exit.json";
/// What the shim prints: nothing where all is well.
pub const SHIM_LOG: &str = "shim.log";
/// One [`Span`] a line, where [`Options::traced`].
pub const SPANS: &str = "spans.jsonl";

/// [`Names`], as JSON; written with [`write`], as often as need be. Without it nobody answers names.
pub const NAMES: &str = "names.json";
/// Where the shim answers names, in the container's network namespace: port 53, UDP and TCP.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Annotation of an `Update` of the container: [`NAMES`] is there now. It may come twice, and without any limits.
pub const NAMES_CAME: &str = "berth.names-came";

/// The descriptor on which a shim started with the argument `serve` finds its listening ttrpc socket.
pub const SHIM_SOCKET_FD: i32 = 3;
/// The descriptor on which it finds the network namespace that the configuration names as `/proc/self/fd/4`. The shim
/// closes it when the container is made, so that the namespace lives as long as the container's processes.
pub const NETNS_FD: i32 = 4;
/// What a stream of an exec request is called when a client of the attach socket is its other end.
pub const ATTACHED: &str = "attach";

/// Annotation of the configuration: the supplementary groups that the user asked for, separated by commas. The numbers
/// among them are in `process.user` too; names are looked up by the shim in the container's own files, for every process
/// of the container whose user has a name.
pub const GROUP_ADD: &str = "berth.group-add";

/// How the shim treats this container, beyond the OCI configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where output goes. Clients attach whatever this says.
    pub log: Log,
    /// Standard input stays open for clients to attach to; else it is `/dev/null`.
    pub open_stdin: bool,
    /// Standard input closes when the first client that attached to it closes it or goes away.
    pub stdin_once: bool,
    /// An OCI runtime binary to make the container with (`/usr/bin/runc`); `None` for the shim's own.
    pub oci_runtime: Option<String>,
    /// Directory for compiled seccomp programs, shared by all shims of the node.
    pub seccomp_cache: Option<String>,
    /// Spans are written to [`SPANS`].
    pub traced: bool,
    /// A process of another container, whose /dev/shm the shim makes visible at [`SHM`], in its own mount namespace, when
    /// it makes the container.
    pub shm_of: Option<u32>,
}

/// Where a container's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum Log {
    /// Nowhere.
    #[default]
    None,
    /// Docker's json-file: one [`LogLine`] a line.
    JsonFile {
        /// The file; its directory exists.
        path: String,
        /// Bytes after which a new file is begun, 0 for never.
        #[serde(default)]
        max_size: u64,
        /// How many files are kept, the current one included; at least 1.
        #[serde(default)]
        max_file: u32,
        /// What every line has besides: labels and variables of the container that were asked for.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        attributes: BTreeMap<String, String>,
    },
}

/// A line of a json-file log, as Docker writes it. A line of output longer than 16 KiB is split; only its last part
/// ends in a line feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine<'a> {
    /// The text with its line feed. Bytes that are no UTF-8 became U+FFFD.
    #[serde(borrow)]
    pub log: std::borrow::Cow<'a, str>,
    /// `stdout` or `stderr`.
    #[serde(borrow)]
    pub stream: std::borrow::Cow<'a, str>,
    /// What the log driver was asked to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
    /// RFC 3339 with nanoseconds, UTC; no two lines of a log have the same.
    #[serde(borrow)]
    pub time: std::borrow::Cow<'a, str>,
}

/// Which names a container can ask for, and who is asked for the others.
///
/// A name is looked for in `own`, then in the zones, in their order; the first that has it answers, and for
/// `name.zone` that zone alone. One that has no address of the family asked for exists without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Who only this container knows by these names (`--link`).
    pub own: Vec<Host>,
    /// Absolute paths of files that hold a [`Zone`] as JSON, one for each of the container's networks that has names, the
    /// most important first. They are shared by all containers of a network, and replaced by a rename. One that is not
    /// there has no names.
    pub zones: Vec<PathBuf>,
    /// Who is asked for other names, the first before the others.
    pub upstreams: Vec<Upstream>,
    /// Queries may leave the host. Else, as where all of the networks are internal, only upstreams in the container's
    /// own namespace are asked.
    pub forward: bool,
    /// The user set `ndots` above 0: names without a dot are not asked for outside, so that the search domains are tried.
    pub ndots: bool,
}

/// The names of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Zone {
    /// The network's own name: what `name.zone` ends with, and what the answer to a reverse query ends with.
    pub name: String,
    /// Those on the network.
    pub hosts: Vec<Host>,
}

/// Somebody with names and addresses. Names are compared without regard to case; several hosts may have the same, and are
/// then answered all together, in changing order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// What it is called where somebody asks for the name of an address.
    pub name: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
}

/// A name server outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its address and port, which is 53.
    pub address: SocketAddr,
    /// It is asked from the host's network namespace, as one at a loopback address of the host's must be.
    pub from_host: bool,
}

/// How a container's first process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Its pid in the host's namespace.
    pub pid: u32,
    /// 0–255; 128 + n after signal n.
    pub exit_code: u32,
    /// Nanoseconds since 1970.
    pub exited_at_ns: u64,
    /// The kernel's OOM killer struck in its cgroup.
    pub oom_killed: bool,
}

/// A finished span, for the runtime service to export: the shim is too small to speak OTLP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What was done.
    pub name: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits: the caller's span.
    pub parent_span_id: String,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
}

/// Reads a JSON file of the bundle; `None` where it is not there.
///
/// # Errors
/// The file cannot be read or is not the JSON it should be; the message names it.
pub fn read<T: DeserializeOwned>(bundle: &Path, name: &str) -> io::Result<Option<T>> {
    let path = bundle.join(name);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| named(e.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(named(e)),
    }
}

/// Writes a JSON file of the bundle so that it is there whole or not at all. It is not synced: after a power cut the
/// bundle's processes are gone as well.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn write<T: Serialize>(bundle: &Path, name: &str, value: &T) -> io::Result<()> {
    let path = bundle.join(name);
    let new = bundle.join(format!("{name}.new"));
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    fs::write(&new, serde_json::to_vec(value).map_err(io::Error::from).map_err(named)?).map_err(named)?;
    fs::rename(&new, &path).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(read::<ExitRecord>(bundle.path(), EXIT).unwrap(), None);
        let record = ExitRecord { pid: 7, exit_code: 137, exited_at_ns: 1, oom_killed: true };
        write(bundle.path(), EXIT, &record).unwrap();
        assert_eq!(read(bundle.path(), EXIT).unwrap(), Some(record));
        fs::write(bundle.path().join(EXIT), "{").unwrap();
        assert!(read::<ExitRecord>(bundle.path(), EXIT).unwrap_err().to_string().contains("exit.json"));
    }

    #[test]
    fn names_read_back() {
        let upstreams = vec![Upstream { address: "127.0.0.53:53".parse().unwrap(), from_host: true }];
        let names = Names { zones: vec!["/run/n.json".into()], upstreams, forward: true, ..Names::default() };
        let bundle = tempfile::tempdir().unwrap();
        write(bundle.path(), NAMES, &names).unwrap();
        assert_eq!(read(bundle.path(), NAMES).unwrap(), Some(names));
        let addresses = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let zone = Zone { name: "net".into(), hosts: vec![Host { name: "a".into(), aliases: vec![], addresses }] };
        let text = r#"{"name":"net","hosts":[{"name":"a","addresses":["10.0.0.2","fd00::2"]}]}"#;
        assert_eq!(serde_json::from_str::<Zone>(text).unwrap(), zone);
    }

    #[test]
    fn options_have_defaults_and_refuse_what_they_do_not_know() {
        assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
        assert!(serde_json::from_str::<Options>(r#"{"lgo":1}"#).is_err());
        let log: Log = serde_json::from_str(r#"{"driver":"json-file","path":"/x"}"#).unwrap();
        assert_eq!(log, Log::JsonFile { path: "/x".into(), max_size: 0, max_file: 0, attributes: BTreeMap::new() });
    }
}

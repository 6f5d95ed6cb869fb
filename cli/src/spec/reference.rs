//! Every flag of `docker run`'s reference with a value, and what becomes of it here: the test that none is forgotten.

use std::collections::{BTreeSet, VecDeque};

use berth_proto::berth::runtime::v1::ContainerSpec;

use super::*;
use crate::{
    args::{Global, Parsed, parse},
    outcome::Error,
};

/// What becomes of a flag.
enum Fate {
    /// It is in what the node is asked for.
    Passed,
    /// The command line itself does what it says.
    Ours,
    /// Taken, without effect: it says what is so anyway, or what no kernel does any more.
    Idle,
    /// Refused with a reason that has these words in it.
    Refused(&'static str),
}
use Fate::{Idle, Ours, Passed, Refused};

const WINDOWS: Fate = Refused("exists on Windows only");

#[rustfmt::skip]
const FLAGS: [(&str, &str, Fate); 104] = [
    ("add-host", "db:10.0.0.1", Passed),
    ("annotation", "a=b", Passed),
    ("attach", "stdout", Ours),
    ("blkio-weight", "10", Passed),
    ("blkio-weight-device", "/dev/sda:200", Passed),
    ("cap-add", "NET_ADMIN", Passed),
    ("cap-drop", "ALL", Passed),
    ("cgroup-parent", "/x", Passed),
    ("cgroupns", "host", Passed),
    ("cidfile", "/tmp/c", Ours),
    ("cpu-count", "1", WINDOWS),
    ("cpu-percent", "50", WINDOWS),
    ("cpu-period", "100000", Passed),
    ("cpu-quota", "50000", Passed),
    ("cpu-rt-period", "1000000", Passed),
    ("cpu-rt-runtime", "950000", Passed),
    ("cpu-shares", "512", Passed),
    ("cpus", "0.5", Passed),
    ("cpuset-cpus", "0", Passed),
    ("cpuset-mems", "0", Passed),
    ("detach", "true", Passed),
    ("detach-keys", "ctrl-a,d", Ours),
    ("device", "/dev/null", Passed),
    ("device-cgroup-rule", "c 1:3 rwm", Passed),
    ("device-read-bps", "/dev/sda:1mb", Passed),
    ("device-read-iops", "/dev/sda:100", Passed),
    ("device-write-bps", "/dev/sda:1mb", Passed),
    ("device-write-iops", "/dev/sda:100", Passed),
    ("disable-content-trust", "true", Idle),
    ("dns", "10.0.0.1", Passed),
    ("dns-option", "ndots:1", Passed),
    ("dns-search", "example.org", Passed),
    ("domainname", "example.org", Passed),
    ("entrypoint", "/bin/sh", Passed),
    ("env", "A=b", Passed),
    ("env-file", "/dev/null", Ours),
    ("expose", "80", Passed),
    ("gpus", "all", Refused("CDI")),
    ("group-add", "7", Passed),
    ("health-cmd", "true", Passed),
    ("health-interval", "1s", Passed),
    ("health-retries", "1", Passed),
    ("health-start-interval", "1s", Passed),
    ("health-start-period", "1s", Passed),
    ("health-timeout", "1s", Passed),
    ("help", "", Ours),
    ("hostname", "h", Passed),
    ("init", "true", Passed),
    ("interactive", "true", Passed),
    ("io-maxbandwidth", "1", WINDOWS),
    ("io-maxiops", "1", WINDOWS),
    ("ip", "10.0.0.1", Passed),
    ("ip6", "::1", Passed),
    ("ipc", "host", Passed),
    ("isolation", "process", WINDOWS),
    ("kernel-memory", "1g", Idle),
    ("label", "a=b", Passed),
    ("label-file", "/dev/null", Ours),
    ("link", "other", Refused("network of your own")),
    ("link-local-ip", "169.254.0.1", Refused("link-local addresses")),
    ("log-driver", "none", Passed),
    ("log-opt", "max-size=1m", Passed),
    ("mac-address", "02:42:ac:11:00:02", Passed),
    ("memory", "64m", Passed),
    ("memory-reservation", "32m", Passed),
    ("memory-swap", "-1", Passed),
    ("memory-swappiness", "0", Passed),
    ("mount", "type=tmpfs,target=/t", Passed),
    ("name", "n", Ours),
    ("network", "host", Passed),
    ("network-alias", "a", Passed),
    ("no-healthcheck", "true", Passed),
    ("oom-kill-disable", "true", Passed),
    ("oom-score-adj", "5", Passed),
    ("pid", "host", Passed),
    ("pids-limit", "10", Passed),
    ("platform", "linux/amd64", Passed),
    ("privileged", "true", Passed),
    ("publish", "8080:80", Passed),
    ("publish-all", "true", Ours),
    ("pull", "never", Ours),
    ("quiet", "true", Ours),
    ("read-only", "true", Passed),
    ("restart", "always", Passed),
    ("rm", "true", Passed),
    ("runtime", "runc", Passed),
    ("security-opt", "no-new-privileges", Passed),
    ("shm-size", "1m", Passed),
    ("sig-proxy", "false", Ours),
    ("stop-signal", "INT", Passed),
    ("stop-timeout", "1", Passed),
    ("storage-opt", "size=1g", Passed),
    ("sysctl", "net.ipv4.ip_forward=1", Passed),
    ("tmpfs", "/t", Passed),
    ("tty", "true", Passed),
    ("ulimit", "nofile=10", Passed),
    ("use-api-socket", "true", Refused("mount the node's socket")),
    ("user", "7", Passed),
    ("userns", "host", Passed),
    ("uts", "host", Passed),
    ("volume", "/v", Passed),
    ("volume-driver", "nfs", Refused("driver local")),
    ("volumes-from", "other", Passed),
    ("workdir", "/w", Passed),
];

/// What the node is asked for by these words; nothing where the command only prints.
fn asked(command: &str, words: &[&str]) -> Result<Option<ContainerSpec>, Error> {
    let words: VecDeque<_> = [command].iter().chain(words).map(|word| (*word).to_owned()).collect();
    match parse(&Global::default(), words)? {
        Parsed::Run { given, .. } => build(&given).map(Some),
        Parsed::Print(_) => Ok(None),
    }
}

#[test]
fn each_flag_of_the_reference_has_its_fate() {
    // -i shows what -d changes: whether standard input ends with the first client.
    let bare = asked("run", &["-i", "busybox"]).unwrap();
    for (flag, value, fate) in &FLAGS {
        let word = if value.is_empty() { format!("--{flag}") } else { format!("--{flag}={value}") };
        let asked = asked("run", &["-i", &word, "busybox"]);
        match (fate, asked) {
            // `-i` is on already.
            (Passed, Ok(spec)) => assert!(spec != bare || *flag == "interactive", "{word} is lost"),
            (Idle, Ok(spec)) => assert!(spec == bare, "{word} is not idle"),
            (Ours, Ok(_)) => {}
            (Refused(why), Err(error)) => {
                let error = error.to_string();
                assert!(error.contains(why) && error.contains(&format!("--{flag}")), "{word}: {error}");
            }
            (_, other) => panic!("{word}: {other:?}"),
        }
    }
}

#[test]
fn no_flag_is_missing_and_none_is_invented() {
    let reference: BTreeSet<_> = FLAGS.iter().map(|(flag, ..)| *flag).collect();
    // The two of them that the reference has dropped, and that Docker still takes.
    assert_eq!(reference.len(), 102 + 2);
    for command in ["run", "create"] {
        let entry = crate::commands::COMMANDS.iter().find(|entry| entry.paths[0] == command).unwrap();
        let ours: BTreeSet<_> =
            entry.parser(command).get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)).collect();
        let only_run = ["detach", "detach-keys", "sig-proxy"];
        let theirs: BTreeSet<_> = reference
            .iter()
            .filter(|flag| command == "run" || !only_run.contains(flag))
            .map(|flag| (*flag).to_owned())
            .collect();
        assert_eq!(ours, theirs, "{command}");
    }
}

//! Our engine and runc show a container the same.

use std::fs;

use serde_json::json;

use super::bundle::Bundle;

/// Runs it with both and compares what it prints.
#[track_caller]
fn agree(bundle: &Bundle) -> String {
    let ours = bundle.run(&[]);
    let theirs = bundle.run_with_runc();
    assert_eq!(ours.code, theirs.code, "ours: {ours:?}\nrunc: {theirs:?}");
    assert_eq!(ours.out, theirs.out, "\nours:\n{}{}\nrunc:\n{}{}", ours.out, ours.err, theirs.out, theirs.err);
    ours.out
}

#[test]
fn credentials() {
    let mut bundle =
        Bundle::script("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid|Umask)' /proc/self/status; id; env | sort");
    let root = agree(&bundle);
    assert!(root.contains("CapEff:\t00000000a80425fb"), "{root}");
    assert!(root.contains("Seccomp:\t2"), "{root}");
    bundle.config["process"]["user"] = json!({"uid": 33, "gid": 34, "additionalGids": [4, 99], "umask": 0o27});
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    let web = agree(&bundle);
    assert!(web.contains("NoNewPrivs:\t1") && web.contains("HOME=/var/www"), "{web}");
    bundle.config["process"]["capabilities"]["ambient"] = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["capabilities"]["inheritable"] = json!(["CAP_NET_BIND_SERVICE"]);
    let ambient = agree(&bundle);
    assert!(ambient.contains("CapAmb:\t0000000000000400"), "{ambient}");
    bundle.config["linux"].as_object_mut().unwrap().remove("seccomp");
    agree(&bundle);
}

#[test]
fn mounts() {
    // The directory above the v1 hierarchies is read-only with us and with some versions of runc, with others it is not.
    // Where it is, what it is, its own flags and the file system's; without ids and sizes that differ from run to run.
    let script = r#"while read id parent dev root place flags rest; do
        set -- $rest; while [ "$1" != - ]; do opt="$1"; shift; done
        case "$place" in /sys/fs/cgroup) ;; /) echo "/ $flags";; *) echo "$place $flags $2";; esac; done < /proc/self/mountinfo | sort"#;
    let mut bundle = Bundle::script(script);
    let host = bundle.path().join("shared");
    fs::create_dir(&host).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/data/ro", "type": "bind", "source": host, "options": ["rbind", "ro", "rprivate"]}),
    );
    mounts.push(
        json!({"destination": "/data/rw", "type": "bind", "source": host, "options": ["bind", "nosuid", "noexec"]}),
    );
    mounts.push(
        json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["noatime", "size=1m", "nodev"]}),
    );
    mounts.push(
        json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "rprivate"]}),
    );
    let seen = agree(&bundle);
    assert!(seen.contains("/data/ro ro"), "{seen}");
    bundle.config["root"]["readonly"] = json!(true);
    let seen = agree(&bundle);
    assert!(seen.contains("\n/ ro,") || seen.starts_with("/ ro,"), "{seen}");
}

#[test]
fn files_of_dev() {
    let script = "cd /dev; for f in *; do stat -c '%n %F %t:%T %a %u:%g' $f; readlink $f; done; ls pts shm mqueue; echo x > null";
    let mut bundle = Bundle::script(script);
    bundle.config["linux"]["devices"] = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 33, "gid": 34},
    ]);
    let seen = agree(&bundle);
    assert!(seen.contains("fuse character special file a:e5 640 33:34"), "{seen}");
}

#[test]
fn what_is_masked_and_what_is_read_only() {
    let script = "cat /proc/keys /proc/timer_list; ls /proc/scsi /proc/acpi; ls /sys/firmware; cat /proc/kcore;
        (echo 1 > /proc/sys/kernel/printk) 2>/dev/null || echo sys is read-only;
        (echo h > /proc/sysrq-trigger) 2>/dev/null || echo sysrq is read-only;
        (touch /sys/x) 2>/dev/null || echo sysfs is read-only; stat -c %t:%T /proc/kcore";
    let seen = agree(&Bundle::script(script));
    assert!(seen.contains("sys is read-only") && seen.contains("sysrq is read-only"), "{seen}");
}

#[test]
fn limits_names_and_parameters() {
    // Older versions of runc allow the network tunnel device to everybody; newer ones and we do not.
    let script =
        "ulimit -Sn; ulimit -Hn; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax;
        cat /proc/self/oom_score_adj; cd /sys/fs/cgroup; ls;
        cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us pids/pids.max cpuset/cpuset.cpus;
        sort devices/devices.list | grep -v 'c 10:200'; cat /proc/self/cgroup";
    let mut bundle = Bundle::script(script);
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmax": "67108864"});
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    bundle.config["linux"]["resources"]["cpu"]["cpus"] = json!("0");
    agree(&bundle);
}

#[test]
fn working_directory_streams_and_exit_codes() {
    let mut bundle = Bundle::script("pwd; cat; ls -l /proc/self/fd | grep -c pipe; exit 42");
    bundle.config["process"]["cwd"] = json!("/made/for/it");
    let ours = bundle.run(&[]);
    assert_eq!((ours.code, ours.out.lines().next()), (Some(42), Some("/made/for/it")), "{ours:?}");
    let script = "kill -9 $$";
    let bundle = Bundle::script(script);
    // The first process of a pid namespace is safe from its own signals, with both.
    agree(&bundle);
    // Of all that the shim has open, nothing remains.
    let bundle = Bundle::script("ls /proc/self/fd");
    assert_eq!(bundle.run(&[]).ok(), "0\n1\n2\n3\n");
}

#[test]
fn namespaces() {
    let names = ["mnt", "net", "uts", "pid", "ipc", "cgroup"];
    let script = format!("for n in {}; do readlink /proc/self/ns/$n; done", names.join(" "));
    let seen = Bundle::script(&script).run(&[]).ok();
    for (name, line) in names.iter().zip(seen.lines()) {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(own.to_str().unwrap(), line, "{name} is the host's");
    }
    let mut bundle = Bundle::script(&script);
    bundle.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "uts"}, {"type": "ipc", "path": "/proc/self/ns/ipc"},
        {"type": "network", "path": "/proc/self/ns/net"}, {"type": "pid", "path": "/proc/self/ns/pid"},
    ]);
    bundle.config["linux"].as_object_mut().unwrap().remove("sysctl");
    let seen = bundle.run(&[]).ok();
    for (name, line) in names.iter().zip(seen.lines()) {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let joined = ["net", "pid", "ipc", "cgroup"].contains(name);
        assert_eq!(own.to_str().unwrap() == line, joined, "{name}: {line}");
    }
}

#[test]
fn user_namespaces() {
    let mut bundle = Bundle::script(
        "cat /proc/self/uid_map; id -u; echo x > /dev/null && stat -c %u /bin/busybox; touch /tmp/x && stat -c %u /tmp/x",
    );
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(bundle.root()).status().unwrap();
    std::process::Command::new("chmod").arg("755").arg(bundle.path()).status().unwrap();
    let seen = bundle.run(&[]).ok();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0", "0", "0"]);
}

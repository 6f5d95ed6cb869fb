//! Namespaces that are another container's, or the host's.

use std::fs;

use berth_tests::{Node, Setup};

use crate::node;

on_both_runtimes!(ipc_is_shared_by_those_who_may, pids_are_shared, namespaces_of_the_host);

/// What namespace a process of the container is in.
fn namespace(node: &Node, name: &str, kind: &str) -> String {
    let pid = node.inspect(name, "{{.State.Pid}}");
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

fn ipc_is_shared_by_those_who_may(setup: Setup) {
    let node = node(setup);
    let run = |name: &str, ipc: &str| {
        let words = ["run", "-d", "--name", name, "--ipc", ipc, "busybox", "sleep", "1000"];
        node.berth(&words)
    };
    for mode in ["none", "private", "shareable", "host"] {
        run(mode, mode).ok();
        assert_eq!(node.inspect(mode, "{{.HostConfig.IpcMode}}"), mode);
    }
    let own = fs::read_link("/proc/self/ns/ipc").unwrap().display().to_string();
    assert_eq!(namespace(&node, "host", "ipc"), own);
    assert_ne!(namespace(&node, "private", "ipc"), own);
    node.berth(&["exec", "none", "sh", "-c", "grep /dev/shm /proc/mounts"]).fails(1);
    // One that may be joined, and what joined it.
    run("second", "container:shareable").ok();
    run("third", "container:second").ok();
    let id = node.inspect("shareable", "{{.Id}}");
    assert_eq!(node.inspect("second", "{{.HostConfig.IpcMode}}"), format!("container:{id}"));
    node.berth(&["exec", "shareable", "sh", "-c", "echo here > /dev/shm/note"]).ok();
    for name in ["second", "third"] {
        assert_eq!(namespace(&node, name, "ipc"), namespace(&node, "shareable", "ipc"));
        assert_eq!(node.berth(&["exec", name, "cat", "/dev/shm/note"]).ok(), "here");
    }
    node.berth(&["exec", "third", "sh", "-c", "echo back > /dev/shm/note"]).ok();
    // It outlives the one who made it.
    node.berth(&["rm", "-f", "shareable"]).ok();
    assert_eq!(node.berth(&["exec", "second", "cat", "/dev/shm/note"]).ok(), "back");
    node.berth(&["exec", "private", "ls", "/dev/shm/note"]).fails(1);
    // As the host's is the host's, so is that of whoever has it.
    run("fourth", "container:host").ok();
    assert_eq!(namespace(&node, "fourth", "ipc"), own);
    for closed in ["private", "none"] {
        let id = node.inspect(closed, "{{.Id}}");
        let why = format!(
            "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        );
        let refused = run("no", &format!("container:{closed}")).fails(125);
        assert!(refused.contains(&why), "{refused}");
        node.berth(&["rm", "no"]).ok();
    }
    node.berth(&["kill", "second"]).ok();
    node.berth(&["wait", "second"]).ok();
    let id = node.inspect("second", "{{.Id}}");
    let refused = run("no", "container:second").fails(125);
    assert!(refused.contains(&format!("can't join IPC of container {id}: Container {id} is not running")), "{refused}");
    assert!(run("none-such", "container:nobody").fails(125).contains("No such container: nobody"));
    assert!(run("wrong", "mine").fails(125).contains("--ipc: invalid IPC mode"));
    node.finish();
}

fn pids_are_shared(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "first", "busybox", "sleep", "1234"]).ok();
    node.berth(&["run", "-d", "--name", "second", "--pid", "container:first", "busybox", "sleep", "4321"]).ok();
    assert_eq!(namespace(&node, "first", "pid"), namespace(&node, "second", "pid"));
    let seen = node.berth(&["exec", "second", "ps", "-o", "args"]).ok().to_owned();
    assert!(seen.contains("sleep 1234") && seen.contains("sleep 4321"), "{seen}");
    // The one who joined may end; the other's end is the end of both.
    node.berth(&["run", "--rm", "--pid", "container:first", "busybox", "true"]).ok();
    node.berth(&["kill", "first"]).ok();
    assert_eq!(node.berth(&["wait", "second"]).ok(), "137");
    let refused = node.berth(&["start", "second"]).fails(1);
    assert!(refused.contains("cannot join PID namespace of a non running container"), "{refused}");
    node.finish();
}

fn namespaces_of_the_host(setup: Setup) {
    let node = node(setup);
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let modes = ["--pid", "host", "--uts", "host", "--userns", "host", "--cgroupns", "host"];
    node.berth(&[&["run", "-d", "--name", "host"], &modes[..], &["busybox", "sleep", "1000"]].concat()).ok();
    node.berth(&["run", "-d", "--name", "own", "--cgroupns", "private", "busybox", "sleep", "1000"]).ok();
    for kind in ["pid", "uts", "cgroup"] {
        assert_eq!(namespace(&node, "host", kind), own(kind));
        assert_ne!(namespace(&node, "own", kind), own(kind));
    }
    let told =
        "{{.HostConfig.PidMode}} {{.HostConfig.UTSMode}} {{.HostConfig.UsernsMode}} {{.HostConfig.CgroupnsMode}}";
    assert_eq!(node.inspect("host", told), "host host host host");
    assert_eq!(node.inspect("own", told).trim(), "private");
    let id = node.inspect("own", "{{.Id}}");
    let seen = node.berth(&["exec", "own", "cat", "/proc/self/cgroup"]).ok().to_owned();
    assert!(!seen.contains(&id), "its own cgroup is the root that it sees: {seen}");
    for (flag, kind) in [("--pid", "PID"), ("--uts", "UTS"), ("--userns", "USER"), ("--cgroupns", "CGROUP")] {
        let refused = node.berth(&["run", flag, "mine", "busybox"]).fails(125);
        assert!(refused.contains(&format!("{flag}: invalid {kind} mode")), "{refused}");
    }
    node.finish();
}

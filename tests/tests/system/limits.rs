//! Limits bind.

use berth_tests::{Node, Setup};

use crate::node;

on_both_runtimes!(memory_is_limited_and_the_kill_is_told, cpu_and_pids_are_limited, half_a_cpu_is_held);

/// One that wants all of a CPU is held back, period after period, as the kernel itself counts it.
fn half_a_cpu_is_held(setup: Setup) {
    let node = node(setup);
    let held = "(while :; do :; done) & stat=/sys/fs/cgroup/cpu/cpu.stat; [ -e $stat ] || stat=/sys/fs/cgroup/cpu.stat; \
                until [ $(grep nr_throttled $stat | cut -d' ' -f2) -ge 5 ]; do sleep 0.05; done; echo held; kill $!";
    assert_eq!(node.berth(&["run", "--rm", "--cpus", "0.5", "busybox", "sh", "-c", held]).ok(), "held");
    node.finish();
}

/// Where one limit is refused, none has changed.
#[test]
fn an_update_is_whole_or_not_at_all() {
    let node = Node::start();
    // Memory that cannot be taken back: a file system of memory, and no swap.
    let fill = "dd if=/dev/zero of=/dev/shm/full bs=1M count=30 2>/dev/null; echo full; exec sleep 1000";
    let words = ["run", "-d", "--name", "c", "-m", "64m", "--memory-swap", "64m", "busybox", "sh", "-c", fill];
    node.berth(&words).ok();
    assert_eq!(node.lines(&["logs", "-f", "c"]).next().as_deref(), Some("full"));
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        // cgroup v2 takes any limit, and kills what is above it.
        return node.finish();
    }
    let now = || {
        let files = "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/memory/memory.limit_in_bytes";
        let told = node.inspect("c", "{{.HostConfig.CpuShares}} {{.HostConfig.Memory}}");
        format!("{} {told}", node.berth(&["exec", "c", "sh", "-c", files]).ok())
    };
    let before = now();
    let refused = node.berth(&["update", "--cpu-shares", "100", "-m", "8m", "--memory-swap", "8m", "c"]).fails(1);
    assert!(refused.contains(&format!("Cannot update container {}: ", node.inspect("c", "{{.Id}}"))), "{refused}");
    assert_eq!(now(), before);
    node.berth(&["update", "--cpu-shares", "100", "c"]).ok();
    assert!(now().starts_with("100\n"), "{}", now());
    node.finish();
}

fn memory_is_limited_and_the_kill_is_told(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "--name", "c", "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero"]).fails(137);
    assert_eq!(
        node.inspect("c", "{{.State.OOMKilled}} {{.State.ExitCode}} {{.HostConfig.Memory}}"),
        "true 137 16777216"
    );
    let few = node.berth(&["run", "--rm", "-m", "1k", "busybox", "true"]).fails(125);
    assert!(few.contains("Minimum memory limit allowed is 6MB"), "{few}");
    node.finish();
}

fn cpu_and_pids_are_limited(setup: Setup) {
    let node = node(setup);
    let own = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    assert_eq!(node.berth(&["run", "--rm", "--cpus", "0.5", "busybox", "sh", "-c", own]).ok(), "50000");
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 30 & done 2>&1";
    let few = node.berth(&["run", "--rm", "--pids-limit", "8", "busybox", "sh", "-c", forks]);
    assert!(few.text().contains("can't fork") || few.error().contains("can't fork"), "{few:?}");
    node.finish();
}

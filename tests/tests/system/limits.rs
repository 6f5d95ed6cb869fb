//! Limits bind.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(memory_is_limited_and_the_kill_is_told, cpu_and_pids_are_limited);

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

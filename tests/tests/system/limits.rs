//! Limits bind.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use berth_tests::{Node, Setup};

use crate::node;

on_both_runtimes!(
    memory_is_limited_and_the_kill_is_told,
    cpu_and_pids_are_limited,
    half_a_cpu_is_held,
    it_stays_on_its_cpu,
    shares_divide_a_cpu,
    writes_to_a_device_are_held_back,
    the_oom_killer_can_be_kept_away,
);

/// Whether every controller of this machine is on cgroup v2.
fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn it_stays_on_its_cpu(setup: Setup) {
    let node = node(setup);
    let own = ["grep", "_allowed_list", "/proc/self/status"];
    let pinned =
        node.berth(&[&["run", "--rm", "--cpuset-cpus", "0", "--cpuset-mems", "0", "busybox"], &own[..]].concat());
    assert_eq!(pinned.ok(), "Cpus_allowed_list:\t0\nMems_allowed_list:\t0");
    node.finish();
}

/// Both want all of the same CPU, one has eight times the shares: while it has two seconds, the other cannot have one.
fn shares_divide_a_cpu(setup: Setup) {
    let node = node(setup);
    for (name, shares) in [("little", "256"), ("much", "2048")] {
        let on = ["run", "-d", "--name", name, "--network", "none", "--cpuset-cpus", "0", "--cpu-shares", shares];
        node.berth(&[&on[..], &["busybox", "sh", "-c", "while :; do :; done"]].concat()).ok();
    }
    let ticks = |name: &str| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", node.inspect(name, "{{.State.Pid}}"))).unwrap();
        stat.split(' ').nth(13).unwrap().parse().unwrap()
    };
    let (little, much) = (ticks("little"), ticks("much"));
    let wait = format!("until [ $(cut -d' ' -f14 /proc/1/stat) -ge {} ]; do sleep 0.05; done", much + 200);
    node.berth(&["exec", "much", "sh", "-c", &wait]).ok();
    let had = ticks("little") - little;
    assert!(had < 100, "{had} hundredths of a second");
    node.finish();
}

/// Three megabytes at one a second past the page cache: the last can only be there after two seconds.
fn writes_to_a_device_are_held_back(setup: Setup) {
    let node = node(setup);
    let device = fs::metadata(node.root()).unwrap().dev();
    let device = format!("/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let Ok(device) = fs::canonicalize(device) else {
        eprintln!("skipped: what the test's files are on is no block device");
        return node.finish();
    };
    let rate = format!("{}:1mb", device.display());
    let script = "a=$(date +%s%N); dd if=/dev/zero of=/f bs=1M count=4 oflag=direct 2>/dev/null; b=$(date +%s%N); echo $(((b - a) / 1000000))";
    let wrote = node.berth(&["run", "--rm", "--device-write-bps", &rate, "busybox", "sh", "-c", script]);
    let milliseconds: u64 = wrote.ok().parse().unwrap();
    if wrote.error().contains("BPS Block I/O write limit") {
        // This kernel cannot, and it is said.
        return node.finish();
    }
    assert!(milliseconds >= 2000, "{milliseconds} ms: {}", wrote.error());
    node.finish();
}

/// On cgroup v2 the kernel has no such thing: it is said, and the container runs.
fn the_oom_killer_can_be_kept_away(setup: Setup) {
    let node = node(setup);
    let own = "head -n 1 /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null || echo none";
    let ran = node.berth(&["run", "--rm", "-m", "64m", "--oom-kill-disable", "busybox", "sh", "-c", own]);
    let (said, warned) = (ran.ok(), ran.error().contains("OomKillDisable"));
    assert_eq!((said, warned), if unified() { ("none", true) } else { ("oom_kill_disable 1", false) });
    node.finish();
}

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
    if unified() {
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

//! Flags of `run` that are rarely used, each by what it does.

use std::fs;

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(rare_flags_do_what_they_say, what_cannot_be_done_is_refused_and_leaves_nothing);

fn rare_flags_do_what_they_say(setup: Setup) {
    let node = node(setup);
    let mut words = vec!["run", "-d", "--name", "c", "--annotation", "org.example.a=b", "--annotation", "bare"];
    let labels = node.path("labels");
    fs::write(&labels, "# a comment\nfrom=file\nsame=file\n").unwrap();
    let (labels, parent) = (labels.display().to_string(), format!("/{}/inner", node.cgroup()));
    words.extend([
        "--label-file",
        &labels,
        "--label",
        "same=line",
        "--domainname",
        "example.org",
        "--expose",
        "70-71/udp",
    ]);
    words.extend(["--cgroup-parent", &parent, "--cgroupns", "host", "--memory-swappiness", "-1"]);
    words.extend(["--kernel-memory", "1g", "busybox", "sleep", "1000"]);
    let ran = node.berth(&words);
    let id = ran.ok().to_owned();
    assert!(ran.error().contains("Flag --kernel-memory has been deprecated"), "{}", ran.error());
    let shown = "{{json .HostConfig.Annotations}} {{json .Config.ExposedPorts}} {{json .Config.Labels}}";
    assert_eq!(
        node.inspect("c", shown),
        r#"{"bare":"","org.example.a":"b"} {"70/udp":{},"71/udp":{}} {"from":"file","same":"line"}"#
    );
    let config = fs::read_to_string(node.state().join("runtime/bundles").join(&id).join("config.json")).unwrap();
    assert!(config.contains(r#""org.example.a":"b""#), "{config}");
    assert_eq!(node.berth(&["exec", "c", "cat", "/proc/sys/kernel/domainname"]).ok(), "example.org");
    assert!(node.berth(&["exec", "c", "cat", "/proc/self/cgroup"]).ok().contains(&parent));
    node.berth(&["rm", "-f", "c"]).ok();
    // As with Docker, a parent that was asked for stays: it is its owner's.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
        let _ = fs::remove_dir(hierarchy.join(node.cgroup()).join("inner"));
    }
    let _ = fs::remove_dir(format!("/sys/fs/cgroup{parent}"));

    // The device of FUSE, which no container has.
    let open = "mknod /f c 10 229 && : </f && echo open";
    let shut = node.berth(&["run", "--rm", "busybox", "sh", "-c", open]);
    assert!(!shut.text().contains("open"), "{shut:?}");
    assert_eq!(
        node.berth(&["run", "--rm", "--device-cgroup-rule", "c 10:229 rw", "busybox", "sh", "-c", open]).ok(),
        "open"
    );
    node.finish();
}

fn what_cannot_be_done_is_refused_and_leaves_nothing(setup: Setup) {
    let node = node(setup);
    for (words, why) in [
        (&["--storage-opt", "size=1g"][..], "--storage-opt size is not supported for"),
        (&["--cpu-count", "1"], "exists on Windows only"),
        (&["--use-api-socket"], "mount the node's socket with -v"),
        (&["--gpus", "all"], "CDI"),
        (&["--annotation", "berth.group-add=0"], "invalid annotation"),
        (&["--device-cgroup-rule", "c 1 r"], "invalid device cgroup format 'c 1 r'"),
        (&["--device-read-bps", "/dev/not-there:1mb"], "/dev/not-there"),
        (&["--device-write-iops", "/dev/null:5"], "not a block device"),
        (&["--cpu-rt-runtime", "2000000", "--cpu-rt-period", "1000000"], "CPU real-time"),
    ] {
        let command = [&["run", "--rm"], words, &["busybox", "true"]].concat();
        let refused = node.berth(&command).fails(125);
        // A machine on cgroup v2 has no real-time limits at all, which is refused in the same words but for the case.
        assert!(refused.to_lowercase().contains(&why.to_lowercase()), "{words:?}: {refused}");
    }
    assert_eq!(node.berth(&["ps", "-aq"]).ok(), "");
    node.finish();
}

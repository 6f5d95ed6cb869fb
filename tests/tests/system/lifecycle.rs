//! The state machine, edge by edge, with Docker's answers.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(every_state_and_edge, stop_waits_then_kills, the_writable_layer_survives_a_stop, wait_and_names);

fn every_state_and_edge(setup: Setup) {
    let node = node(setup);
    let status = |name: &str| node.inspect(name, "{{.State.Status}}");
    node.berth(&["create", "--name", "c", "busybox", "sleep", "1000"]).ok();
    assert_eq!(status("c"), "created");
    assert!(node.berth(&["pause", "c"]).fails(1).contains("not running"));
    assert_eq!(node.berth(&["start", "c"]).ok(), "c");
    node.berth(&["start", "c"]).ok();
    assert_eq!(status("c"), "running");
    assert!(node.berth(&["rm", "c"]).fails(1).contains("cannot remove"));
    assert!(node.berth(&["unpause", "c"]).fails(1).contains("not paused"));
    node.berth(&["pause", "c"]).ok();
    assert_eq!(status("c"), "paused");
    assert!(node.berth(&["ps"]).ok().contains("(Paused)"));
    assert!(node.berth(&["pause", "c"]).fails(1).contains("already paused"));
    assert!(node.berth(&["exec", "c", "true"]).fails(1).contains("paused"));
    node.berth(&["unpause", "c"]).ok();
    node.berth(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(status("c"), "running");
    node.berth(&["kill", "c"]).ok();
    node.berth(&["wait", "c"]).ok();
    assert_eq!(node.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    assert!(node.berth(&["kill", "c"]).fails(1).contains("is not running"));
    node.berth(&["stop", "c"]).ok();
    node.berth(&["rename", "c", "d"]).ok();
    node.berth(&["start", "d"]).ok();
    node.berth(&["rm", "-f", "d"]).ok();
    assert!(node.berth(&["inspect", "d"]).fails(1).to_lowercase().contains("no such"));
    node.finish();
}

fn stop_waits_then_kills(setup: Setup) {
    let node = node(setup);
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    node.berth(&["run", "-d", "--name", "kind", "busybox", "sh", "-c", script]).ok();
    assert_eq!(node.lines(&["logs", "-f", "kind"]).next().as_deref(), Some("ready"));
    node.berth(&["stop", "kind"]).ok();
    assert_eq!(node.inspect("kind", "{{.State.ExitCode}}"), "5");
    assert_eq!(node.berth(&["logs", "kind"]).ok(), "ready\nbye");
    node.berth(&["run", "-d", "--name", "deaf", "busybox", "sleep", "1000"]).ok();
    node.berth(&["stop", "-t", "0", "deaf"]).ok();
    assert_eq!(node.inspect("deaf", "{{.State.ExitCode}} {{.State.Running}}"), "137 false");
    node.berth(&[
        "run",
        "-d",
        "--name",
        "usr",
        "--stop-signal",
        "USR1",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done",
    ])
    .ok();
    assert_eq!(node.lines(&["logs", "-f", "usr"]).next().as_deref(), Some("ready"));
    node.berth(&["stop", "usr"]).ok();
    assert_eq!(node.inspect("usr", "{{.State.ExitCode}}"), "9");
    node.finish();
}

fn the_writable_layer_survives_a_stop(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "--name", "c", "busybox", "sh", "-c", "cat /root/file 2>/dev/null; echo kept >> /root/file"])
        .ok();
    assert_eq!(node.berth(&["start", "-a", "c"]).ok(), "kept");
    assert_eq!(node.berth(&["start", "-a", "c"]).ok(), "kept\nkept");
    let sizes = node.berth(&["ps", "-as", "--format", "{{.Size}}"]).ok().to_owned();
    assert!(!sizes.starts_with("0B") && sizes.contains("B (virtual ") && sizes.contains("MB)"), "{sizes}");
    let sizes = node.berth(&["inspect", "-s", "--format", "{{.SizeRw}} {{.SizeRootFs}}", "c"]).ok().to_owned();
    let (written, all) = sizes.split_once(' ').unwrap();
    assert!(written.parse::<u64>().unwrap() > 0 && all.parse::<u64>().unwrap() > 1_000_000, "{sizes}");
    node.finish();
}

fn wait_and_names(setup: Setup) {
    let node = node(setup);
    let first = node.berth(&["run", "-d", "--name", "c", "busybox", "sh", "-c", "read x; exit 4"]);
    let id = first.ok().to_owned();
    assert_eq!(node.berth(&["wait", &id[..12]]).ok(), "4");
    let conflict = node.berth(&["run", "--name", "c", "busybox", "true"]).fails(125);
    assert!(conflict.contains("Conflict") && conflict.contains(&id), "{conflict}");
    node.berth(&["create", "--name", "d", "busybox", "true"]).ok();
    assert!(node.berth(&["rename", "d", "c"]).fails(1).contains("already in use"));
    assert!(node.berth(&["create", "--name", "-bad", "busybox"]).fails(1).contains("Invalid container name"));
    let invented = node.berth(&["create", "busybox"]).ok().to_owned();
    assert!(node.inspect(&invented, "{{.Name}}").contains('_'));
    let stopped = node.berth(&["ps", "-aq", "--filter", "status=exited"]).ok().to_owned();
    assert_eq!(stopped, id[..12]);
    node.finish();
}

//! What is not used goes, and nothing else.

use berth_tests::Setup;

use crate::node;

#[test]
fn what_does_not_run_is_pruned() {
    let node = node(Setup::default());
    node.berth(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    node.berth(&["run", "--name", "ended", "busybox", "sh", "-c", "echo x > /root/x"]).ok();
    node.berth(&["create", "--name", "kept", "--label", "keep", "busybox", "true"]).ok();
    let ended = node.inspect("ended", "{{.Id}}");
    let pruned = node.berth(&["container", "prune", "-f", "--filter", "label!=keep"]);
    assert!(pruned.ok().starts_with(&format!("Deleted Containers:\n{ended}\n\nTotal reclaimed space: ")), "{pruned:?}");
    assert_eq!(node.berth(&["container", "prune", "-f", "--filter", "until=1h"]).ok(), "Total reclaimed space: 0B");
    assert_eq!(node.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "kept\nruns");
    node.finish();
}

#[test]
fn what_nobody_uses_is_pruned() {
    let node = node(Setup::default());
    node.berth(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    node.berth(&["run", "--name", "ended", "-v", "/data", "busybox", "touch", "/data/x", "/root/x"]).ok();
    let nameless = node.berth(&["commit", "ended"]).ok().to_owned();
    node.berth(&["commit", "ended", "named:1"]).ok();
    let images = || node.berth(&["images", "-q", "--no-trunc"]).ok().lines().count();
    assert_eq!(images(), 3);
    assert!(node.berth_with(&["image", "prune"], b"\n").fails(1).contains("has been cancelled"));
    let pruned = node.berth(&["image", "prune", "-f"]).ok().to_owned();
    assert!(pruned.starts_with("Deleted Images:\n") && pruned.contains(&format!("deleted: {nameless}")), "{pruned}");
    assert!(!pruned.contains("named:1") && images() == 2, "{pruned}");
    assert_eq!(node.berth(&["image", "prune", "-af", "--filter", "until=1h"]).ok(), "Total reclaimed space: 0B");
    let all = node.berth(&["system", "prune", "-af", "--volumes"]).ok().to_owned();
    for words in ["Deleted Containers:\n", "Deleted Volumes:\n", "Deleted Images:\nuntagged: named:1\n"] {
        assert!(all.contains(words), "{all}");
    }
    assert!(!all.contains("busybox") && !all.ends_with("space: 0B"), "what runs keeps its image: {all}");
    assert_eq!(node.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "runs");
    node.finish();
}

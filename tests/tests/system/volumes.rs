//! Bind mounts, named and anonymous volumes.

use std::fs;

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(binds, volumes_outlive_containers, volumes_from_others);

fn binds(setup: Setup) {
    let node = node(setup);
    let host = node.path("shared");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("in"), "from the host").unwrap();
    let mount = format!("{}:/mnt/here", host.display());
    let run = |mount: &str, script: &str| node.berth(&["run", "--rm", "-v", mount, "busybox", "sh", "-c", script]);
    assert_eq!(run(&mount, "cat /mnt/here/in; echo back > /mnt/here/out").ok(), "from the host");
    assert_eq!(fs::read_to_string(host.join("out")).unwrap(), "back\n");
    assert!(run(&format!("{mount}:ro"), "touch /mnt/here/x").fails(1).contains("Read-only"));
    let made = node.path("made/by/v");
    run(&format!("{}:/m", made.display()), "true").ok();
    assert!(made.is_dir(), "-v makes what is missing");
    let strict = format!("type=bind,source={},target=/m", node.path("missing").display());
    assert!(node.berth(&["run", "--rm", "--mount", &strict, "busybox", "true"]).fails(125).contains("does not exist"));
    node.finish();
}

fn volumes_outlive_containers(setup: Setup) {
    let node = node(setup);
    let run =
        |script: &str| node.berth(&["run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", script]).ok().to_owned();
    run("echo kept > /data/file");
    assert_eq!(run("cat /data/file"), "kept");
    let copied = node.berth(&["run", "--rm", "-v", "etc:/etc", "busybox", "grep", "-c", "root", "/etc/passwd"]);
    assert_eq!(copied.ok(), "1", "an empty volume is filled from the image");
    node.finish();
}

fn volumes_from_others(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "--name", "first", "-v", "data:/data", "-v", "/own", "busybox", "sh", "-c", "echo a > /own/a"])
        .ok();
    let run =
        |from: &str, script: &str| node.berth(&["run", "--rm", "--volumes-from", from, "busybox", "sh", "-c", script]);
    assert_eq!(run("first", "echo b > /data/b; cat /own/a").ok(), "a");
    assert!(run("first:ro", "cat /data/b; touch /data/c").fails(1).contains("Read-only"));
    let own = ["run", "--rm", "--volumes-from", "first", "--tmpfs", "/own", "busybox", "ls", "/own"];
    assert_eq!(node.berth(&own).ok(), "", "a container's own mount stands before");
    assert!(run("nobody", "true").fails(125).contains("No such container: nobody"));
    assert!(run("first:x", "true").fails(125).contains("invalid mode"));
    node.finish();
}

#[test]
fn volumes_by_their_names() {
    let node = node(Setup::default());
    let berth = |arguments: &[&str]| node.berth(arguments);
    assert_eq!(berth(&["volume", "create", "--label", "tier=db", "data"]).ok(), "data");
    assert_eq!(berth(&["volume", "create", "data"]).ok(), "data");
    let anonymous = berth(&["volume", "create"]).ok().to_owned();
    assert_eq!(anonymous.len(), 64);
    berth(&["run", "--name", "c", "-v", "data:/data", "-v", "/own", "busybox", "touch", "/data/x"]).ok();
    let names = |arguments: &[&str]| {
        let listed = berth(&[&["volume", "ls", "-q"], arguments].concat()).ok().to_owned();
        listed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]).len(), 3);
    assert_eq!(names(&["-f", "label=tier=db"]), ["data"]);
    assert_eq!(names(&["-f", "dangling=true"]), std::slice::from_ref(&anonymous));
    assert_eq!(berth(&["volume", "ls"]).ok().lines().next(), Some("DRIVER    VOLUME NAME"));
    assert!(berth(&["volume", "ls", "-f", "color=red"]).fails(1).contains("invalid filter 'color=red'"));
    let mountpoint = berth(&["volume", "inspect", "-f", "{{.Mountpoint}} {{.Labels.tier}}", "data"]).ok().to_owned();
    let path = mountpoint.strip_suffix(" db").unwrap();
    assert!(fs::exists(format!("{path}/x")).unwrap(), "{mountpoint}");
    assert_eq!(node.inspect("data", "{{.Driver}}"), "local", "inspect finds it too");

    assert!(berth(&["volume", "rm", "data"]).fails(1).contains("volume is in use - ["));
    assert!(berth(&["volume", "rm", "nothing"]).fails(1).contains("get nothing: no such volume"));
    berth(&["volume", "rm", "-f", "nothing"]).ok();
    assert!(berth(&["volume", "inspect", "nothing"]).fails(1).contains("no such volume"));
    assert!(berth(&["volume", "create", "-d", "nfs", "x1"]).fails(1).contains("plugin \"nfs\" not found"));
    assert!(node.berth_with(&["volume", "prune"], b"n\n").fails(1).contains("has been cancelled"));
    let pruned = node.berth_with(&["volume", "prune"], b"y\n");
    assert!(pruned.ok().contains(&format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")), "{pruned:?}");
    berth(&["rm", "-v", "c"]).ok();
    assert_eq!(names(&[]), ["data"]);
    assert_eq!(berth(&["volume", "prune", "-f"]).ok(), "Total reclaimed space: 0B");
    assert!(berth(&["volume", "prune", "-af"]).ok().starts_with("Deleted Volumes:\ndata\n"));
    node.finish();
}

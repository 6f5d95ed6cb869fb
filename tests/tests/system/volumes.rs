//! Bind mounts, named and anonymous volumes.

use std::fs;

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(binds, volumes_outlive_containers);

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

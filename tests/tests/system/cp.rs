//! `cp`: both ways, into what runs and what does not, and past links that lead out.

use std::{fs, os::unix::fs::symlink};

use berth_tests::Setup;

on_both_runtimes!(files_go_both_ways, what_does_not_run, links_lead_nowhere);

#[test]
fn what_does_not_run_on_vfs() {
    what_does_not_run(Setup { storage_driver: "vfs".into(), ..Setup::default() });
}

fn files_go_both_ways(setup: Setup) {
    let node = super::node(setup);
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name).display().to_string();
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/file"), "in d").unwrap();
    fs::write(path("one"), "one").unwrap();
    symlink("one", path("link")).unwrap();
    node.berth(&["run", "-d", "--name", "c", "-v", "vol:/v", "--user", "7:8", "busybox", "sleep", "1000"]).ok();
    let read = |file: &str| node.berth(&["exec", "c", "cat", file]).ok().to_owned();
    // A directory that is there takes it in; what is not there gets the name; a dot means the contents.
    node.berth(&["cp", &path("one"), "c:/v"]).ok();
    node.berth(&["cp", &path("one"), "c:/tmp/two"]).ok();
    node.berth(&["container", "cp", &path("d"), "c:/tmp"]).ok();
    node.berth(&["cp", &path("d"), "c:/tmp/new"]).ok();
    node.berth(&["cp", &format!("{}/.", path("d")), "c:/v/"]).ok();
    node.berth(&["cp", "-L", &path("link"), "c:/tmp/"]).ok();
    for (file, text) in [
        ("/v/one", "one"),
        ("/tmp/two", "one"),
        ("/tmp/d/file", "in d"),
        ("/tmp/new/file", "in d"),
        ("/v/file", "in d"),
        ("/tmp/link", "one"),
    ] {
        assert_eq!(read(file), text, "{file}");
    }
    node.berth(&["cp", "-a", &path("one"), "c:/tmp/owned"]).ok();
    assert_eq!(node.berth(&["exec", "c", "stat", "-c", "%u:%g", "/tmp/owned"]).ok(), "7:8");
    // And out again.
    node.berth(&["cp", "c:/tmp/d", &path("out")]).ok();
    node.berth(&["cp", "c:/tmp/d", &path("out")]).ok();
    node.berth(&["cp", "c:/v/.", &path("volume")]).ok();
    node.berth(&["cp", "c:/tmp/two", &path("one")]).ok();
    for (file, text) in [("out/file", "in d"), ("out/d/file", "in d"), ("volume/one", "one"), ("volume/file", "in d")] {
        assert_eq!(fs::read_to_string(path(file)).unwrap(), text, "{file}");
    }
    // A link stays one, unless it is to be followed.
    node.berth(&["cp", &path("link"), "c:/v/soft"]).ok();
    node.berth(&["cp", "c:/v/soft", &path("soft")]).ok();
    assert_eq!(fs::read_link(path("soft")).unwrap().to_str(), Some("one"));
    node.berth(&["cp", "-L", "c:/v/soft", &path("hard")]).ok();
    assert_eq!(fs::read_link(path("hard")).ok(), None);
    assert_eq!(fs::read_to_string(path("hard")).unwrap(), "one");
    // As a tar.
    let tar = node.berth(&["cp", "c:/tmp/d", "-"]);
    assert_eq!((tar.code, tar.stdout.len() % 512), (0, 0));
    assert!(tar.stdout.starts_with(b"d/\0") && tar.stdout.windows(6).any(|bytes| bytes == b"d/file"));
    assert_eq!(node.berth_with(&["cp", "-", "c:/v"], &tar.stdout).code, 0);
    assert_eq!(read("/v/d/file"), "in d");
    let told = node.berth(&["cp", "--quiet=false", &path("one"), "c:/tmp/two"]);
    told.ok();
    assert_eq!(told.error().trim(), "Successfully copied 2.05kB to c:/tmp/two");
    // What cannot be.
    let fails = |source: &str, destination: &str, text: &str| {
        let said = node.berth(&["cp", source, destination]).fails(1);
        assert!(said.contains(text), "{source} {destination}: {said}");
    };
    fails("c:/not/there", &path("x"), "Could not find the file /not/there in container");
    fails(&path("d"), "c:/tmp/two", "cannot copy directory");
    fails(&path("one"), "c:/tmp/nowhere/", "no such directory");
    fails(&path("one"), "c:/nowhere/x", "Could not find the file /nowhere in container");
    fails("c:/tmp/two", &path("nowhere/x"), "invalid output path: directory");
    fails("c:/x", "c:/y", "copying between containers is not supported");
    fails("/x", "/y", "must specify at least one container source");
    fails("nobody:/x", &path("x"), "No such container: nobody");
    node.berth(&["rm", "-fv", "c"]).ok();
    node.finish();
}

fn what_does_not_run(setup: Setup) {
    let node = super::node(setup);
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name).display().to_string();
    fs::write(path("one"), "one").unwrap();
    fs::create_dir(path("bound")).unwrap();
    let bind = format!("{}:/ro:ro", path("bound"));
    let command = ["create", "--name", "c", "-v", "vol:/data/v", "-v", &bind, "busybox", "cat", "/data/v/one", "/one"];
    node.berth(&command).ok();
    node.berth(&["cp", &path("one"), "c:/data/v/one"]).ok();
    node.berth(&["cp", &path("one"), "c:/one"]).ok();
    let refused = node.berth(&["cp", &path("one"), "c:/ro/one"]).fails(1);
    assert!(refused.contains("mounted volume is marked read-only"), "{refused}");
    assert_eq!(node.berth(&["start", "-a", "c"]).ok(), "oneone");
    // It ended, and its volume is still seen.
    node.berth(&["cp", "c:/data", &path("data")]).ok();
    assert_eq!(fs::read_to_string(path("data/v/one")).unwrap(), "one");
    assert_eq!(node.berth(&["run", "--rm", "-v", "vol:/v", "busybox", "cat", "/v/one"]).ok(), "one");
    node.berth(&["create", "--name", "r", "--read-only", "-v", "vol:/v", "busybox", "cat", "/v/two"]).ok();
    let refused = node.berth(&["cp", &path("one"), "r:/two"]).fails(1);
    assert!(refused.contains("container rootfs is marked read-only"), "{refused}");
    node.berth(&["cp", &path("one"), "r:/v/two"]).ok();
    assert_eq!(node.berth(&["start", "-a", "r"]).ok(), "one");
    node.berth(&["rm", "c", "r"]).ok();
    node.finish();
}

fn links_lead_nowhere(setup: Setup) {
    let node = super::node(setup);
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name).display().to_string();
    fs::create_dir(path("outside")).unwrap();
    fs::write(path("one"), "one").unwrap();
    fs::write(path("outside/secret"), "secret").unwrap();
    // Two names that are swapped all the time, one a directory and one a link to a directory of the host's.
    let outside = path("outside");
    let swap = format!(
        "mkdir -p /a; ln -s {outside} /l; ln -s {outside}/secret /f; \
         while :; do mv -T /l /x; mv -T /a /l; mv -T /x /a; done"
    );
    node.berth(&["run", "-d", "--name", "c", "busybox", "sh", "-c", &swap]).ok();
    // It is swapping: /a began as a directory.
    node.berth(&["exec", "c", "sh", "-c", "until [ -L /a ]; do :; done"]).ok();
    for round in 0..40 {
        // Either is right: it arrives within, or the way was not there at that moment.
        let _ = node.berth(&["cp", &path("one"), "c:/a/one"]);
        let _ = node.berth(&["cp", "c:/a/secret", &path(&format!("got{round}"))]);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was written on the host");
    for round in 0..40 {
        assert!(!fs::exists(path(&format!("got{round}"))).unwrap(), "a file of the host's was read");
    }
    // A link that is asked for itself stays one, and what it leads to is looked for in the container.
    assert!(node.berth(&["cp", "c:/f/.", &path("x")]).fails(1).contains("Could not find the file"));
    node.berth(&["rm", "-f", "c"]).ok();
    node.finish();
}

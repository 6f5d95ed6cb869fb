//! Images that try to lead us out.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::bundle::Bundle;

/// A directory of the host that must stay as it is.
fn outside(bundle: &Bundle) -> PathBuf {
    let path = bundle.path().join("outside");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("kept"), "kept").unwrap();
    path
}

#[track_caller]
fn untouched(path: &Path) {
    let names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(fs::read(path.join("kept")).unwrap(), b"kept");
}

#[test]
fn a_link_where_proc_should_be() {
    let bundle = Bundle::script("true");
    let outside = outside(&bundle);
    fs::remove_dir(bundle.root().join("proc")).unwrap();
    symlink(&outside, bundle.root().join("proc")).unwrap();
    let ran = bundle.run(&[]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.err.contains("/proc must be an ordinary directory"), "{ran:?}");
    untouched(&outside);
}

#[test]
fn links_on_the_way_to_mount_points_and_devices() {
    let mut bundle = Bundle::script("echo inside > /data/sub/file; cat /data/sub/file; ls /dev/null");
    let outside = outside(&bundle);
    let root = bundle.root();
    symlink(&outside, root.join("data")).unwrap();
    fs::remove_dir(root.join("dev")).unwrap();
    symlink("../../../../../../dev-of-host", root.join("dev")).unwrap();
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/data/sub", "type": "bind", "source": source, "options": ["rbind"]}));
    let out = bundle.run(&[]).ok();
    assert_eq!(out, "inside\n/dev/null\n");
    assert_eq!(fs::read(source.join("file")).unwrap(), b"inside\n");
    untouched(&outside);
    assert!(!Path::new("/dev-of-host").exists());
}

#[test]
fn a_false_null_does_not_mask() {
    let mut bundle = Bundle::script("cat /proc/keys");
    // The image's own /dev, with a link where the device should be.
    let dev = bundle.path().join("dev");
    fs::create_dir(&dev).unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap();
    bundle.config["mounts"][1] =
        json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["rbind", "rprivate"]});
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev/"));
    let ran = bundle.run(&[]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.err.contains("/dev/null"), "{ran:?}");
}

#[test]
fn a_working_directory_behind_a_descriptor() {
    for number in 3..12 {
        let mut bundle = Bundle::script("pwd; ls /");
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}/../../.."));
        let ran = bundle.run(&[]);
        if ran.code == Some(0) {
            assert!(!ran.out.contains("\nusr\n"), "{number}: {ran:?}");
        }
    }
}

#[test]
fn a_passwd_file_that_leads_out() {
    let mut bundle = Bundle::script("id -u");
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "username": "daemon"});
    fs::remove_file(bundle.root().join("etc/passwd")).unwrap();
    symlink("../../../../../../../../etc/passwd", bundle.root().join("etc/passwd")).unwrap();
    let ran = bundle.run(&[]);
    // Beneath the root the link leads to itself; the host's file is never read.
    assert!(ran.code == Some(125) && ran.err.contains("/etc/passwd"), "{ran:?}");
}

#[test]
fn nothing_is_mounted_inside_proc() {
    let mut bundle = Bundle::script("true");
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/proc/self/attr", "type": "bind", "source": source, "options": ["rbind"]}));
    let ran = bundle.run(&[]);
    assert!(ran.err.contains("inside /proc"), "{ran:?}");
}

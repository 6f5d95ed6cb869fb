//! Bad input gets a clear error and changes nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use berth_tests::{Node, Setup, fixtures, run};

use crate::node;

on_both_runtimes!(commands_that_cannot_run);

fn commands_that_cannot_run(setup: Setup) {
    let node = node(setup);
    let missing = node.berth(&["run", "--rm", "busybox", "not-there"]).fails(127);
    assert!(missing.contains("not-there") && missing.contains("not found in $PATH"), "{missing}");
    let absolute = node.berth(&["run", "--rm", "busybox", "/not/there"]).fails(127);
    assert!(absolute.contains("/not/there"), "{absolute}");
    let data = node.berth(&["run", "--rm", "busybox", "/etc/passwd"]).fails(126);
    assert!(data.to_lowercase().contains("permission denied"), "{data}");
    assert_eq!(node.berth(&["ps", "-aq"]).ok(), "", "nothing is left of a start that failed with --rm");
    node.finish();
}

#[test]
fn unknown_names_and_flags() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    let image = node.berth(&["run", "--rm", "no-such-image", "true"]).fails(125);
    assert!(image.contains("no-such-image"), "{image}");
    assert!(node.berth(&["pull", "Bad/Name"]).fails(1).contains("lowercase"));
    assert!(node.berth(&["inspect", "nothing"]).fails(1).to_lowercase().contains("no such"));
    assert!(node.berth(&["rmi", "nothing"]).fails(1).contains("No such image"));
    assert!(node.berth(&["start", "nothing"]).fails(1).contains("No such container"));
    assert!(node.berth(&["run", "--no-such-flag", "busybox"]).fails(125).contains("--no-such-flag"));
    assert!(node.berth(&["run", "-v", "relative/../path:x", "busybox"]).fails(125).contains("path"));
    assert_eq!(node.berth(&["ps", "-aq"]).ok(), "");
    node.finish();
}

#[test]
fn hostile_archives_do_no_harm() {
    let node = Node::with(Setup::default());
    let garbage: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    node.berth_with(&["load"], &garbage).fails(1);
    let whole = fs::read(fixtures::archive("busybox")).unwrap();
    node.berth_with(&["load"], &whole[..whole.len() / 2]).fails(1);
    node.berth_with(&["load"], b"").fails(1);
    assert_eq!(node.berth(&["images", "-qa"]).ok(), "");
    node.load("busybox");
    assert_eq!(node.berth(&["run", "--rm", "busybox", "echo", "well"]).ok(), "well");
    node.finish();
}

#[test]
fn configuration_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let berthd = |text: &str| {
        fs::write(&config, text).unwrap();
        let mut command = Command::new(fixtures::binary("berthd"));
        command.arg("all").arg("--config").arg(&config).arg("--state").arg(directory.path().join("state"));
        run(command.arg("--root").arg(directory.path().join("root")), b"").fails(1)
    };
    let unknown = berthd("[snapshoter]\ndriver = 'vfs'");
    assert!(unknown.contains("snapshoter") && unknown.contains("config.toml"), "{unknown}");
    assert!(berthd("root = ").contains("config.toml"));
    // What only the service itself can judge ends the node as well, instead of being tried for ever.
    let driver = berthd("[snapshotter]\ndriver = 'zfs'");
    assert!(driver.contains("zfs") && driver.contains("snapshotter service cannot start"), "{driver}");
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
    let mut command = Command::new(fixtures::binary("berthd"));
    command.arg("all").arg("--state").arg(&state).arg("--root").arg(directory.path().join("root"));
    let refused = run(&mut command, b"").fails(1);
    assert!(refused.contains("belongs to user 65534"), "{refused}");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing was put there");
}

#[test]
fn strangers_are_kept_out() {
    let node = Node::start();
    let socket = node.state().join("berth.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert!(mode == 0o600 || mode == 0o660, "{mode:o}");
    // A copy that the stranger may execute, in a directory that it may enter.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let client = directory.path().join("berth");
    fs::copy(fixtures::binary("berth"), &client).unwrap();
    let as_stranger = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&client);
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        run(command.arg("ps"), b"")
    };
    for path in [node.path(""), node.state()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert!(as_stranger().fails(1).to_lowercase().contains("permission denied"));
    // Even a socket that somebody opened up is checked.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    as_stranger().fails(1);
    node.finish();
}

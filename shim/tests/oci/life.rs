//! Start, exec, pause, signals, terminals, hooks, crashes.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serde_json::json;

use super::bundle::{Bundle, Ran, program};

#[test]
fn another_process_in_the_container() {
    let bundle = Bundle::script("sleep 1000");
    let first = bundle.process("a.json", &["/bin/sh", "-c", "grep -E '^(Cap|Seccomp:|NoNew)' /proc/self/status; cat /proc/self/cgroup; hostname; readlink /proc/1/ns/mnt; readlink /proc/self/ns/mnt; ls /proc/self/fd"]);
    let second = bundle.process("b.json", &["/bin/sh", "-c", "exit 7"]);
    let out = bundle.run(&["--exec", &first, "--exec", &second, "--signal", "9"]);
    assert_eq!(out.code, Some(137), "{out:?}");
    let out = out.out;
    assert!(
        out.contains("CapEff:\t00000000a80425fb") && out.contains("Seccomp:\t2") && out.contains("\nbox\n"),
        "{out}"
    );
    let only_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = if only_v2 { "\n0::/\n" } else { "memory:/\n" };
    assert!(out.contains(root), "it is in the container's cgroup, which its cgroup namespace shows as the root: {out}");
    assert!(out.contains("exec exited 0") && out.contains("exec exited 7"), "{out}");
    assert!(out.contains("\n0\n1\n2\n3\nexec"), "nothing of the shim's is open: {out}");
    let namespaces: Vec<&str> = out.lines().filter(|line| line.starts_with("mnt:")).collect();
    assert!(namespaces.len() == 2 && namespaces[0] == namespaces[1], "{out}");
}

#[test]
fn a_missing_program_in_exec() {
    let bundle = Bundle::script("sleep 1000");
    let process = bundle.process("a.json", &["nope"]);
    let ran = bundle.run(&["--exec", &process]);
    // The container itself is killed by the delete that follows.
    assert_eq!(ran.code, Some(127), "{ran:?}");
    assert!(ran.err.contains("exec: \"nope\": executable file not found in $PATH"), "{ran:?}");
}

#[test]
fn pause_statistics_signals() {
    let bundle = Bundle::script("trap 'echo told; exit 3' TERM; while :; do sleep 0.01; done");
    let ready = bundle.process(
        "a.json",
        &["/bin/sh", "-c", "until grep -q 'SigCgt:.*4[0-9a-f][0-9a-f][0-9a-f]$' /proc/1/status; do :; done"],
    );
    let ran = bundle.run(&["--exec", &ready, "--pause", "--stats", "--signal", "15"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for words in ["paused\n", "limit=64 memory-limit=134217728", "told\n"] {
        assert!(ran.out.contains(words), "{ran:?}");
    }
}

fn terminal(options: &[&str]) -> Ran {
    let mut bundle = Bundle::script("tty; stty size; test -c /dev/console && echo console; readlink /proc/self/fd/0");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.run(&[&["--tty"], options].concat())
}

#[test]
fn a_terminal() {
    let out = terminal(&[]).ok();
    assert_eq!(out.replace('\r', ""), "/dev/pts/0\n23 81\nconsole\n/dev/pts/0\n");
}

#[test]
fn the_same_through_runc_and_crun_like_binaries() {
    let runc = &["--runtime", "/usr/sbin/runc"];
    let bundle = Bundle::script("echo hello; exit 5");
    let ran = bundle.run(runc);
    assert_eq!((ran.code, ran.out.as_str()), (Some(5), "hello\n"), "{ran:?}");
    let bundle = Bundle::script("sleep 1000");
    let process = bundle.process("a.json", &["/bin/sh", "-c", "hostname"]);
    let ran = bundle.run(&[&runc[..], &["--exec", &process, "--pause", "--stats", "--signal", "9"]].concat());
    assert_eq!(ran.code, Some(137), "{ran:?}");
    assert!(ran.out.contains("box\nexec exited 0\npaused\n"), "{ran:?}");
    let out = terminal(runc);
    assert!(out.out.contains("/dev/pts/0") && out.code == Some(0), "{out:?}");
}

#[test]
fn hooks_run_in_their_places_and_are_told_the_state() {
    let mut bundle = Bundle::script("cat /seen");
    let log = bundle.path().join("hooks.log");
    let hook = bundle.path().join("hook");
    fs::write(&hook, format!("#!/bin/sh\necho $1 $(cat | grep -o '\"status\":\"[a-z]*\"') >> {}\n", log.display()))
        .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let one = |name: &str| json!([{"path": hook, "args": ["hook", name], "timeout": 10}]);
    bundle.config["hooks"] = json!({
        "prestart": one("prestart"), "createRuntime": one("createRuntime"), "createContainer": one("createContainer"),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo from inside > /seen"]}],
        "poststart": one("poststart"), "poststop": one("poststop"),
    });
    assert_eq!(bundle.run(&[]).ok(), "from inside\n");
    let seen = fs::read_to_string(&log).unwrap();
    let expected = [
        "prestart \"status\":\"creating\"",
        "createRuntime \"status\":\"creating\"",
        "createContainer \"status\":\"creating\"",
        "poststart \"status\":\"running\"",
        "poststop \"status\":\"stopped\"",
    ];
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    bundle.config["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo broken >&2; exit 3"]}]});
    let ran = bundle.run(&[]);
    assert!(ran.code == Some(125) && ran.err.contains("broken"), "{ran:?}");
}

#[test]
fn a_shim_that_dies_leaves_what_remove_can_remove() {
    let bundle = Bundle::script("sleep 1000");
    let ran = bundle.run(&["--kill-before-start"]);
    assert_eq!(ran.code, Some(99), "{ran:?}");
    assert!(!bundle.cgroups().is_empty());
    for _ in 0..2 {
        let removed = Command::new(program()).arg("remove").arg(bundle.path()).output().unwrap();
        assert!(removed.status.success(), "{removed:?}");
    }
    assert!(bundle.cgroups().is_empty());
}

#[test]
fn compiled_seccomp_programs_are_kept_and_not_trusted_from_others() {
    let bundle = Bundle::script("grep Seccomp: /proc/self/status");
    let cache = bundle.path().join("cache");
    let options = ["--cache", cache.to_str().unwrap()];
    assert_eq!(bundle.run(&options).ok(), "Seccomp:\t2\n");
    let kept: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    // A program that allows everything, which somebody else could have written: it is not used.
    fs::write(&kept[0], [6, 0, 0, 0, 0, 0, 0xff, 0x7f]).unwrap();
    fs::set_permissions(&kept[0], fs::Permissions::from_mode(0o666)).unwrap();
    let bundle = Bundle::script("mount -t tmpfs x /tmp 2>/dev/null || echo refused");
    assert_eq!(bundle.run(&options).ok(), "refused\n");
}

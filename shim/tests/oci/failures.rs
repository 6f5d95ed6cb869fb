//! What a person is told when it does not work.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::json;

use super::bundle::{Bundle, Ran};

#[track_caller]
fn told(ran: &Ran, code: i32, words: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.err.contains(words), "{ran:?}");
}

fn script(name: &str, content: &str, mode: u32) -> Bundle {
    let bundle = Bundle::new(&[&format!("/{name}")]);
    let path = bundle.root().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    bundle
}

#[test]
fn a_program_that_cannot_be_executed() {
    told(&Bundle::new(&["nope"]).run(&[]), 127, "exec: \"nope\": executable file not found in $PATH");
    told(&Bundle::new(&["/nope"]).run(&[]), 127, "exec: \"/nope\": stat /nope: no such file or directory");
    told(&script("plain", "echo", 0o644).run(&[]), 126, "permission denied");
    told(&script("windows", "#!/bin/sh\r\n", 0o755).run(&[]), 127, "carriage return");
    told(&script("python", "#!/usr/bin/python9\n", 0o755).run(&[]), 127, "interpreter /usr/bin/python9 is missing");
    told(&script("text", "echo", 0o755).run(&[]), 126, "exec format error");
    told(&Bundle::new(&["/tmp"]).run(&[]), 126, "is a directory");
}

#[test]
fn codes_agree_with_runc_behind_our_interface() {
    for (arguments, code) in [(["nope"], 127), (["/etc/passwd"], 126), (["/nope"], 127)] {
        let bundle = Bundle::new(&arguments);
        assert_eq!(bundle.run(&[]).code, Some(code));
        let ran = bundle.run(&["--runtime", "/usr/sbin/runc"]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
}

#[test]
fn users_by_name() {
    let with = |user: &str| {
        let mut bundle = Bundle::script("id -u; id -g; id -G; echo $HOME");
        bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "username": user});
        bundle.run(&[])
    };
    assert_eq!(with("web").ok(), "33\n34\n34 4\n/var/www\n");
    assert_eq!(with("web:logs").ok(), "33\n4\n4\n/var/www\n");
    assert_eq!(with("1000").ok(), "1000\n0\n0\n/\n");
    told(&with("nobody"), 125, "unable to find user nobody: no matching entries in passwd file");
}

#[test]
fn a_step_that_fails_is_named_and_nothing_is_left() {
    let mut bundle = Bundle::script("true");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/data", "type": "bind", "source": "/no/such/source", "options": ["rbind"]}));
    told(&bundle.run(&[]), 125, "mounting onto /data: opening the source /no/such/source");
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    bundle.config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    told(&bundle.run(&[]), 125, "not in a separate kernel namespace");
    bundle.config["linux"]["sysctl"] = json!({});
    bundle.config["process"]["apparmorProfile"] = json!("berth-default");
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|y| y.starts_with('Y'));
    let why = if enabled { "AppArmor profile berth-default: it is not loaded" } else { "this kernel has no AppArmor" };
    told(&bundle.run(&[]), 125, why);
}

#[test]
fn what_the_machine_forbids_is_done_as_far_as_it_goes() {
    let mut bundle = Bundle::script("ulimit -Hn; cat /proc/self/oom_score_adj");
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2_000_000_000u64}]);
    bundle.config["process"]["oomScoreAdj"] = json!(-999);
    let ran = bundle.run(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("RLIMIT_NOFILE"), "{ran:?}");
}

//! Logs: everything, in order, from wherever one asks.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(tail_since_and_timestamps, following_ends_with_the_container, nothing_is_lost);

/// A follower loses nothing and sees nothing twice, however often files are rotated and the service is killed.
#[test]
fn following_goes_on_over_rotations_and_restarts() {
    let node = node(Setup::default());
    let count = "mkfifo /go; exec 3<>/go; i=0; while read -r x <&3; do for n in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo line $i; done; done";
    let small = ["--log-opt", "max-size=1k", "--log-opt", "max-file=100"];
    node.berth(&[&["run", "-d", "--name", "c"], &small[..], &["busybox", "sh", "-c", count]].concat()).ok();
    let mut follower = node.lines(&["logs", "-f", "c"]);
    for round in 0..20 {
        node.berth(&["exec", "c", "sh", "-c", "until [ -p /go ]; do sleep 0.02; done; echo > /go"]).ok();
        if round % 5 == 4 {
            node.crash("runtime");
            node.answers();
        }
        for n in 1..=10 {
            assert_eq!(follower.next(), Some(format!("line {}", round * 10 + n)));
        }
    }
    drop(follower);
    node.finish();
}

#[test]
fn lines_have_the_attributes_that_are_asked_for() {
    let node = node(Setup::default());
    let asked = ["--log-opt", "labels=a,b", "--log-opt", "env-regex=^WHO"];
    let with = ["-l", "a=one two", "-e", "WHO=me", "-e", "NOT=me"];
    node.berth(&[&["run", "--name", "c"], &asked[..], &with, &["busybox", "echo", "said"]].concat()).ok();
    assert_eq!(node.berth(&["logs", "c"]).ok(), "said");
    assert_eq!(node.berth(&["logs", "--details", "c"]).ok(), "WHO=me,a=one+two said");
    node.finish();
}

fn tail_since_and_timestamps(setup: Setup) {
    let node = node(setup);
    node.berth(&[
        "run",
        "--name",
        "c",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2",
    ])
    .ok();
    assert_eq!(node.berth(&["logs", "--tail", "2", "c"]).stdout, b"line 5\n");
    let all = node.berth(&["logs", "c"]);
    assert_eq!((all.text(), all.error().as_str()), ("line 1\nline 2\nline 3\nline 4\nline 5", "oops\n"));
    let stamped = node.berth(&["logs", "-t", "-n", "3", "c"]);
    let time = stamped.ok().split(' ').next().unwrap().to_owned();
    assert!(time.len() >= 30 && time.ends_with('Z'), "nanoseconds: {time}");
    assert_eq!(node.berth(&["logs", "--since", &time, "c"]).ok(), "line 4\nline 5");
    assert_eq!(node.berth(&["logs", "--since", "1h", "--tail", "1", "c"]).error(), "oops\n");
    assert_eq!(node.berth(&["logs", "--until", "2001-01-01T00:00:00Z", "c"]).ok(), "");
    node.finish();
}

fn following_ends_with_the_container(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "-i", "--name", "c", "busybox", "sh", "-c", "echo one; read x; echo two"]).ok();
    let mut follower = node.lines(&["logs", "c", "-f"]);
    assert_eq!(follower.next().as_deref(), Some("one"));
    node.berth_with(&["attach", "c"], b"\n").ok();
    assert_eq!(follower.next().as_deref(), Some("two"));
    assert_eq!(follower.next(), None);
    assert!(follower.child.wait().unwrap().success());
    node.finish();
}

fn nothing_is_lost(setup: Setup) {
    let node = node(setup);
    let printed = node.berth(&["run", "--name", "c", "busybox", "seq", "1", "300000"]);
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(printed.stdout == expected.as_bytes(), "attached: {} bytes", printed.stdout.len());
    assert!(node.berth(&["logs", "c"]).stdout == expected.as_bytes(), "logged");
    assert_eq!(node.berth(&["logs", "-n", "1", "c"]).ok(), "300000");
    node.finish();
}

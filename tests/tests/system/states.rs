//! Every command of the life cycle in every state: exit code, words and the state afterwards, as Docker has them. What waits
//! for its restart policy is in [`super::restart`].

use std::thread;

use berth_tests::{Node, Setup};

use crate::node;

on_both_runtimes!(every_command_in_every_state, two_at_once);

/// What comes of a command.
enum Comes {
    /// It is done; the container is in this state afterwards ("" for gone).
    Done(&'static str),
    /// It is refused in these words, in which ID stands for the container's id; the state is as before.
    No(&'static str),
}
use Comes::{Done, No};

/// A command, in which C stands for the container, and what comes of it where that is created, running, paused, exited.
type Row = (&'static [&'static str], [Comes; 4]);

const NOT_RUNNING: Comes = No("Container ID is not running");
const NOT_PAUSED: Comes = No("Container ID is not paused");
const KILLED_NONE: Comes = No("cannot kill container: C: container ID is not running");
const STOPPED: Comes = No("You cannot attach to a stopped container, start it first");

const TABLE: &[Row] = &[
    (
        &["start", "C"],
        [Done("running"), Done("running"), No("cannot start a paused container, try unpause instead"), Done("running")],
    ),
    (&["stop", "-t", "0", "C"], [Done("created"), Done("exited"), Done("exited"), Done("exited")]),
    (&["restart", "-t", "0", "C"], [Done("running"), Done("running"), Done("running"), Done("running")]),
    (&["kill", "C"], [KILLED_NONE, Done("exited"), Done("exited"), KILLED_NONE]),
    (
        &["kill", "-s", "NOSUCH", "C"],
        [
            No("invalid signal: NOSUCH"),
            No("invalid signal: NOSUCH"),
            No("invalid signal: NOSUCH"),
            No("invalid signal: NOSUCH"),
        ],
    ),
    (&["pause", "C"], [NOT_RUNNING, Done("paused"), No("Container ID is already paused"), NOT_RUNNING]),
    (&["unpause", "C"], [NOT_PAUSED, NOT_PAUSED, Done("running"), NOT_PAUSED]),
    (&["rename", "C", "other"], [Done("created"), Done("running"), Done("paused"), Done("exited")]),
    (
        &["rename", "C", "taken"],
        [
            No("Conflict. The container name \"/taken\" is already in use by container"),
            No("Conflict. The container name \"/taken\" is already in use by container"),
            No("Conflict. The container name \"/taken\" is already in use by container"),
            No("Conflict. The container name \"/taken\" is already in use by container"),
        ],
    ),
    (&["update", "-m", "64m", "C"], [Done("created"), Done("running"), Done("paused"), Done("exited")]),
    (
        &["exec", "C", "true"],
        [
            No("container ID is not running"),
            Done("running"),
            No("Container C is paused, unpause the container before exec"),
            No("container ID is not running"),
        ],
    ),
    (
        &["attach", "C"],
        [STOPPED, Done("running"), No("You cannot attach to a paused container, unpause it first"), STOPPED],
    ),
    (&["commit", "C"], [Done("created"), Done("running"), Done("paused"), Done("exited")]),
    (
        &["rm", "C"],
        [
            Done(""),
            No(
                "cannot remove container \"/C\": container is running: stop the container before removing or force remove",
            ),
            No("cannot remove container \"/C\": container is paused and must be unpaused first"),
            Done(""),
        ],
    ),
    (&["rm", "-f", "C"], [Done(""), Done(""), Done(""), Done("")]),
];

/// A container of this name in this state.
fn put(node: &Node, name: &str, state: &str) {
    let make = if state == "created" { &["create"][..] } else { &["run", "-d"] };
    let rest = ["--name", name, "--network", "none", "busybox", "sleep", "1000"];
    node.berth(&[make, &rest].concat()).ok();
    match state {
        "paused" => drop(node.berth(&["pause", name]).ok().to_owned()),
        "exited" => drop(node.berth(&["kill", name]).ok().to_owned()),
        _ => {}
    }
    if state == "exited" {
        node.berth(&["wait", name]).ok();
    }
}

fn status(node: &Node, id: &str) -> String {
    node.berth(&["ps", "-a", "--no-trunc", "--filter", &format!("id={id}"), "--format", "{{.State}}"]).ok().to_owned()
}

fn every_command_in_every_state(setup: Setup) {
    let node = node(setup);
    node.berth(&["create", "--name", "taken", "busybox"]).ok();
    for (words, comes) in TABLE {
        for (state, comes) in ["created", "running", "paused", "exited"].into_iter().zip(comes) {
            put(&node, "C", state);
            let id = node.inspect("C", "{{.Id}}");
            let case = format!("{words:?} of one that is {state}");
            let done = if words[0] == "attach" && matches!(comes, Done(_)) {
                // It stays until the container ends; that it is attached shows in what it says then.
                node.berth(&["exec", "-d", "C", "sh", "-c", "while :; do echo here > /proc/1/fd/1; sleep 0.02; done"])
                    .ok();
                let mut attached = node.lines(&["attach", "C"]);
                assert_eq!(attached.next().as_deref(), Some("here"), "{case}");
                None
            } else {
                Some(node.berth(words))
            };
            let after = match (comes, done) {
                (Done(after), None) => (*after).to_owned(),
                (Done(after), Some(done)) => {
                    assert_eq!(done.code, 0, "{case}: {}", done.error());
                    if matches!(words[0], "start" | "stop" | "restart" | "kill" | "pause" | "unpause" | "update" | "rm")
                    {
                        assert_eq!(done.text(), "C", "{case}");
                    }
                    (*after).to_owned()
                }
                (No(why), Some(done)) => {
                    let why = why.replace("ID", &id);
                    let said = done.error();
                    assert!(done.code == 1 && said.contains(&why), "{case}: {} {said}", done.code);
                    state.to_owned()
                }
                (No(_), None) => unreachable!("only what is done is attached to"),
            };
            // One that was killed by force is said to have ended before it is.
            if after == "exited" {
                node.berth(&["wait", &id]).ok();
            }
            assert_eq!(status(&node, &id), after, "{case}");
            if !after.is_empty() {
                node.berth(&["rm", "-f", &id]).ok();
            }
        }
    }
    for (words, _) in TABLE {
        let gone = node.berth(words);
        let (code, text) = if *words == ["rm", "-f", "C"] { (0, "") } else { (1, "") };
        assert_eq!((gone.code, gone.text()), (code, text), "{words:?} of one that is gone");
        assert!(
            gone.error().contains("Error response from daemon: No such container: C"),
            "{words:?}: {}",
            gone.error()
        );
    }
    assert!(node.berth(&["wait", "C"]).fails(1).contains("Error response from daemon: No such container: C"));
    node.finish();
}

/// Two commands on one container: each is done or refused as if the other had come before it or after it.
fn two_at_once(setup: Setup) {
    let node = node(setup);
    let pairs: [(&[&str], &[&str]); 7] = [
        (&["start", "C"], &["start", "C"]),
        (&["start", "C"], &["rm", "-f", "C"]),
        (&["stop", "-t", "0", "C"], &["rm", "-f", "C"]),
        (&["rm", "-f", "C"], &["rm", "-f", "C"]),
        (&["pause", "C"], &["stop", "-t", "0", "C"]),
        (&["restart", "-t", "0", "C"], &["kill", "C"]),
        (&["rename", "C", "D"], &["update", "--pids-limit", "50", "C"]),
    ];
    for (one, other) in pairs {
        let state = if one[0] == "start" { "created" } else { "running" };
        put(&node, "C", state);
        let id = node.inspect("C", "{{.Id}}");
        let (first, second) = thread::scope(|scope| {
            let (first, second) = (scope.spawn(|| node.berth(one)), scope.spawn(|| node.berth(other)));
            (first.join().unwrap(), second.join().unwrap())
        });
        for done in [&first, &second] {
            let fine = done.code == 0
                || ["No such container: ", "is not running", "is not paused", "is already paused"]
                    .iter()
                    .any(|why| done.error().contains(why));
            assert!(fine, "{one:?} and {other:?}: {done:?}");
        }
        assert!(first.code == 0 || second.code == 0, "{one:?} and {other:?}: {first:?} {second:?}");
        // Whatever it is in, it can be told and removed.
        if !status(&node, &id).is_empty() {
            node.berth(&["inspect", &id]).ok();
            node.berth(&["rm", "-f", &id]).ok();
        }
        assert_eq!(status(&node, &id), "", "{one:?} and {other:?}");
    }
    node.finish();
}

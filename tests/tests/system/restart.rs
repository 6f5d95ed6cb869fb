//! Restart policies: what comes after each end, over crashes and reboots, and what commands do to a container that waits.

use berth_tests::{Node, Setup};

use crate::node;

on_both_runtimes!(a_policy_answers_each_exit, commands_meet_one_that_waits);

const POLICIES: [&str; 5] = ["no", "always", "unless-stopped", "on-failure", "on-failure:2"];

fn run(node: &Node, name: &str, policy: &str, script: &str) {
    let words = ["run", "-d", "--name", name, "--network", "none", "--restart", policy, "busybox", "sh", "-c", script];
    node.berth(&words).ok();
}

/// Waits until it has ended so often.
fn ends(node: &Node, name: &str, count: usize) {
    let mut ends =
        node.lines(&["events", "--since", "0", "--filter", "event=die", "--filter", &format!("container={name}")]);
    assert!(ends.nth(count - 1).is_some());
}

fn a_policy_answers_each_exit(setup: Setup) {
    let node = node(setup);
    let name = |policy: &str, code: i32| format!("{}-{code}", policy.replace(':', "-"));
    for policy in POLICIES {
        for code in [0, 1] {
            run(&node, &name(policy, code), policy, &format!("exit {code}"));
        }
    }
    for policy in POLICIES {
        for code in [0, 1] {
            let name = name(policy, code);
            let restarts = match (policy, code) {
                ("no", _) | ("on-failure" | "on-failure:2", 0) => Some(0),
                ("on-failure:2", _) => Some(2),
                _ => None,
            };
            if let Some(restarts) = restarts {
                assert_eq!(node.berth(&["wait", &name]).ok(), code.to_string(), "{name}");
                let told = node.inspect(&name, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}");
                assert_eq!(told, format!("exited {code} {restarts}"), "{name}");
            } else {
                ends(&node, &name, 3);
                assert!(node.inspect(&name, "{{.RestartCount}}").parse::<u32>().unwrap() >= 2, "{name}");
                // Another policy holds from the next end on.
                node.berth(&["update", "--restart", "no", &name]).ok();
                assert_eq!(node.berth(&["wait", &name]).ok(), code.to_string(), "{name}");
                assert_eq!(node.inspect(&name, "{{.State.Status}}"), "exited", "{name}");
                // A person who starts it begins to count anew.
                node.berth(&["start", &name]).ok();
                node.berth(&["wait", &name]).ok();
                assert_eq!(node.inspect(&name, "{{.RestartCount}}"), "0", "{name}");
            }
        }
    }
    node.finish();
}

fn commands_meet_one_that_waits(setup: Setup) {
    let node = node(setup);
    let names = ["stopped", "killed", "removed", "started"];
    for name in names {
        run(&node, name, "always", "exit 3");
    }
    // By now it waits for some seconds, and longer each time.
    for name in names {
        ends(&node, name, 6);
    }
    let mut waiting = node.command(&["wait", "stopped"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let told = "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.ExitCode}} {{.State.Pid}}";
    assert_eq!(node.inspect("stopped", told), "restarting true true 3 0");
    assert!(
        node.berth(&["ps", "--filter", "name=stopped", "--format", "{{.Status}}"]).ok().starts_with("Restarting (3) ")
    );
    let id = node.inspect("stopped", "{{.Id}}");
    for (words, why) in [
        (&["exec", "stopped", "true"][..], format!("Container {id} is restarting, wait until the container is running")),
        (&["pause", "stopped"], format!("Container {id} is restarting, wait until the container is running")),
        (&["unpause", "stopped"], format!("Container {id} is not paused")),
        (&["attach", "stopped"], "You cannot attach to a restarting container, wait until it is running".into()),
        (
            &["rm", "stopped"],
            "cannot remove container \"/stopped\": container is restarting: stop the container before removing or force \
             remove"
                .into(),
        ),
    ] {
        let refused = node.berth(words).fails(1);
        assert!(refused.contains(&why), "{words:?}: {refused}");
    }
    node.berth(&["rename", "stopped", "halted"]).ok();
    node.berth(&["stop", "halted"]).ok();
    assert_eq!(node.inspect("halted", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    assert!(waiting.wait().unwrap().success());
    assert_eq!(node.berth(&["kill", "killed"]).ok(), "killed");
    assert_eq!(node.inspect("killed", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    node.berth(&["rm", "-f", "removed"]).ok();
    node.berth(&["inspect", "removed"]).fails(1);
    node.berth(&["start", "started"]).ok();
    node.berth(&["stop", "-t", "0", "started"]).ok();
    // Whom a person stopped stays so: none of them has begun again.
    assert_eq!(node.berth(&["ps", "-q"]).ok(), "");
    node.finish();
}

/// For each policy one that runs, and one that a person has stopped.
fn running_and_stopped(node: &Node) {
    for policy in POLICIES {
        let name = policy.replace(':', "-");
        for what in ["runs", "halted"] {
            run(node, &format!("{what}-{name}"), policy, "exec sleep 1000");
        }
        node.berth(&["stop", "-t", "0", &format!("halted-{name}")]).ok();
    }
}

/// Waits for the start of a container that the service starts by itself.
fn comes_back(node: &Node, name: &str) {
    let words = ["events", "--since", "0", "--filter", "event=start", "--filter", &format!("container={name}")];
    assert!(node.lines(&words).next().is_some(), "{name} starts");
    assert_eq!(node.inspect(name, "{{.State.Status}}"), "running", "{name}");
}

#[test]
fn policies_over_a_crash_of_the_service() {
    let node = Node::start();
    running_and_stopped(&node);
    let pid = |name: &str| node.inspect(name, "{{.State.Status}} {{.State.Pid}} {{.RestartCount}}");
    let running: Vec<_> = POLICIES.iter().map(|policy| format!("runs-{}", policy.replace(':', "-"))).collect();
    let before: Vec<_> = running.iter().map(|name| pid(name)).collect();
    node.crash("runtime");
    node.answers();
    comes_back(&node, "halted-always");
    assert_eq!(running.iter().map(|name| pid(name)).collect::<Vec<_>>(), before);
    for policy in ["no", "unless-stopped", "on-failure", "on-failure-2"] {
        let name = format!("halted-{policy}");
        assert_eq!(node.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137", "{name}");
    }
    node.finish();
}

#[test]
fn policies_over_a_reboot() {
    let node = Node::start();
    running_and_stopped(&node);
    node.reboot();
    for name in ["halted-always", "runs-always", "runs-unless-stopped", "runs-on-failure", "runs-on-failure-2"] {
        comes_back(&node, name);
    }
    // As in Docker, for an end that nobody saw.
    assert_eq!(node.inspect("runs-no", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"), "exited 255 0");
    let why = node.berth(&["why", "runs-no"]).ok().to_owned();
    assert!(why.contains("the machine went down while it ran"), "{why}");
    for policy in ["no", "unless-stopped", "on-failure", "on-failure-2"] {
        let name = format!("halted-{policy}");
        assert_eq!(node.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137", "{name}");
    }
    // What was reserved by those that are gone is free.
    node.berth(&["run", "--rm", "busybox", "true"]).ok();
    node.finish();
}

//! kill -9: containers go on, nothing that was answered is lost, nothing is left over.

use std::{
    fs,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use berth_tests::{Node, Setup};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::networks::fetch;

const SERVICES: [&str; 4] = ["image", "snapshotter", "runtime", "registry-proxy"];
const CONTAINERS: usize = 20;

fn start_twenty(node: &Node) {
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    thread::scope(|scope| {
        for n in 0..CONTAINERS {
            scope.spawn(move || {
                node.berth(&[
                    "run",
                    "-d",
                    "--name",
                    &format!("c{n}"),
                    "--network",
                    "none",
                    "busybox",
                    "sh",
                    "-c",
                    count,
                ])
                .ok();
            });
        }
    });
}

/// Every log counts from one without a gap.
fn logs_have_no_gap(node: &Node) {
    for n in 0..CONTAINERS {
        let log = node.berth(&["logs", &format!("c{n}")]);
        for (at, line) in log.ok().lines().enumerate() {
            assert_eq!(line, (at + 1).to_string(), "container c{n}");
        }
        assert!(log.text().lines().count() > 1, "container c{n} prints");
    }
}

#[test]
fn containers_survive_every_service_and_all_at_once() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    node.load("busybox");
    start_twenty(&node);
    let pids =
        |node: &Node| (0..CONTAINERS).map(|n| node.inspect(&format!("c{n}"), "{{.State.Pid}}")).collect::<Vec<_>>();
    let before = pids(&node);
    for round in SERVICES.iter().map(|s| vec![*s]).chain([SERVICES.to_vec()]) {
        thread::scope(|scope| {
            let creating = scope.spawn(|| node.berth(&["create", "--name", "half", "busybox", "true"]));
            let pulling = scope.spawn(|| node.berth(&["pull", "-q", "redis:4-alpine"]));
            for service in &round {
                node.crash(service);
            }
            node.answers();
            creating.join().unwrap();
            pulling.join().unwrap();
        });
        assert_eq!(pids(&node), before, "after killing {round:?}");
        assert_eq!(node.berth(&["ps", "-q"]).ok().lines().count(), CONTAINERS);
        // What was cut off can be done again.
        node.berth(&["rm", "-f", "half"]);
        node.berth(&["create", "--name", "half", "busybox", "true"]).ok();
        node.berth(&["rm", "half"]).ok();
        node.berth(&["pull", "-q", "redis:4-alpine"]).ok();
        node.berth(&["rmi", "redis:4-alpine"]).ok();
    }
    logs_have_no_gap(&node);
    node.finish();
}

#[test]
fn published_ports_answer_while_every_service_is_killed() {
    let node = Node::start();
    let serve = "echo hello > /index.html; exec httpd -f -p 80 -h /";
    node.berth(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", serve]).ok();
    let listening = "until grep -q ':0050 ' /proc/net/tcp /proc/net/tcp6; do :; done";
    node.berth(&["exec", "web", "sh", "-c", listening]).ok();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                let answer = fetch(&node, "127.0.0.1:8080").expect("the port answers all the time");
                assert!(answer.ends_with("hello\n"), "{answer}");
                answers += 1;
            }
            answers
        });
        for service in SERVICES {
            node.crash(service);
            node.answers();
        }
        node.crash("all");
        for service in SERVICES {
            node.pids_of(service).into_iter().for_each(wait_for_end);
        }
        node.boot();
        node.answers();
        done.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
    });
    node.finish();
}

#[test]
fn the_supervisor_dies_and_comes_back() {
    let node = Node::start();
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    node.berth(&["run", "-d", "--name", "ends", "-i", "busybox", "sh", "-c", "read x; exit 42"]).ok();
    let pid = node.inspect("c", "{{.State.Pid}}");
    let ends: i32 = node.inspect("ends", "{{.State.Pid}}").parse().unwrap();
    node.crash("all");
    for service in SERVICES {
        for pid in node.pids_of(service) {
            // They end with their supervisor; a killed one cannot be waited for, its pidfd can.
            wait_for_end(pid);
        }
    }
    // One ends while nobody looks.
    kill(Pid::from_raw(ends), Signal::SIGKILL).unwrap();
    wait_for_end(ends);
    node.boot();
    assert_eq!(node.inspect("c", "{{.State.Pid}} {{.State.Status}}"), format!("{pid} running"));
    assert_eq!(node.berth(&["wait", "ends"]).ok(), "137");
    assert_eq!(node.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    node.finish();
}

#[test]
fn what_ends_and_goes_while_the_service_is_away_is_told_all_the_same() {
    let node = Node::start();
    // Without -i: its input would end with the service, and it with that.
    let mut client = node
        .command(&["run", "--rm", "--name", "c", "busybox", "sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = || node.berth(&["inspect", "-f", "{{.State.Pid}}", "c"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let pid: i32 = loop {
        match pid().text().parse() {
            Ok(pid) if pid > 0 => break pid,
            _ => assert!(Instant::now() < deadline, "the container runs"),
        }
    };
    node.crash("runtime");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(137));
    assert_eq!(node.berth(&["ps", "-aq"]).ok(), "");
    node.finish();
}

#[test]
fn a_shim_that_is_held_up_over_a_restart_keeps_its_container() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let node = Node::start();
    node.berth(&["run", "-d", "--name", "c", "-p", "8080:80", "busybox", "sleep", "1000"]).ok();
    let (id, pid) = (node.inspect("c", "{{.Id}}"), node.inspect("c", "{{.State.Pid}}"));
    let own = std::fs::read_to_string(node.state().join("runtime/bundles").join(&id).join("shim.pid")).unwrap();
    let shim = Pid::from_raw(own.split(' ').next().unwrap().parse().unwrap());
    kill(shim, Signal::SIGSTOP).unwrap();
    node.crash("runtime");
    node.answers();
    assert_eq!(node.inspect("c", "{{.State.Pid}} {{.State.Status}}"), format!("{pid} running"));
    // What it has is still its own.
    node.berth(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125);
    kill(shim, Signal::SIGCONT).unwrap();
    node.berth(&["exec", "c", "true"]).ok();
    node.berth(&["stop", "-t", "0", "c"]).ok();
    assert_eq!(node.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    node.finish();
}

/// A shim that does not answer is its own container's trouble alone.
#[test]
fn a_shim_that_hangs_holds_up_nobody() {
    let node = Node::start();
    for name in ["stuck", "other"] {
        node.berth(&["run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "1000"]).ok();
    }
    let pid_file = node.state().join("runtime/bundles").join(node.inspect("stuck", "{{.Id}}")).join("shim.pid");
    let shim = fs::read_to_string(pid_file).unwrap().split(' ').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
    // One that waits for it, and holds its turn.
    let mut waiting = node.command(&["stop", "-t", "0", "stuck"]).stdout(Stdio::null()).spawn().unwrap();
    assert_eq!(node.berth(&["ps", "-aq"]).ok().lines().count(), 2);
    assert_eq!(node.inspect("stuck", "{{.State.Status}}"), "running");
    assert_eq!(node.berth(&["exec", "other", "echo", "well"]).ok(), "well");
    node.berth(&["stop", "-t", "0", "other"]).ok();
    assert_eq!(node.berth(&["run", "--rm", "--network", "none", "busybox", "echo", "well"]).ok(), "well");
    kill(Pid::from_raw(shim), Signal::SIGCONT).unwrap();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(node.inspect("stuck", "{{.State.Status}}"), "exited");
    node.finish();
}

fn wait_for_end(pid: i32) {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    // SAFETY: pidfd_open takes a number and flags and gives a new descriptor or an error.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return;
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut poll = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(20_000u16)), Ok(1), "process {pid} ends");
}

#[test]
fn an_interrupted_pull_leaves_nothing_visible_and_is_done_again() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    let mut client = node.command(&["pull", "nginx"]).stdout(Stdio::null()).spawn().unwrap();
    // Killed as soon as something of the pull is on disk.
    let ingest = node.root().join("image/ingest");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_dir(&ingest).map_or(0, |d| d.count()) == 0 && client.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the pull begins");
    }
    node.crash("image");
    node.crash("snapshotter");
    client.wait().unwrap();
    node.answers();
    let images = node.berth(&["images", "-q"]);
    let visible = images.ok().lines().count();
    if visible == 1 {
        node.berth(&["run", "--rm", "--network", "none", "nginx", "true"]).ok();
    }
    node.berth(&["pull", "-q", "nginx"]).ok();
    node.berth(&["run", "--rm", "--network", "none", "nginx", "nginx", "-v"]).ok();
    node.finish();
}

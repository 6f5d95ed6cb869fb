//! A shim that is killed at any moment leaves what `delete` can remove.

use super::client::{Node, pidfd};

#[test]
fn killed_while_the_container_runs() {
    let mut node = Node::script("sleep 1000");
    node.run();
    let pid = std::fs::read_to_string(node.path("init.pid")).unwrap().parse().unwrap();
    let process = pidfd(pid);
    node.kill_shim();
    for _ in 0..2 {
        let answer = node.clean_up();
        assert_eq!((answer.pid, answer.exit_status), (pid, 137));
    }
    assert!(node.bundle.cgroups().is_empty());
    use rustix::event::{PollFd, PollFlags, poll};
    assert_eq!(poll(&mut [PollFd::new(&process, PollFlags::IN)], None), Ok(1), "the process has ended");
}

#[test]
fn killed_before_the_start_and_before_the_create() {
    let mut node = Node::script("sleep 1000");
    node.serve();
    node.create().unwrap();
    node.kill_shim();
    node.clean_up();
    let mut node = Node::script("sleep 1000");
    node.serve();
    node.kill_shim();
    node.clean_up();
}

#[test]
fn killed_at_any_moment_of_the_create() {
    for round in 0..20 {
        let mut node = Node::script("sleep 1000");
        node.serve();
        let pid = node.shim_pid();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // How far it gets is different each time; that is the point.
                for _ in 0..round * 20 {
                    std::thread::yield_now();
                }
                // SAFETY: the call takes its arguments by value; the child is not reaped yet.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            });
            let _ = node.create().and_then(|_| node.start(""));
        });
        node.kill_shim();
        node.clean_up();
        assert!(node.bundle.cgroups().is_empty());
    }
}

#[test]
fn one_that_was_given_up_ends_with_its_container() {
    use rustix::event::{PollFd, PollFlags, poll};
    for (creates, stopped) in [(false, false), (true, false), (true, true)] {
        let mut node = Node::script("sleep 1000");
        node.serve();
        if creates {
            node.create().unwrap();
        } else {
            // It answers, so it has said who it is.
            node.kill("", 9).unwrap_err();
        }
        let shim = pidfd(node.shim_pid() as u32);
        if stopped {
            // SAFETY: the call takes its arguments by value; the child is not reaped yet.
            unsafe { libc::kill(node.shim_pid(), libc::SIGSTOP) };
        }
        node.clean_up();
        let soon = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&shim, PollFlags::IN)], Some(&soon)), Ok(1), "the shim has ended");
        assert!(node.bundle.cgroups().is_empty());
    }
}

#[test]
fn what_ended_before_is_told_as_it_was() {
    let mut node = Node::script("exit 11");
    node.run();
    node.wait("");
    node.kill_shim();
    assert_eq!(node.clean_up().exit_status, 11);
}

#[test]
fn a_bundle_that_is_gone() {
    let node = Node::script("");
    std::fs::remove_dir_all(node.bundle.root()).unwrap();
    assert_eq!(node.clean_up().pid, 0);
}

//! Streams and terminals: attach, detach, resize, binary pipes.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Stdio},
};

use berth_tests::{Node, Setup};
use nix::{
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

use crate::node;

on_both_runtimes!(
    pipes_are_binary_both_ways,
    a_terminal_is_a_terminal,
    detach_and_attach_again,
    several_clients_see_the_same
);

/// `berth` on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    seen: String,
}

impl Terminal {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = node.command(arguments).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { child, master: pty.master.into(), slave: pty.slave, seen: String::new() }
    }

    fn say(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until the screen shows this, and forgets what came before it.
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let mut poll = [nix::poll::PollFd::new(self.master.as_fd(), nix::poll::PollFlags::POLLIN)];
            let ready = nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(20_000u16)).unwrap();
            assert_eq!(ready, 1, "the terminal shows {text:?}; it shows {:?}", self.seen);
            let size = self.master.read(&mut buffer).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..size]));
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }

    fn ends_with(&mut self, code: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        let cooked = tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON);
        assert!(cooked, "the terminal is as it was");
    }
}

fn pipes_are_binary_both_ways(setup: Setup) {
    let node = node(setup);
    let bytes: Vec<u8> = (0..2_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let cat = node.berth_with(&["run", "--rm", "-i", "busybox", "cat"], &bytes);
    assert!(cat.code == 0 && cat.stdout == bytes, "{} bytes of {}; {}", cat.stdout.len(), bytes.len(), cat.error());
    assert_eq!(node.berth_with(&["run", "--rm", "busybox", "cat"], b"unread").ok(), "", "without -i input is empty");
    node.finish();
}

fn a_terminal_is_a_terminal(setup: Setup) {
    let node = node(setup);
    let mut terminal = Terminal::start(&node, &["run", "--rm", "-it", "busybox", "sh"]);
    terminal.expect("# ");
    terminal.say("tty; stty size; echo done\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("33 101");
    terminal.expect("done");
    terminal.say("exit 6\n");
    terminal.ends_with(6);
    assert!(node.berth(&["run", "--rm", "-it", "busybox", "true"]).fails(1).contains("not a TTY"));
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let mut exec = Terminal::start(&node, &["exec", "-it", "c", "/bin/sh"]);
    exec.expect("# ");
    exec.say("test -t 0 && echo a terminal\n");
    exec.expect("a terminal\r\n");
    exec.say("exit 2\n");
    exec.ends_with(2);
    node.finish();
}

fn detach_and_attach_again(setup: Setup) {
    let node = node(setup);
    let mut terminal = Terminal::start(&node, &["run", "--name", "c2", "-it", "busybox", "sh"]);
    terminal.expect("# ");
    terminal.say("\x10\x11");
    terminal.ends_with(0);
    assert_eq!(node.inspect("c2", "{{.State.Running}}"), "true");
    let mut again = Terminal::start(&node, &["attach", "c2"]);
    again.say("echo still $((40+2))\n");
    again.expect("still 42");
    again.say("exit 0\n");
    again.ends_with(0);
    assert_eq!(node.inspect("c2", "{{.State.Status}}"), "exited");
    node.finish();
}

fn several_clients_see_the_same(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "-i", "--name", "c", "busybox", "sh", "-c", "read x; seq 1 1000"]).ok();
    let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    let mut watchers: Vec<_> = (0..3)
        .map(|_| {
            let mut command = node.command(&["attach", "--no-stdin", "c"]);
            let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            (child, String::new())
        })
        .collect();
    // They are attached when the service says so; its events are the witness.
    let mut events = node.lines(&["events", "--since", "10m", "--filter", "event=attach", "--format", "{{.Action}}"]);
    for _ in 0..watchers.len() {
        assert_eq!(events.next().as_deref(), Some("attach"));
    }
    let main = node.berth_with(&["attach", "c"], b"\n");
    assert_eq!(main.stdout, expected.as_bytes());
    for (child, seen) in &mut watchers {
        child.stdout.take().unwrap().read_to_string(seen).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(*seen, expected);
    }
    node.finish();
}

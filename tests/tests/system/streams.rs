//! Streams and terminals: attach, detach, resize, binary pipes.

use std::{io::Read as _, process::Stdio};

use berth_tests::{Setup, Terminal};

use crate::node;

on_both_runtimes!(
    pipes_are_binary_both_ways,
    a_terminal_is_a_terminal,
    detach_and_attach_again,
    several_clients_see_the_same
);

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
    let mut terminal = Terminal::start(&mut node.command(&["run", "--rm", "-it", "busybox", "sh"]));
    terminal.expect("# ");
    terminal.say("tty; stty size; echo done\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("33 101");
    terminal.expect("done");
    terminal.say("exit 6\n");
    assert_eq!(terminal.end(), 6);
    assert!(node.berth(&["run", "--rm", "-it", "busybox", "true"]).fails(1).contains("not a TTY"));
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let mut exec = Terminal::start(&mut node.command(&["exec", "-it", "c", "/bin/sh"]));
    exec.expect("# ");
    exec.say("test -t 0 && echo a terminal\n");
    exec.expect("a terminal\r\n");
    exec.say("exit 2\n");
    assert_eq!(exec.end(), 2);
    node.finish();
}

fn detach_and_attach_again(setup: Setup) {
    let node = node(setup);
    let mut terminal = Terminal::start(&mut node.command(&["run", "--name", "c2", "-it", "busybox", "sh"]));
    terminal.expect("# ");
    terminal.say("\x10\x11");
    assert_eq!(terminal.end(), 0);
    assert_eq!(node.inspect("c2", "{{.State.Running}}"), "true");
    let mut again = Terminal::start(&mut node.command(&["attach", "c2"]));
    again.say("echo still $((40+2))\n");
    again.expect("still 42");
    again.say("exit 0\n");
    assert_eq!(again.end(), 0);
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

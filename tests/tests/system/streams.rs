//! Streams and terminals: attach, detach, resize, binary pipes.

use std::{io::Read as _, process::Stdio};

use berth_tests::{Setup, Terminal};
use nix::{
    pty::Winsize,
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

use crate::node;

on_both_runtimes!(
    pipes_are_binary_both_ways,
    a_terminal_is_a_terminal,
    detach_and_attach_again,
    several_clients_see_the_same
);

/// However a command that holds the terminal is ended, the terminal is as it was.
#[test]
fn a_signal_gives_the_terminal_back() {
    let node = node(Setup::default());
    node.berth(&["run", "-d", "-it", "--name", "c", "busybox", "sh"]).ok();
    for (signal, code) in [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGQUIT, 131)]
    {
        let mut terminal = Terminal::start(&mut node.command(&["attach", "--sig-proxy=false", "c"]));
        terminal.say("echo $((40+2))\n");
        terminal.expect("42");
        let flags = tcgetattr(&terminal.slave).unwrap().local_flags;
        assert!(!flags.contains(LocalFlags::ICANON), "it is raw meanwhile");
        kill(Pid::from_raw(terminal.child.id() as i32), signal).unwrap();
        assert_eq!(terminal.end(), code, "{signal}");
        assert_eq!(node.inspect("c", "{{.State.Running}}"), "true");
    }
    node.finish();
}

/// A size that changes arrives, and keys that leave are seen wherever they stand in what is typed.
#[test]
fn sizes_and_keys_arrive() {
    let node = node(Setup::default());
    node.berth(&["run", "-d", "-it", "--name", "c", "busybox", "sh"]).ok();
    let mut terminal = Terminal::start(&mut node.command(&["attach", "c"]));
    terminal.say("stty size\n");
    terminal.expect("33 101");
    let size = Winsize { ws_row: 21, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    nix::ioctl_write_ptr_bad!(resize, nix::libc::TIOCSWINSZ, Winsize);
    // SAFETY: the descriptor is open, and the size is there for the kernel to read.
    unsafe { resize(std::os::fd::AsRawFd::as_raw_fd(&terminal.master), &raw const size) }.unwrap();
    // The other end's process group is not this terminal's: whoever holds the terminal is told as a shell would tell it.
    kill(Pid::from_raw(terminal.child.id() as i32), Signal::SIGWINCH).unwrap();
    // It asks until it is there; how long a message takes is nobody's promise.
    terminal.say("until stty size | grep -q '21 77'; do sleep 0.02; done; echo resized $((40+2))\n");
    terminal.expect("resized 42");
    terminal.say("\x10\x11");
    assert_eq!(terminal.end(), 0);
    node.berth(&["run", "-d", "-it", "--name", "k", "busybox", "cat"]).ok();
    // Alone, behind other input, begun twice, in two pieces.
    for typed in ["\x10\x11", "echo x\x10\x11", "\x10\x10\x11", "a\x10b\x10\x11"] {
        let mut terminal = Terminal::start(&mut node.command(&["attach", "k"]));
        // Until it is raw, the terminal itself would take ctrl-q. Once it shows it at most.
        terminal.say("go\n");
        terminal.expect("go");
        terminal.expect("go");
        terminal.say(typed);
        assert_eq!(terminal.end(), 0, "{typed:?}");
    }
    let mut terminal = Terminal::start(&mut node.command(&["attach", "--detach-keys", "ctrl-a,d", "c"]));
    terminal.say("\x03echo $((50+5))\n");
    terminal.expect("55");
    terminal.say("\x10\x11\x01");
    terminal.say("d");
    assert_eq!(terminal.end(), 0);
    assert_eq!(node.inspect("c", "{{.State.Running}}"), "true");
    node.finish();
}

/// One that reads nothing holds up neither the container nor those who read.
#[test]
fn a_slow_client_holds_up_nobody() {
    let node = node(Setup::default());
    let print = "mkfifo /go; read -r x < /go; i=0; while [ $i -lt 200 ]; do i=$((i+1)); head -c 65536 /dev/zero | tr '\\0' x; echo; done; \
                 echo end; read -r x < /go";
    node.berth(&["run", "-d", "--name", "c", "busybox", "sh", "-c", print]).ok();
    let mut command = node.command(&["attach", "--no-stdin", "c"]);
    // Its pipe takes 64 KiB, and nobody reads.
    let (unread, writer) = std::io::pipe().unwrap();
    let mut slow = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut quick = node.lines(&["attach", "--no-stdin", "c"]);
    let mut events = node.lines(&["events", "--since", "10m", "--filter", "event=attach", "--format", "{{.Action}}"]);
    for _ in 0..2 {
        assert_eq!(events.next().as_deref(), Some("attach"));
    }
    node.berth(&["exec", "c", "sh", "-c", "until [ -p /go ]; do sleep 0.02; done; echo > /go"]).ok();
    for _ in 0..200 {
        assert_eq!(quick.next().map(|line| line.len()), Some(65536));
    }
    assert_eq!(quick.next().as_deref(), Some("end"));
    node.berth(&["exec", "c", "sh", "-c", "echo > /go"]).ok();
    assert_eq!(quick.next(), None);
    node.berth(&["wait", "c"]).ok();
    slow.kill().unwrap();
    slow.wait().unwrap();
    drop((unread, events));
    node.finish();
}

/// Eight at once, each with bytes of its own both ways.
#[test]
fn eight_pipes_at_once_mix_nothing_up() {
    let node = node(Setup::default());
    std::thread::scope(|scope| {
        for seed in 1..=8u32 {
            let node = &node;
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..1_000_000u32)
                    .flat_map(|n| n.wrapping_mul(2_654_435_761).wrapping_mul(seed).to_le_bytes())
                    .collect();
                let cat = node.berth_with(&["run", "--rm", "-i", "--network", "none", "busybox", "cat"], &bytes);
                assert!(cat.code == 0 && cat.stdout == bytes, "{seed}: {} of {}", cat.stdout.len(), bytes.len());
            });
        }
    });
    node.finish();
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

//! The program as the first process of a pid namespace of its own, as it is in a container.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

struct Init {
    directory: TempDir,
}

impl Init {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let init = Self { directory };
        fs::write(init.path(), berth_init::PROGRAM).unwrap();
        fs::set_permissions(init.path(), fs::Permissions::from_mode(0o755)).unwrap();
        init
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("docker-init")
    }

    /// In a pid namespace, with its own /proc.
    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]).arg(self.path()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Exit code, output and errors.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.start(arguments).wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// The first process in the namespace, seen from here.
fn first(unshare: &Child) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    Pid::from_raw(fs::read_to_string(children).unwrap().trim().parse().unwrap())
}

#[test]
fn it_is_static_and_small() {
    assert!(berth_init::PROGRAM.starts_with(b"\x7fELF"));
    assert!(berth_init::PROGRAM.len() < 20 << 10, "{}", berth_init::PROGRAM.len());
}

#[test]
fn exit_codes_are_the_childs() {
    let init = Init::new();
    let code = |arguments: &[&str]| init.run(arguments).0;
    assert_eq!(code(&["--", "true"]), 0);
    assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&["--", "sh", "-c", "kill -KILL $$"]), 137);
    assert_eq!(code(&["--", "sh", "-c", "kill -TERM $$"]), 143);
    assert_eq!(init.run(&["--", "sh", "-c", "echo $$ $0 $1", "--", "-x"]).1, "2 -- -x");
    assert_eq!(code(&[]), 1);
}

#[test]
fn what_cannot_be_executed_is_told() {
    let init = Init::new();
    let (code, _, said) = init.run(&["--", "no-such-program"]);
    assert_eq!((code, said.as_str()), (127, "docker-init: exec no-such-program failed: No such file or directory"));
    let (code, _, said) = init.run(&["--", "/no/such"]);
    assert_eq!((code, said.as_str()), (127, "docker-init: exec /no/such failed: No such file or directory"));
    let (code, _, said) = init.run(&["--", "/etc/passwd"]);
    assert_eq!((code, said.as_str()), (126, "docker-init: exec /etc/passwd failed: Permission denied"));
    assert_eq!(init.run(&["--", ""]).0, 127);
}

#[test]
fn signals_come_through() {
    let init = Init::new();
    let names = ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "URG", "WINCH", "IO", "PWR", "RTMIN", "RTMAX"];
    let traps: String = names.iter().map(|name| format!("trap 'echo {name}' {name}; ")).collect();
    let mut child =
        init.start(&["--", "bash", "-c", &format!("{traps} echo ready; while read -r line; do :; done; :")]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    assert_eq!(line(), "ready");
    let first = first(&child);
    for name in names {
        let number = match name {
            "RTMIN" => 34,
            "RTMAX" => 64,
            name => format!("SIG{name}").parse::<Signal>().unwrap() as i32,
        };
        assert!(Command::new("kill").args([format!("-{number}"), first.to_string()]).status().unwrap().success());
        // A trap runs when the command that was going on is done.
        writeln!(child.stdin.as_mut().unwrap()).unwrap();
        assert_eq!(line(), name);
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn orphans_are_reaped() {
    let init = Init::new();
    // A hundred that lose their parent and die; the shell itself has no child then.
    let orphans = "for i in $(seq 100); do (true & true); done; \
                   until [ $(ls -d /proc/[0-9]* | wc -l) -le 4 ]; do :; done; grep -l '^State:.Z' /proc/[0-9]*/status; echo none left";
    assert_eq!(init.run(&["--", "sh", "-c", orphans]).1, "none left");
}

#[test]
fn a_stopped_child_goes_on_and_ends() {
    let init = Init::new();
    let mut child = init.start(&["--", "sh", "-c", "echo ready; read -r line; exit 3"]);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let first = first(&child);
    kill(first, Signal::SIGTSTP).unwrap();
    kill(first, Signal::SIGCONT).unwrap();
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

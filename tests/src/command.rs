//! Commands with a deadline, and what came of them.

use std::{
    io::{Read, Write},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// No command of a test takes longer than this; one that does is killed and fails the test.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What came of a command.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Standard output as text without the last line feed.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("output is text").trim_end_matches('\n')
    }

    /// Standard error as text.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts exit code 0 and gives standard output.
    ///
    /// # Panics
    /// The command failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{} failed: {}{}", self.line, self.error(), String::from_utf8_lossy(&self.stdout));
        self.text()
    }

    /// Asserts this exit code and gives standard error.
    ///
    /// # Panics
    /// The command ended otherwise.
    #[track_caller]
    pub fn fails(&self, code: i32) -> String {
        let output = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.code, code, "{} should end with {code}: {}{output}", self.line, self.error());
        self.error()
    }
}

/// Runs a command to its end, feeding it `input`.
///
/// # Panics
/// It cannot be started or outlives [`DEADLINE`].
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Finished {
    let line = format!("{command:?}");
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    finish(child, line, input)
}

/// Waits for a child whose streams are pipes.
///
/// # Panics
/// It outlives [`DEADLINE`].
#[track_caller]
pub fn finish(mut child: Child, line: String, input: &[u8]) -> Finished {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = reader(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = reader(child.stderr.take().map(|s| Box::new(s) as _));
    let stdin = child.stdin.take();
    let input = input.to_owned();
    let writer = thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input closes it early.
            let _ = stdin.write_all(&input);
        }
    });
    let (sender, done) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    let status = match done.recv_timeout(DEADLINE) {
        Ok(status) => status.expect("a child can be waited for"),
        Err(_) => {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let stderr = stderr.join().unwrap_or_default();
            panic!("{line} took longer than {DEADLINE:?}: {}", String::from_utf8_lossy(&stderr));
        }
    };
    let _ = writer.join();
    Finished {
        line,
        code: status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(-1),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    }
}

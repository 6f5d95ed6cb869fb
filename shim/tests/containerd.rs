//! The shim as stock containerd's runtime: `ctr run --runtime io.containerd.berth.v2`.
#![allow(clippy::unwrap_used)]

#[path = "oci/bundle.rs"]
#[allow(dead_code)]
mod bundle;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use bundle::Bundle;

/// Debian's containerd with everything of its own in a private directory.
struct Containerd {
    /// Its directory, with a root file system of busybox.
    bundle: Bundle,
    child: Child,
}

impl Containerd {
    fn start() -> Self {
        let bundle = Bundle::script("");
        let directory = bundle.path().to_owned();
        let child = Self::launch(&directory);
        Self { bundle, child }.ready()
    }

    fn launch(directory: &Path) -> Child {
        let d = directory.display();
        let config = format!(
            "version = 2\nroot = \"{d}/root\"\nstate = \"{d}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\"]\n\
             [grpc]\naddress = \"{d}/c.sock\"\n[ttrpc]\naddress = \"{d}/t.sock\"\n"
        );
        fs::write(directory.join("config.toml"), config).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
        let shims = Path::new(env!("CARGO_BIN_EXE_containerd-shim-berth-v2")).parent().unwrap();
        let path = format!("{}:{}", shims.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("containerd");
        command.arg("--config").arg(directory.join("config.toml")).env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("containerd is installed")
    }

    /// Waits until it answers: `ctr` itself waits for the connection.
    fn ready(self) -> Self {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.ctr(&["version"]).status.success() {
            assert!(std::time::Instant::now() < deadline, "containerd answers: {}", self.log());
        }
        self
    }

    fn restart(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
        self.child = Self::launch(self.bundle.path());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.ctr(&["version"]).status.success() {
            assert!(std::time::Instant::now() < deadline, "containerd answers: {}", self.log());
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bundle.path().join("log")).unwrap_or_default()
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        let mut ctr = Command::new("ctr");
        ctr.arg("-a").arg(self.bundle.path().join("c.sock")).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// A container of our runtime on the root file system.
    fn run(&self, options: &[&str], id: &str, words: &[&str]) -> Output {
        let id = self.id(id);
        let root = self.bundle.root();
        let shim = ["run", "--runtime", "io.containerd.berth.v2", "--rootfs"];
        self.ctr(&[&shim[..], options, &[root.to_str().unwrap(), &id], words].concat())
    }

    /// Names are the machine's as far as cgroups go.
    fn id(&self, id: &str) -> String {
        format!("{}-{id}", self.bundle.id)
    }

    #[track_caller]
    fn ok(&self, output: &Output) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}\n{}", text(&output.stdout), text(&output.stderr), self.log());
        text(&output.stdout)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in ["one", "two", "three"] {
                self.ctr(&["tasks", "rm", "-f", &self.id(id)]);
            }
        }
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        // `ctr` leaves the FIFOs of containers that it did not wait for.
        for directory in fs::read_dir("/run/containerd/fifo").into_iter().flatten().flatten() {
            let mut names = fs::read_dir(directory.path()).into_iter().flatten().flatten();
            if names.any(|name| name.file_name().to_string_lossy().starts_with(&self.bundle.id)) {
                let _ = fs::remove_dir_all(directory.path());
            }
        }
        // Its namespace's name is that of a directory of cgroups.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join("default"));
        }
    }
}

#[test]
fn containers_tasks_and_events() {
    let mut containerd = Containerd::start();
    let mut events = Command::new("ctr")
        .arg("-a")
        .arg(containerd.bundle.path().join("c.sock"))
        .arg("events")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = std::io::BufReader::new(events.stdout.take().unwrap());

    let ran = containerd.run(&["--rm"], "one", &["/bin/sh", "-c", "echo from containerd; echo err >&2"]);
    assert_eq!(containerd.ok(&ran), "from containerd\n");
    assert_eq!(ran.stderr, b"err\n");
    let ran = containerd.run(&["--rm"], "two", &["/bin/sh", "-c", "exit 9"]);
    assert_eq!(ran.status.code(), Some(9), "{ran:?}");
    let missing = containerd.run(&["--rm"], "two", &["nope"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("executable file not found"), "{missing:?}");

    let id = containerd.id("three");
    containerd.ok(&containerd.run(&["-d"], "three", &["/bin/sleep", "1000"]));
    let tasks = |containerd: &Containerd| containerd.ok(&containerd.ctr(&["tasks", "ls"]));
    assert!(tasks(&containerd).contains("RUNNING"));
    let words = ["tasks", "exec", "--exec-id", "e", &id, "/bin/sh", "-c", "echo inside; exit 3"];
    let exec = containerd.ctr(&words);
    assert_eq!((exec.status.code(), exec.stdout.as_slice()), (Some(3), &b"inside\n"[..]), "{exec:?}");
    containerd.ok(&containerd.ctr(&["tasks", "pause", &id]));
    assert!(tasks(&containerd).contains("PAUSED"));
    containerd.ok(&containerd.ctr(&["tasks", "resume", &id]));
    let metrics = containerd.ok(&containerd.ctr(&["tasks", "metrics", &id]));
    assert!(metrics.contains("memory.usage"), "{metrics}");
    assert!(containerd.ok(&containerd.ctr(&["tasks", "ps", &id])).lines().count() == 2);

    let bundle = containerd.bundle.path().join("state/io.containerd.runtime.v2.task/default").join(&id);
    let address = fs::read_to_string(bundle.join("address")).unwrap();
    let socket = Path::new(address.strip_prefix("unix://").unwrap());
    assert!(socket.exists(), "{address}");

    // containerd may be killed and come back; the container and its shim do not notice.
    containerd.restart();
    assert!(tasks(&containerd).contains("RUNNING"), "{}", containerd.log());
    containerd.ok(&containerd.ctr(&["tasks", "kill", "-s", "KILL", &id]));
    containerd.ctr(&["tasks", "rm", "-f", &id]);
    containerd.ok(&containerd.ctr(&["containers", "rm", &id]));
    assert!(!socket.exists(), "the socket is left behind");

    events.kill().unwrap();
    events.wait().unwrap();
    use std::io::BufRead as _;
    let seen: Vec<String> = seen.lines().map_while(Result::ok).collect();
    for topic in [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/paused",
        "/tasks/resumed",
    ] {
        assert!(seen.iter().any(|line| line.contains(topic)), "{topic} is missing: {seen:#?}");
    }
}

#[test]
fn a_terminal_and_much_output() {
    let containerd = Containerd::start();
    let ran = containerd.run(&["--rm"], "one", &["/bin/head", "-c", "20000000", "/dev/zero"]);
    assert_eq!(containerd.ok(&ran).len(), 20_000_000);
    // `ctr` wants a terminal of its own for one of the container's; script(1) gives it one.
    let id = containerd.id("two");
    let line = format!(
        "ctr -a {} run --rm -t --runtime io.containerd.berth.v2 --rootfs {} {id} /bin/tty",
        containerd.bundle.path().join("c.sock").display(),
        containerd.bundle.root().display(),
    );
    let ran = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert!(containerd.ok(&ran).contains("/dev/pts/0"), "{ran:?}");
}

#[test]
fn a_shim_that_was_killed_is_cleaned_up_after() {
    let containerd = Containerd::start();
    let id = containerd.id("one");
    containerd.ok(&containerd.run(&["-d"], "one", &["/bin/sleep", "1000"]));
    let bundle = containerd.bundle.path().join("state/io.containerd.runtime.v2.task/default").join(&id);
    let own = fs::read_to_string(bundle.join("shim.pid")).unwrap();
    let pid: i32 = own.split(' ').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    // containerd hears that the socket closed and calls `delete`; then the task is no more.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while containerd.ok(&containerd.ctr(&["tasks", "ls", "-q"])).contains(&id) || bundle.exists() {
        assert!(std::time::Instant::now() < deadline, "{}", containerd.log());
    }
    containerd.ok(&containerd.ctr(&["containers", "rm", &id]));
}

//! A private node: `berthd all` with its own directories, network namespace and cgroup, and the command line to drive
//! it.

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader},
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::{
        inotify::AddWatchFlags,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    command::{Finished, run},
    fixtures, leftovers,
    netns::Netns,
    patience,
    registry::Registry,
};

/// A node has to be ready within this time.
const READY: Duration = Duration::from_secs(30);

/// How a node is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Name of the default runtime handler: "" for our own, "runc" for runc below our shim.
    pub runtime: String,
    /// "" for the best, "overlay2" or "vfs".
    pub storage_driver: String,
    /// A registry with the fixtures is there, as docker.io's mirror.
    pub registry: bool,
    /// More lines for the configuration file.
    pub config: String,
}

/// A running node. Dropped, it is taken down; [`Node::finish`] also asserts that nothing is left.
#[derive(Debug)]
pub struct Node {
    /// Its network namespace.
    pub netns: Netns,
    /// Its registry, where there is one.
    pub registry: Option<Registry>,
    directory: TempDir,
    cgroup: String,
    setup: Setup,
    daemon: Mutex<Option<Child>>,
}

impl Node {
    /// A node with busybox loaded.
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub fn start() -> Self {
        let node = Self::with(Setup::default());
        node.load("busybox");
        node
    }

    /// A node set up like this, without images.
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub fn with(setup: Setup) -> Self {
        Self::within(setup, Netns::new())
    }

    /// A node set up like this in a network namespace that is there already.
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub fn within(setup: Setup, netns: Netns) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("berth-test.").tempdir().expect("/tmp can be written to");
        let cgroup = format!("berth-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let registry = setup.registry.then(|| Registry::serve(&netns, fixtures::registry_storage(), "127.0.0.1:5000"));
        let node = Self { netns, registry, directory, cgroup, setup, daemon: Mutex::new(None) };
        fs::write(node.path("config.toml"), node.config()).expect("the configuration can be written");
        node.boot();
        node
    }

    fn config(&self) -> String {
        let Setup { runtime, registry, config, .. } = &self.setup;
        let mut text = String::new();
        if *registry {
            text += "[image.registry.\"docker.io\"]\nmirrors = [\"http://127.0.0.1:5000\"]\n";
        }
        text += &format!("[runtime]\ncgroup_parent = \"/{}\"\n", self.cgroup);
        if !runtime.is_empty() {
            text += &format!("default_handler = \"{runtime}\"\n");
        }
        text += "[runtime.handler.runc]\noci_runtime = \"/usr/sbin/runc\"\n";
        text + config
    }

    /// Path of something in the node's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The root directory.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// The cgroup below which all of its containers are, without slash.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Starts `berthd all` and waits until it says that it is ready.
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub fn boot(&self) {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a socket can be made");
        ready.set_read_timeout(Some(READY)).expect("a socket has a time-out");
        let mut command = self.netns.command(fixtures::binary("berthd").to_str().expect("plain paths"));
        let log = fs::File::options().append(true).create(true).open(self.path("log")).expect("a log can be made");
        command.arg("all").arg("--config").arg(self.path("config.toml"));
        command.arg("--root").arg(self.root()).arg("--state").arg(self.state());
        if !self.setup.storage_driver.is_empty() {
            command.args(["--storage-driver", &self.setup.storage_driver]);
        }
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().expect("berthd can be started");
        *self.daemon.lock().expect("no thread of a test panicked with it") = Some(child);
        let mut message = [0; 64];
        match ready.recv(&mut message) {
            Ok(size) => assert!(message[..size].starts_with(b"READY=1"), "berthd says something else than READY=1"),
            Err(error) => panic!("the node is not ready ({error}):\n{}", self.log()),
        }
    }

    /// What berthd and its services logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The command line, set up for this node.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.netns.command(fixtures::binary("berth").to_str().expect("plain paths"));
        command.env("BERTH_HOST", format!("unix://{}", self.state().join("berth.sock").display()));
        command.env("HOME", self.directory.path()).env_remove("DOCKER_CONFIG").args(arguments);
        command
    }

    /// Runs `berth` with these arguments and no input.
    #[track_caller]
    pub fn berth(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments), b"")
    }

    /// Runs `berth` with these arguments and this input.
    #[track_caller]
    pub fn berth_with(&self, arguments: &[&str], input: &[u8]) -> Finished {
        run(&mut self.command(arguments), input)
    }

    /// Loads a fixture as `NAME:latest`.
    ///
    /// # Panics
    /// It cannot be loaded.
    #[track_caller]
    pub fn load(&self, name: &str) {
        let archive = fixtures::archive(name);
        self.berth(&["load", "-q", "-i", archive.to_str().expect("plain paths")]).ok();
    }

    /// `berth inspect -f FORMAT NAME`.
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.berth(&["inspect", "-f", format, name]).ok().to_owned()
    }

    /// Pids of the node's services ("image", "snapshotter", "runtime", "registry-proxy"), or of the supervisor
    /// ("all").
    pub fn pids_of(&self, service: &str) -> Vec<i32> {
        let root = self.root();
        let matches = |process: &PathBuf| {
            let cmdline = fs::read(process.join("cmdline")).unwrap_or_default();
            let arguments: Vec<_> = cmdline.split(|b| *b == 0).collect();
            arguments.first().is_some_and(|program| program.ends_with(b"berthd"))
                && arguments.get(1).is_some_and(|word| *word == service.as_bytes())
                && arguments.iter().any(|word| *word == root.as_os_str().as_encoded_bytes())
        };
        let processes = leftovers::processes();
        let pid = |process: &Path| process.file_name()?.to_str()?.parse().ok();
        processes.iter().filter(|process| matches(process)).filter_map(|process| pid(process)).collect()
    }

    /// Kills a service (or the supervisor, "all") as a crash would.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn crash(&self, service: &str) {
        let pids = self.pids_of(service);
        assert!(!pids.is_empty(), "the {service} service runs");
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if service == "all" {
            self.reap();
        }
    }

    /// Waits for services that were killed to answer again; the CLI itself waits for a connection.
    ///
    /// # Panics
    /// They do not.
    pub fn answers(&self) {
        let deadline = Instant::now() + READY;
        while self.berth(&["ps", "-q"]).code != 0 {
            assert!(Instant::now() < deadline, "the node answers again:\n{}", self.log());
        }
    }

    fn reap(&self) {
        if let Some(mut child) = self.daemon.lock().expect("no thread of a test panicked with it").take() {
            let _ = child.wait();
        }
    }

    /// What a reboot leaves: every process is gone at once, and so are the state directory and the cgroups. Then the node is
    /// there again.
    ///
    /// # Panics
    /// Something cannot be ended, or the node does not come up.
    #[track_caller]
    pub fn reboot(&self) {
        self.crash("all");
        let deadline = Instant::now() + READY;
        loop {
            let left = leftovers::of(self.directory.path(), &self.cgroup);
            let pids =
                left.iter().filter_map(|line| line.strip_prefix("process /proc/")?.split(':').next()?.parse().ok());
            let pids: Vec<i32> = pids.collect();
            if pids.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "all processes end: {left:?}");
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        self.remove_containers_cgroups();
        fs::remove_dir_all(self.state()).expect("nothing is mounted in the state directory");
        self.boot();
        self.answers();
    }

    /// Ends berthd with SIGTERM and waits for it. Containers go on.
    pub fn shut_down(&self) {
        if let Some(child) = &*self.daemon.lock().expect("no thread of a test panicked with it") {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        self.reap();
    }

    /// Removes every container, takes the node down and asserts that nothing of it is left.
    ///
    /// # Panics
    /// Something is left.
    #[track_caller]
    pub fn finish(mut self) {
        let all = self.berth(&["ps", "-aq"]).ok().to_owned();
        let ids: Vec<&str> = all.split_whitespace().collect();
        if !ids.is_empty() {
            self.berth(&[&["rm", "-f", "-v"], &ids[..]].concat()).ok();
        }
        assert_eq!(self.berth(&["ps", "-aq"]).ok(), "", "all containers are removed");
        // The bundle of one that goes with its end goes beside it, not before.
        let bundles = self.state().join("runtime/bundles");
        let left =
            || -> Vec<_> { fs::read_dir(&bundles).into_iter().flatten().flatten().map(|e| e.file_name()).collect() };
        if bundles.exists() {
            let told = || format!("bundles are left: {:?}\n{}", left(), self.log());
            patience::until([bundles.as_path()], AddWatchFlags::IN_DELETE, || left().is_empty(), told);
        }
        self.shut_down();
        self.registry = None;
        self.remove_cgroup();
        let left = leftovers::of(self.directory.path(), &self.cgroup);
        assert!(left.is_empty(), "the node left behind:\n{}\n{}", left.join("\n"), self.log());
        assert!(!self.log().contains("panicked"), "a service panicked:\n{}", self.log());
    }

    /// Takes away the cgroup that the configuration named, which belongs to the test; one with something in it stays.
    fn remove_cgroup(&self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.cgroup));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.cgroup));
    }
}

impl Drop for Node {
    /// After a failed test: everything of the node is killed.
    fn drop(&mut self) {
        self.shut_down();
        self.registry = None;
        for line in leftovers::of(self.directory.path(), &self.cgroup) {
            if let Some(pid) = line.strip_prefix("process /proc/").and_then(|rest| rest.split(':').next()?.parse().ok())
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        self.remove_containers_cgroups();
    }
}

impl Node {
    fn remove_containers_cgroups(&self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let parent = hierarchy.path().join(&self.cgroup);
            for container in fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(container.path());
            }
            let _ = fs::remove_dir(parent);
        }
    }

    /// Follows a command's standard output line by line.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn lines(&self, arguments: &[&str]) -> Lines {
        let (output, writer) = std::io::pipe().expect("a pipe can be made");
        Lines::start(self.command(arguments).stdout(writer), output)
    }

    /// Follows both a command's outputs, line by line.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn lines_of_both(&self, arguments: &[&str]) -> Lines {
        let (output, writer) = std::io::pipe().expect("a pipe can be made");
        let error = writer.try_clone().expect("a pipe's end can be doubled");
        Lines::start(self.command(arguments).stdout(writer).stderr(error), output)
    }
}

/// A running command whose lines are read one by one; killed when dropped.
#[derive(Debug)]
pub struct Lines {
    /// The command.
    pub child: Child,
    output: BufReader<PipeReader>,
}

impl Lines {
    fn start(command: &mut Command, output: PipeReader) -> Self {
        let child = command.stdin(Stdio::null()).spawn().expect("berth can be started");
        // The command holds the pipe's other end: only the child shall, so that its end is the pipe's.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self { child, output: BufReader::new(output) }
    }
}

impl Iterator for Lines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

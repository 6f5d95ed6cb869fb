//! A Docker of the test's own: Debian's, with private directories, in its own network and mount namespace.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use berth_tests::{Registry, fixtures, leftovers, netns::Netns, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::engine::Engine;

/// Where Debian's docker.io puts them; other Dockers may be on the machine too.
const CLIENT: &str = "/usr/bin/docker";
const DAEMON: &str = "/usr/sbin/dockerd";
/// The version that the cases were written beside: others say some things in other words.
const VERSION: &str = "20.10.";

/// Whether there is a Docker that the cases can be compared with; otherwise why not.
pub(crate) fn usable() -> Result<(), String> {
    for program in [CLIENT, DAEMON] {
        if !Path::new(program).exists() {
            return Err(format!("{program} is missing; scripts/setup test installs Debian's docker.io"));
        }
        let version = run(Command::new(program).arg("--version"), b"");
        if !version.text().contains(&format!(" version {VERSION}")) {
            return Err(format!(
                "{program} is not {VERSION}x, which the cases were written beside: {}",
                version.text()
            ));
        }
    }
    Ok(())
}

/// A running daemon; it ends, with all that it runs, when this is dropped.
#[derive(Debug)]
pub(crate) struct Docker {
    netns: Netns,
    host: String,
    cgroup: String,
    daemon: Child,
    registry: Option<Registry>,
    directory: TempDir,
}

impl Docker {
    /// Starts one, with a registry of the fixtures as Docker Hub's mirror.
    ///
    /// # Panics
    /// It does not come up.
    pub(crate) fn start() -> Self {
        let netns = Netns::new();
        let registry = Registry::serve(&netns, fixtures::registry_storage(), "127.0.0.1:5000");
        let directory = tempfile::Builder::new().prefix("berth-test-docker.").tempdir().unwrap();
        let name = directory.path().file_name().and_then(|name| name.to_str()).unwrap();
        let cgroup = name.replace('.', "-");
        let host = format!("unix://{}/docker.sock", directory.path().display());
        // Its mounts go with it, also when it is killed.
        let mut command = netns.command("unshare");
        command.args(["--mount", "--propagation", "private", DAEMON, "-H", &host, "--cgroup-parent"]);
        command.arg(format!("/{cgroup}")).args(["--registry-mirror", "http://127.0.0.1:5000"]);
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("-p", "pid")] {
            command.arg(flag).arg(directory.path().join(name));
        }
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn().unwrap();
        let docker = Self { netns, host, cgroup, daemon, registry: Some(registry), directory };
        let deadline = Instant::now() + Duration::from_secs(60);
        while run(&mut docker.command(&["version"]), b"").code != 0 {
            let log = || fs::read_to_string(docker.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd answers: {}", log());
        }
        docker
    }
}

impl Engine for Docker {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.netns.command(CLIENT);
        command.env("HOME", self.directory.path()).env_remove("DOCKER_CONFIG").args(["-H", &self.host]).args(words);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        let _ = self.daemon.wait();
        self.registry = None;
        for line in leftovers::of(self.directory.path(), &self.cgroup) {
            let pid = line.strip_prefix("process /proc/").and_then(|rest| rest.split(':').next()?.parse().ok());
            if let Some(pid) = pid {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.cgroup));
        }
    }
}

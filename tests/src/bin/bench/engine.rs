//! The engines that are compared: how each is started and how each is asked for the same thing.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use berth_tests::{Node, netns::Netns, run};
use tempfile::TempDir;

/// An engine with busybox in it, ready to be asked.
pub(crate) struct Engine<'a> {
    /// As in the table's heading.
    pub(crate) name: &'static str,
    client: Client<'a>,
    /// Pids of the daemons, for their memory.
    pub(crate) daemons: Vec<u32>,
    _directory: Option<TempDir>,
    children: Vec<Child>,
}

enum Client<'a> {
    Berth(&'a Node),
    Docker { netns: &'a Netns, host: String },
    Ctr { netns: &'a Netns, socket: String },
}

impl Engine<'_> {
    /// The client's command for these arguments, in Docker's words; `None` where the engine has none for it.
    pub(crate) fn command(&self, words: &[&str]) -> Option<Command> {
        match &self.client {
            Client::Berth(node) => Some(node.command(words)),
            Client::Docker { netns, host } => {
                let mut command = netns.command("docker");
                command.arg("-H").arg(host).args(words);
                Some(command)
            }
            Client::Ctr { netns, socket } => {
                let mut command = netns.command("ctr");
                command.arg("-a").arg(socket).args(ctr_words(words)?);
                Some(command)
            }
        }
    }

    /// Asks and insists on success.
    pub(crate) fn ask(&self, words: &[&str]) -> anyhow::Result<()> {
        let Some(mut command) = self.command(words) else { return Ok(()) };
        let finished = run(&mut command, b"");
        ensure!(finished.code == 0, "{} failed: {}", finished.line, finished.error());
        Ok(())
    }
}

/// containerd's client has no names of Docker's; a few requests can be said in its words.
fn ctr_words(words: &[&str]) -> Option<Vec<String>> {
    const IMAGE: &str = "127.0.0.1:5000/library/busybox:latest";
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    match words {
        ["run", "--rm", "--network", "none", "busybox", rest @ ..] => {
            let id = format!("b{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            Some([owned(&["run", "--rm", IMAGE]), vec![id], owned(rest)].concat())
        }
        _ => None,
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let pid = nix::unistd::Pid::from_raw(child.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

/// berth first, then every peer that is installed.
pub(crate) fn all(node: &Node) -> anyhow::Result<Vec<Engine<'_>>> {
    let services = ["image", "snapshotter", "runtime", "registry-proxy"];
    let daemons = services.iter().flat_map(|s| node.pids_of(s)).map(|pid| pid as u32).collect();
    let berth = Engine { name: "berth", client: Client::Berth(node), daemons, _directory: None, children: Vec::new() };
    let mut engines = vec![berth];
    if installed("containerd") && installed("ctr") {
        engines.push(containerd(node)?);
    }
    if installed("dockerd") && installed("docker") {
        engines.push(docker(&node.netns)?);
    }
    Ok(engines)
}

fn installed(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].iter().any(|d| Path::new(d).join(program).exists())
}

fn containerd(node: &Node) -> anyhow::Result<Engine<'_>> {
    let directory = tempfile::tempdir()?;
    let d = directory.path().display();
    let config = directory.path().join("config.toml");
    fs::write(
        &config,
        format!(
            "version = 2\nroot = \"{d}/root\"\nstate = \"{d}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{d}/c.sock\"\n[ttrpc]\naddress = \"{d}/t.sock\"\n"
        ),
    )?;
    let socket = format!("{d}/c.sock");
    let mut command = node.netns.command("containerd");
    command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().context("cannot start containerd")?;
    let ready = || {
        let mut ctr = node.netns.command("ctr");
        run(ctr.args(["-a", &socket, "version"]), b"").code == 0
    };
    until(ready).context("containerd does not answer")?;
    let mut pull = node.netns.command("ctr");
    let image = "127.0.0.1:5000/library/busybox:latest";
    let pulled = run(pull.args(["-a", &socket, "images", "pull", "--plain-http", image]), b"");
    ensure!(pulled.code == 0, "containerd cannot pull busybox: {}", pulled.error());
    let client = Client::Ctr { netns: &node.netns, socket };
    Ok(Engine {
        name: "containerd",
        client,
        daemons: vec![child.id()],
        _directory: Some(directory),
        children: vec![child],
    })
}

/// A Docker of its own: data, state and socket in a private directory.
pub(crate) fn docker(netns: &Netns) -> anyhow::Result<Engine<'_>> {
    let directory = tempfile::tempdir()?;
    let d = directory.path().display();
    let host = format!("unix://{d}/docker.sock");
    let mut command = netns.command("dockerd");
    command.args(["-H", &host]).arg("--data-root").arg(directory.path().join("data"));
    command.arg("--exec-root").arg(directory.path().join("exec")).arg("-p").arg(directory.path().join("pid"));
    let log = fs::File::create(directory.path().join("log"))?;
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("cannot start dockerd")?;
    let daemon = child.id();
    let mut engine = Engine {
        name: "Docker",
        client: Client::Docker { netns, host },
        daemons: vec![daemon],
        _directory: Some(directory),
        children: vec![child],
    };
    until(|| engine.ask(&["version"]).is_ok()).context("dockerd does not answer")?;
    engine.ask(&["pull", "-q", "127.0.0.1:5000/library/busybox:latest"])?;
    engine.ask(&["tag", "127.0.0.1:5000/library/busybox:latest", "busybox:latest"])?;
    // Its containerd.
    engine.daemons.extend(children_of(daemon));
    Ok(engine)
}

fn children_of(pid: u32) -> Vec<u32> {
    let read = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    read.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn until(ready: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        ensure!(Instant::now() < deadline, "not ready within a minute");
    }
    Ok(())
}

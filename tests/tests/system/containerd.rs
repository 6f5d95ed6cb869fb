//! Stock containerd uses our snapshotter as its proxy plugin and our shim as its runtime.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use berth_tests::{Finished, Node, Setup, fixtures, run};

/// Debian's containerd with everything of its own in the node's directory.
struct Containerd<'a> {
    node: &'a Node,
    child: Child,
}

impl<'a> Containerd<'a> {
    fn start(node: &'a Node) -> Self {
        let directory = node.path("containerd");
        fs::create_dir(&directory).unwrap();
        let d = directory.display();
        let config = format!(
            "version = 2\nroot = \"{d}/root\"\nstate = \"{d}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\"]\n\
             [grpc]\naddress = \"{d}/c.sock\"\n[ttrpc]\naddress = \"{d}/t.sock\"\n\
             [proxy_plugins.berth]\ntype = \"snapshot\"\naddress = \"{}\"\n",
            node.state().join("snapshotter.sock").display()
        );
        fs::write(directory.join("config.toml"), config).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut command = node.netns.command("containerd");
        command.arg("--config").arg(directory.join("config.toml")).stdout(Stdio::null()).stderr(log);
        let path = format!("{}:{}", fixtures::binaries().display(), std::env::var("PATH").unwrap());
        let child = command.env("PATH", path).stdin(Stdio::null()).spawn().expect("containerd is installed");
        let containerd = Self { node, child };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while containerd.ctr(&["version"]).code != 0 {
            assert!(std::time::Instant::now() < deadline, "containerd answers: {}", containerd.log());
        }
        containerd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.node.path("containerd/log")).unwrap_or_default()
    }

    fn ctr(&self, arguments: &[&str]) -> Finished {
        let mut ctr: Command = self.node.netns.command("ctr");
        run(ctr.arg("-a").arg(self.node.path("containerd/c.sock")).args(arguments), b"")
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

#[test]
fn pulls_and_runs_on_our_snapshotter_and_shim() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    let containerd = Containerd::start(&node);
    let image = "127.0.0.1:5000/library/busybox:latest";
    containerd.ctr(&["images", "pull", "--plain-http", "--snapshotter", "berth", image]).ok();
    let listed = containerd.ctr(&["snapshots", "--snapshotter", "berth", "ls"]);
    assert!(listed.ok().contains("Committed"), "{listed:?}");
    let shim = ["run", "--snapshotter", "berth", "--runtime", "io.containerd.berth.v2"];
    let ran = containerd.ctr(&[&shim[..], &["--rm", image, "one", "echo", "from containerd"]].concat());
    assert_eq!(ran.ok(), "from containerd", "{}", containerd.log());
    let code = containerd.ctr(&[&shim[..], &["--rm", image, "two", "sh", "-c", "exit 9"]].concat());
    assert_eq!(code.code, 9, "{code:?}");
    containerd.ctr(&[&shim[..], &["-d", image, "three", "sleep", "1000"]].concat()).ok();
    assert!(containerd.ctr(&["tasks", "ls"]).ok().contains("RUNNING"));
    let exec = containerd.ctr(&["tasks", "exec", "--exec-id", "e", "three", "echo", "inside"]);
    assert_eq!(exec.ok(), "inside");
    containerd.ctr(&["tasks", "pause", "three"]).ok();
    assert!(containerd.ctr(&["tasks", "ls"]).ok().contains("PAUSED"));
    containerd.ctr(&["tasks", "resume", "three"]).ok();
    containerd.ctr(&["tasks", "metrics", "three"]).ok();
    containerd.ctr(&["tasks", "rm", "-f", "three"]).ok();
    containerd.ctr(&["containers", "rm", "three"]).ok();
    containerd.ctr(&["images", "rm", "--sync", image]).ok();
    let listed = containerd.ctr(&["snapshots", "--snapshotter", "berth", "ls"]);
    assert_eq!(listed.ok().lines().count(), 1, "only the heading is left: {listed:?}");
    drop(containerd);
    node.finish();
}

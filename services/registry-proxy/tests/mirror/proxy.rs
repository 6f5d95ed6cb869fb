//! A mirror in a process of its own: this test binary, started again.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use berth_core::{config::Node, connect};
use berth_proto::berth::registry::v1::{StatusRequest, StatusResponse, registry_client::RegistryClient};
use tempfile::TempDir;

use berth_tests::patience::{PATIENCE, Watchdog};

const CHILD: &str = "BERTH_TEST_MIRROR";

pub(crate) struct Proxy {
    pub(crate) directory: TempDir,
    pub(crate) address: String,
    child: Child,
    pub(crate) http: reqwest::Client,
    _watchdog: Watchdog,
}

/// The part of a mirror: runs it where this process was started for that, and does not come back.
pub(crate) async fn be_a_mirror() {
    let Some(file) = std::env::var_os(CHILD) else { return };
    // Ends with the test, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    let node = Node::load(Some(Path::new(&file))).unwrap();
    std::mem::forget(berth_core::telemetry::init(&node, "berth-registry-proxy").unwrap());
    if let Err(error) = berth_registry_proxy::run(node).await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

impl Proxy {
    /// `upstreams`: names and addresses; `more`: further lines of the section.
    pub(crate) async fn start(upstreams: &[(&str, &str)], more: &str) -> Self {
        Self::start_with(upstreams, more, &[]).await
    }

    /// With this in its environment as long as it is not started again.
    pub(crate) async fn start_with(
        upstreams: &[(&str, &str)],
        more: &str,
        environment: &[(&'static str, String)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut text = format!(
            "root = {:?}\nstate = {:?}\nlog = 'berth_registry_proxy=debug'\n[registry-proxy]\n",
            directory.path().join("root"),
            directory.path().join("state")
        );
        if !more.contains("listen") {
            text += "listen = '127.0.0.1:0'\n";
        }
        text += more;
        for (name, url) in upstreams {
            text += &format!("\n[registry-proxy.upstream.{name:?}]\nurl = {url:?}\n");
            if more.contains("# credentials") {
                std::fs::write(directory.path().join("password"), "secret\n").unwrap();
                text += &format!("username = 'user'\npassword_file = {:?}\n", directory.path().join("password"));
            }
        }
        std::fs::write(directory.path().join("config.toml"), text).unwrap();
        let child = spawn_with(directory.path(), environment).expect("the mirror starts");
        let http = client();
        let log = directory.path().join("log");
        let watchdog = Watchdog::new(move || std::fs::read_to_string(&log).unwrap_or_default());
        let mut proxy = Self { directory, address: String::new(), child, http, _watchdog: watchdog };
        proxy.address = proxy.status().await.address;
        proxy
    }

    /// Kills it as a power cut would and starts it again. Other addresses are free to be taken meanwhile.
    pub(crate) async fn kill_and_start(&mut self) {
        self.kill();
        self.child = spawn(self.directory.path()).expect("the mirror starts");
        self.address = self.status().await.address;
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn status(&self) -> StatusResponse {
        let channel = connect::lazy(&self.directory.path().join("state/registry.sock"));
        RegistryClient::new(channel).status(StatusRequest {}).await.unwrap().into_inner()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) fn stored(&self) -> PathBuf {
        self.directory.path().join("root/registry-proxy")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().read_timeout(PATIENCE).build().unwrap()
}

/// Starts the mirror configured in `directory`; answers when it says that it is ready, or with what it said instead.
pub(crate) fn spawn(directory: &Path) -> Result<Child, String> {
    spawn_with(directory, &[])
}

fn spawn_with(directory: &Path, environment: &[(&'static str, String)]) -> Result<Child, String> {
    // A name of its own: the end of an earlier child is told to its own socket.
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let socket = directory.join(format!("ready-{}", STARTS.fetch_add(1, Ordering::Relaxed)));
    let notified = UnixDatagram::bind(&socket).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restarts::a_killed_mirror_goes_on_where_it_was", "--nocapture"])
        .env(CHILD, directory.join("config.toml"))
        .env("NOTIFY_SOCKET", &socket)
        .envs(environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap();
    // Whichever comes first: readiness, or the end, which the same socket is told of.
    let (tell, ended) = (UnixDatagram::unbound().unwrap(), child.id());
    std::thread::spawn(move || {
        let pid = rustix::process::Pid::from_raw(i32::try_from(ended).unwrap()).unwrap();
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let mut wait = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        let _ = tell.send_to(b"ended", &socket);
    });
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = [0; 64];
    let length = notified.recv(&mut word).expect("it says that it is ready, or ends");
    if word[..length].starts_with(b"READY=1") {
        return Ok(child);
    }
    child.wait().unwrap();
    Err(std::fs::read_to_string(directory.join("log")).unwrap())
}

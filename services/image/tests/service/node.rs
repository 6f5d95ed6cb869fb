//! The service and its neighbour, each a process of its own: this test binary, started again.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use berth_core::{Failure, config::Node as Config, connect};
use berth_proto::berth::image::v1::{
    Auth, GetRequest, Image, ListRequest, PullDone, PullProgress, PullRequest, RemoveRequest, TagRequest, UsageRequest,
    UsageResponse, images_client::ImagesClient, pull_progress::Message, removed::What,
};
use tempfile::TempDir;
use tonic::{Status, Streaming};

use crate::{
    patience::{PATIENCE, Watchdog, watched},
    place::Place,
};

const CHILD: &str = "BERTH_TEST_SERVICE";

pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) place: Place,
    image: Child,
    snapshotter: Child,
    _watchdog: Watchdog,
}

/// What a pull said, and how it ended.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) said: Vec<Message>,
    pub(crate) result: Result<PullDone, Failure>,
}

impl Pulled {
    pub(crate) fn done(self) -> PullDone {
        self.result.unwrap()
    }

    pub(crate) fn failure(self) -> Failure {
        self.result.map(|done| done.digest).unwrap_err()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        let notice = |message: &Message| match message {
            Message::Notice(text) => Some(text.clone()),
            _ => None,
        };
        self.said.iter().filter_map(notice).collect()
    }
}

/// The part of a service: runs it where this process was started for that.
#[tokio::test(flavor = "multi_thread")]
async fn serves() {
    let Some(file) = std::env::var_os(CHILD) else { return };
    // Ends with the test, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    let config = Config::load(Some(Path::new(&file))).unwrap();
    std::mem::forget(berth_core::telemetry::init(&config, "berth-image").unwrap());
    if std::env::var("BERTH_TEST_PART").unwrap() == "image" {
        berth_image::run(config).await.unwrap();
    } else {
        berth_snapshotter::run(config).await.unwrap();
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// `section`: lines of `[image]`.
    pub(crate) fn start_with(section: &str) -> Self {
        Self::start_in(Place::new(), tempfile::tempdir().unwrap(), section)
    }

    pub(crate) fn start_in(place: Place, directory: TempDir, section: &str) -> Self {
        let text = format!(
            "root = {:?}\nstate = {:?}\nlog = 'info,berth_image=trace,reqwest=trace,hyper_util=trace'\n[snapshotter]\ndriver = 'vfs'\n[image]\n{section}\n",
            directory.path().join("root"),
            directory.path().join("state")
        );
        fs::write(directory.path().join("config.toml"), text).unwrap();
        let snapshotter = spawn(&place, directory.path(), "snapshotter");
        let image = spawn(&place, directory.path(), "image");
        let log = directory.path().join("image.log");
        let watchdog = Watchdog::new(move || end_of(&log));
        Self { directory, place, image, snapshotter, _watchdog: watchdog }
    }

    /// Kills the service as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.image.kill().unwrap();
        self.image.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.image = spawn(&self.place, self.directory.path(), "image");
    }

    /// Process ID of the service.
    pub(crate) fn pid(&self) -> u32 {
        self.image.id()
    }

    /// The root of both services, as they see it.
    fn root(&self) -> PathBuf {
        let root = self.directory.path().join("root");
        if self.place.has_disk() { format!("/proc/{}/root{}", self.pid(), root.display()).into() } else { root }
    }

    pub(crate) fn stored(&self) -> PathBuf {
        self.root().join("image")
    }

    /// Names in `ingest/`.
    pub(crate) fn ingest(&self) -> Vec<String> {
        let entries = fs::read_dir(self.stored().join("ingest")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Bytes of what has arrived and belongs to no image yet.
    pub(crate) fn arrived(&self) -> u64 {
        let entries = fs::read_dir(self.stored().join("ingest")).unwrap().flatten();
        let content = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sha256-"));
        content.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
    }

    /// How many blobs are stored.
    pub(crate) fn blobs(&self) -> usize {
        fs::read_dir(self.stored().join("blobs/sha256")).unwrap().count()
    }

    /// How many layers and snapshots are laid down.
    pub(crate) fn directories(&self) -> usize {
        let entries = fs::read_dir(self.root().join("snapshotter/vfs")).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u64>().is_ok()).count()
    }

    /// Waits until `is` holds, which is asked again whenever layers or snapshots are thrown away or deleted, or content
    /// arrives or goes.
    pub(crate) fn when(&self, is: impl Fn() -> bool) {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        for directory in ["snapshotter/vfs", "snapshotter/vfs/trash", "image/ingest"] {
            let events = AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MODIFY;
            inotify.add_watch(&self.root().join(directory), events).unwrap();
        }
        tokio::task::block_in_place(|| watched(&inotify, is, || self.there()));
    }

    /// Bytes in use on the file system of the services' directories.
    pub(crate) fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.root()).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// What is on disk now, for a test that fails.
    fn there(&self) -> String {
        let mut there = format!("{} bytes are used", self.used());
        for directory in ["snapshotter/vfs", "snapshotter/vfs/trash", "image/ingest", "image/blobs/sha256"] {
            let entries = fs::read_dir(self.root().join(directory)).into_iter().flatten().flatten();
            let entries = entries.map(|e| (e.file_name(), e.metadata().map_or(0, |metadata| metadata.len())));
            there += &format!("\n{directory}: {:?}", entries.collect::<Vec<_>>());
        }
        there + "\n" + &end_of(&self.directory.path().join("snapshotter.log"))
    }

    /// Everything that the service has logged since it was started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("image.log")).unwrap()
    }

    pub(crate) fn client(&self) -> ImagesClient<connect::Channel> {
        ImagesClient::new(connect::lazy(&self.directory.path().join("state/image.sock")))
            .max_decoding_message_size(64 << 20)
    }

    pub(crate) async fn pull(&self, reference: &str) -> Pulled {
        self.pull_as(reference, None, "").await
    }

    pub(crate) async fn pull_as(&self, reference: &str, auth: Option<Auth>, platform: &str) -> Pulled {
        let request = PullRequest { reference: reference.into(), platform: platform.into(), auth };
        match self.client().pull(request).await {
            Ok(stream) => follow(stream.into_inner()).await,
            Err(status) => Pulled { said: Vec::new(), result: Err(status.into()) },
        }
    }

    /// Begins a pull; dropping the stream gives it up.
    pub(crate) async fn begin(&self, reference: &str) -> Streaming<PullProgress> {
        let request = PullRequest { reference: reference.into(), ..Default::default() };
        self.client().pull(request).await.unwrap().into_inner()
    }

    pub(crate) async fn get(&self, reference: &str) -> Result<Image, Failure> {
        let request = GetRequest { reference: reference.into(), ..Default::default() };
        self.client().get(request).await.map(|a| a.into_inner().image.unwrap()).map_err(Failure::from)
    }

    pub(crate) async fn list(&self, filters: &[&str]) -> Result<Vec<Image>, Failure> {
        let filters = filters.iter().map(ToString::to_string).collect();
        let answer = self.client().list(ListRequest { filters, all: false }).await;
        answer.map(|a| a.into_inner().images).map_err(Failure::from)
    }

    /// What was untagged and deleted, as `docker rmi` prints it.
    pub(crate) async fn remove(&self, reference: &str, force: bool) -> Result<Vec<String>, Failure> {
        let request = RemoveRequest { reference: reference.into(), force, no_prune: false };
        let answer = self.client().remove(request).await.map_err(Failure::from)?;
        let line = |what| match what {
            What::Untagged(name) => format!("Untagged: {name}"),
            What::Deleted(id) => format!("Deleted: {id}"),
        };
        Ok(answer.into_inner().removed.into_iter().filter_map(|removed| removed.what).map(line).collect())
    }

    pub(crate) async fn tag(&self, source: &str, target: &str) -> Result<Image, Failure> {
        let request = TagRequest { source: source.into(), target: target.into() };
        self.client().tag(request).await.map(|a| a.into_inner().image.unwrap()).map_err(Failure::from)
    }

    pub(crate) async fn usage(&self) -> UsageResponse {
        self.client().usage(UsageRequest {}).await.unwrap().into_inner()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in [&mut self.image, &mut self.snapshotter] {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", end_of(&self.directory.path().join("image.log")));
        }
    }
}

/// The last that a service has logged.
fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("---- {}\n{}", log.display(), lines[lines.len().saturating_sub(40)..].join("\n"))
}

/// Reads a pull to its end.
pub(crate) async fn follow(mut stream: Streaming<PullProgress>) -> Pulled {
    let mut said = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("the pull goes on");
        match next {
            Ok(Some(PullProgress { message: Some(Message::Done(done)) })) => return Pulled { said, result: Ok(done) },
            Ok(Some(PullProgress { message })) => said.extend(message),
            Ok(None) => {
                let status = Status::internal("the stream ended without a word");
                return Pulled { said, result: Err(status.into()) };
            }
            Err(status) => return Pulled { said, result: Err(status.into()) },
        }
    }
}

/// Starts a service; answers when it says that it is ready.
fn spawn(place: &Place, directory: &Path, part: &str) -> Child {
    // A name of its own: the end of an earlier child is told to its own socket.
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let socket = directory.join(format!("ready-{}", STARTS.fetch_add(1, Ordering::Relaxed)));
    let notified = UnixDatagram::bind(&socket).unwrap();
    let log = fs::OpenOptions::new().append(true).create(true).open(directory.join(format!("{part}.log"))).unwrap();
    let mut child = place
        .command(std::env::current_exe().unwrap())
        .args(["--exact", "node::serves", "--nocapture"])
        .env(CHILD, directory.join("config.toml"))
        .env("BERTH_TEST_PART", part)
        .env("NOTIFY_SOCKET", &socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    // Whichever comes first: readiness, or the end, which the same socket is told of.
    let (tell, ended) = (UnixDatagram::unbound().unwrap(), child.id());
    std::thread::spawn(move || {
        let pid = rustix::process::Pid::from_raw(i32::try_from(ended).unwrap()).unwrap();
        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
        let mut wait = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        let _ = tell.send_to(b"ended", &socket);
    });
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = [0; 64];
    let length = notified.recv(&mut word).expect("it says that it is ready, or ends");
    if !word[..length].starts_with(b"READY=1") {
        child.wait().unwrap();
        panic!("{}", fs::read_to_string(directory.join(format!("{part}.log"))).unwrap());
    }
    child
}

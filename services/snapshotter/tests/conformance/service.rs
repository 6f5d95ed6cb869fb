//! One service process in a private directory, and its clients.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use berth_core::{
    Failure,
    config::Node,
    connect::{Channel, lazy},
};
use berth_proto::{
    berth::snapshotter::v1::{
        ApplyDone, ApplyFinish, ApplyRequest, ApplyStart, ComposeRequest, ForgetRequest, apply_request::Message,
        apply_response, layers_client::LayersClient,
    },
    containerd::{
        services::snapshots::v1::{
            CleanupRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
            snapshots_client::SnapshotsClient,
        },
        types::Mount,
    },
};
use berth_tests::patience::{Watchdog, until, watched};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::archive::Layer;

/// A running service. Its directory goes with it.
pub(crate) struct Service {
    child: Child,
    home: Home,
    driver: &'static str,
    channel: Channel,
    _watchdog: Watchdog,
}

enum Home {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

impl Service {
    pub(crate) async fn start(driver: &'static str) -> Self {
        Self::start_home(Home::Own(tempfile::tempdir().unwrap()), driver)
    }

    /// In a directory that is there already.
    pub(crate) fn start_in(home: &Path, driver: &'static str) -> Self {
        Self::start_home(Home::Given(home.into()), driver)
    }

    fn start_home(home: Home, driver: &'static str) -> Self {
        let (child, channel) = spawn(home.path(), driver);
        let root = home.path().join("root/snapshotter").join(driver);
        let watchdog = Watchdog::new(move || format!("{:?}", names(&root)));
        Self { child, home, driver, channel, _watchdog: watchdog }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.home().join("root/snapshotter")
    }

    /// Where the driver's directories are.
    pub(crate) fn base(&self) -> PathBuf {
        self.root().join(self.driver)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, where it was killed.
    pub(crate) fn revive(&mut self) {
        (self.child, self.channel) = spawn(self.home.path(), self.driver);
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub(crate) fn layers(&self) -> LayersClient<Channel> {
        LayersClient::new(self.channel.clone())
    }

    /// A file with these bytes beside the service's directories.
    pub(crate) fn blob(&self, bytes: &[u8]) -> PathBuf {
        let blob = tempfile::NamedTempFile::new_in(self.home()).unwrap();
        fs::write(blob.path(), bytes).unwrap();
        blob.into_temp_path().keep().unwrap()
    }

    /// Lays a layer down whose blob is whole.
    pub(crate) async fn apply(&self, layer: &Layer) -> Result<ApplyDone, Failure> {
        self.apply_as(layer, "application/vnd.oci.image.layer.v1.tar").await
    }

    pub(crate) async fn apply_as(&self, layer: &Layer, media_type: &str) -> Result<ApplyDone, Failure> {
        let path = self.blob(&layer.blob);
        let apply = self.begin(&path, &layer.diff_id, media_type).await?;
        apply.say(Message::Available(layer.blob.len() as u64)).await;
        apply.say(Message::Finish(ApplyFinish {})).await;
        let done = apply.done().await;
        fs::remove_file(path).unwrap();
        done
    }

    /// Begins to lay a layer down.
    pub(crate) async fn begin(&self, path: &Path, diff_id: &str, media_type: &str) -> Result<Apply, Failure> {
        let (messages, stream) = mpsc::channel(16);
        let start = ApplyStart {
            diff_id: diff_id.into(),
            path: path.display().to_string(),
            media_type: media_type.into(),
            size: 0,
        };
        messages.send(ApplyRequest { message: Some(Message::Start(start)) }).await.unwrap();
        let answers = self.layers().apply(ReceiverStream::new(stream)).await.map_err(Failure::from)?.into_inner();
        Ok(Apply { messages, answers, consumed: 0 })
    }

    pub(crate) async fn compose(&self, layers: &[Layer]) -> Result<Vec<String>, Failure> {
        let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let request = ComposeRequest { diff_ids, labels: Default::default() };
        self.layers().compose(request).await.map(|answer| answer.into_inner().chain_ids).map_err(Failure::from)
    }

    /// Lays all layers down and answers with the uppermost chain ID.
    pub(crate) async fn image(&self, layers: &[Layer]) -> Result<String, Failure> {
        for layer in layers {
            self.apply(layer).await?;
        }
        Ok(self.compose(layers).await?.pop().unwrap_or_default())
    }

    pub(crate) async fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Failure> {
        let (key, parent) = (key.into(), parent.into());
        let request = PrepareSnapshotRequest { key, parent, ..Default::default() };
        self.snapshots().prepare(request).await.map(|answer| answer.into_inner().mounts).map_err(Failure::from)
    }

    pub(crate) async fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Failure> {
        let (key, parent) = (key.into(), parent.into());
        let request = ViewSnapshotRequest { key, parent, ..Default::default() };
        self.snapshots().view(request).await.map(|answer| answer.into_inner().mounts).map_err(Failure::from)
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), Failure> {
        let request = RemoveSnapshotRequest { key: key.into(), ..Default::default() };
        self.snapshots().remove(request).await.map(|_| ()).map_err(Failure::from)
    }

    /// Returns when all garbage is gone.
    pub(crate) async fn cleanup(&self) {
        self.snapshots().cleanup(CleanupRequest::default()).await.unwrap();
    }

    /// The numbered directories that are there now.
    pub(crate) fn directories(&self) -> Vec<String> {
        let names = fs::read_dir(self.base()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.parse::<u64>().is_ok()).collect();
        names.sort();
        names
    }

    /// Nothing is there but what the records name: no directory more than `expected`, no garbage.
    /// Throws layers away that belong to no snapshot.
    pub(crate) async fn forget(&self) {
        self.layers().forget(ForgetRequest {}).await.unwrap();
    }

    /// Waits until so many directories are there.
    pub(crate) fn until_directories(&self, expected: usize) {
        let base = self.base();
        let events = AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE;
        let is = || self.directories().len() == expected;
        tokio::task::block_in_place(|| until([&*base], events, is, || format!("{:?}", names(&base))));
    }

    pub(crate) async fn assert_directories(&self, expected: usize) {
        self.cleanup().await;
        assert_eq!(self.directories().len(), expected, "{:?}", self.directories());
        assert_eq!(fs::read_dir(self.base().join("trash")).unwrap().count(), 0);
        assert!(!self.root().join(".probe").exists());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Starts the process and waits until its socket is there.
fn spawn(home: &Path, driver: &str) -> (Child, Channel) {
    let state = home.join("state");
    fs::create_dir_all(&state).unwrap();
    let socket = state.join("snapshotter.sock");
    let _ = fs::remove_file(&socket);
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch(&state, AddWatchFlags::IN_MOVED_TO).unwrap();
    let mut child = program(home, driver).spawn().unwrap();
    let there = || {
        // A process that fails at the start would never make its socket.
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the service ended at once: {status}");
        }
        socket.exists()
    };
    watched(&watch, there, || format!("{} is not there", socket.display()));
    (child, lazy(&socket))
}

/// Where the service works that this process is; unset where it is the test itself.
const HOME: &str = "BERTH_TEST_SNAPSHOTTER_HOME";
const DRIVER: &str = "BERTH_TEST_SNAPSHOTTER_DRIVER";

/// The service as a process of its own: this binary again, as nothing but [`process`].
pub(crate) fn program(home: &Path, driver: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "service::process", "--nocapture", "--quiet"]).env(HOME, home).env(DRIVER, driver);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[test]
fn process() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let mut node = Node::default();
    (node.root, node.state) = (home.join("root"), home.join("state"));
    node.set(berth_snapshotter::NAME, "driver", &std::env::var(DRIVER).unwrap(), DRIVER).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(berth_snapshotter::run(node)).unwrap();
}

/// A call of Apply under way.
pub(crate) struct Apply {
    messages: mpsc::Sender<ApplyRequest>,
    answers: Streaming<berth_proto::berth::snapshotter::v1::ApplyResponse>,
    pub(crate) consumed: u64,
}

impl Apply {
    pub(crate) async fn say(&self, message: Message) {
        // A call that has failed hears nothing more; its answer says why.
        let _ = self.messages.send(ApplyRequest { message: Some(message) }).await;
    }

    /// Waits until this much of the blob was read.
    pub(crate) async fn until_consumed(&mut self, bytes: u64) {
        while self.consumed < bytes {
            match self.answers.message().await.unwrap().unwrap().message {
                Some(apply_response::Message::Consumed(consumed)) => self.consumed = consumed,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Ends the sending half without `finish`, and answers with what becomes of it.
    pub(crate) async fn break_off(self) -> Result<ApplyDone, Failure> {
        let Self { messages, answers, consumed } = self;
        drop(messages);
        let (closed, _) = mpsc::channel(1);
        Self { messages: closed, answers, consumed }.done().await
    }

    pub(crate) async fn done(mut self) -> Result<ApplyDone, Failure> {
        while let Some(answer) = self.answers.message().await.map_err(Failure::from)? {
            match answer.message {
                Some(apply_response::Message::Done(done)) => return Ok(done),
                Some(apply_response::Message::Consumed(consumed)) => {
                    assert!(consumed >= self.consumed);
                    self.consumed = consumed;
                }
                None => panic!("an answer without a message"),
            }
        }
        panic!("the stream ended without an answer")
    }
}

/// Runs a program and answers with its output; it must succeed.
pub(crate) fn run(program: &str, arguments: &[&OsStr]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error: io::Error| {
        panic!("{program} is needed (scripts/setup test installs it): {error}");
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

//! A bundle from this service's side: made, filled, given to a shim, found again after a restart, taken away. What is
//! in it, and in which order, is said in [`berth_core::bundle`].

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use berth_core::{
    bundle::{CONFIG, EXIT, ExitRecord, OPTIONS, Options, SHIM_LOG, SHIM_SOCKET},
    connect,
};
use berth_proto::berth::runtime::v1::{NetworkEndpoint, PortMapping};
use serde::{Deserialize, Serialize};

use super::{
    Binary, Task,
    launch::{Child, Launch},
};
use crate::error::{Error, Result};

/// [`Attachment`], as JSON: ours alone, so that a restart knows it even where the record was not written yet.
const ATTACHMENT: &str = "network.json";
/// A shim's binary that cleans up has this long.
const DELETE_DEADLINE: Duration = Duration::from_secs(60);

/// Where a container is attached. It lies in the bundle because it is true as long as the bundle's processes are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) networks: Vec<NetworkEndpoint>,
    pub(crate) ports: Vec<PortMapping>,
}

/// A bundle's directory.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    id: String,
    path: PathBuf,
}

impl Bundle {
    /// That of this container below the directory of all bundles.
    pub(crate) fn of(bundles: &Path, id: &str) -> Self {
        Self { id: id.into(), path: bundles.join(id) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory with what a shim needs to begin. What a start that was cut off left there goes. Blocks.
    pub(crate) fn fill(&self, config: &[u8], options: &Options, attachment: &Attachment) -> Result<()> {
        self.remove();
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.path)
            .map_err(Error::io("cannot make the bundle", &self.path))?;
        let failed = |e| Error::io("cannot write the bundle", &self.path)(e);
        fs::write(self.path.join(CONFIG), config).map_err(failed)?;
        berth_core::bundle::write(&self.path, OPTIONS, options).map_err(failed)?;
        berth_core::bundle::write(&self.path, ATTACHMENT, attachment).map_err(failed)
    }

    /// Starts a shim on the bundle and connects to it. Blocks, if only for the time that starting a process takes; must
    /// run within the async runtime. The shim is reaped when it ends.
    pub(crate) fn launch(&self, binary: &Binary, netns: Option<OwnedFd>) -> Result<Task> {
        let failed = |e| Error::io("cannot start a shim on", &self.path)(e);
        let directory = File::open(&self.path).map_err(failed)?;
        let address = connect::short_path(&directory, Path::new(SHIM_SOCKET));
        let listener = UnixListener::bind(&address).map_err(failed)?;
        // The connection waits in the listener's queue until the shim takes it; if the shim dies first, it breaks.
        let stream = std::os::unix::net::UnixStream::connect(&address).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let child = self.spawn(binary, "serve", Some(&listener), netns.as_ref()).map_err(failed)?;
        let id = self.id.clone();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(0) => {}
                Ok(status) => tracing::warn!(id, status, "a shim ended otherwise than it should"),
                Err(error) => tracing::warn!(id, %error, "a shim cannot be waited for"),
            }
        });
        Ok(Task::new(&self.id, tokio::net::UnixStream::from_std(stream).map_err(failed)?))
    }

    /// Connects to a shim that was started before.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) async fn connect(&self) -> io::Result<Task> {
        let stream = connect::connect(self.path.join(SHIM_SOCKET)).await?;
        Ok(Task::new(&self.id, stream))
    }

    fn spawn(
        &self,
        binary: &Binary,
        verb: &str,
        socket: Option<&UnixListener>,
        netns: Option<&OwnedFd>,
    ) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.path.join(SHIM_LOG))?;
        let path = self.path.to_str().ok_or_else(|| io::Error::other("the path of a bundle must be UTF-8"))?;
        let launch = Launch {
            program: &binary.path,
            arguments: &["containerd-shim-berth-v2", "-namespace", "berth", "-id", &self.id, "-bundle", path, verb],
            directory: &CString::new(self.path.as_os_str().as_bytes()).map_err(io::Error::other)?,
            log: log.as_fd(),
            socket: socket.map(AsFd::as_fd),
            netns: netns.map(AsFd::as_fd),
        };
        launch.spawn()
    }

    /// Lets the binary clean up after a shim that died: processes, cgroup, mounts.
    pub(crate) async fn delete(&self, binary: &Binary) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let failed = |e| Error::io("cannot clean up after the shim of", &self.path)(e);
        let child = self.spawn(binary, "delete", None, None).map_err(failed)?;
        let killer = child.killer().map_err(failed)?;
        match tokio::time::timeout(DELETE_DEADLINE, child.wait()).await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(_)) => Err(failed(io::Error::other(self.complaint()))),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => {
                killer.kill();
                Err(Error::Late { what: "cleaning up after a shim", seconds: DELETE_DEADLINE.as_secs() })
            }
        }
    }

    /// How the first process ended, where it has.
    pub(crate) fn exit(&self) -> Option<ExitRecord> {
        berth_core::bundle::read(&self.path, EXIT).unwrap_or_else(|error| {
            tracing::warn!(%error, "an exit record cannot be read");
            None
        })
    }

    /// Writes down where the container is attached. Blocks.
    pub(crate) fn attach(&self, attachment: &Attachment) -> Result<()> {
        berth_core::bundle::write(&self.path, ATTACHMENT, attachment).map_err(Error::io("cannot write to", &self.path))
    }

    /// Where the container was attached.
    pub(crate) fn attachment(&self) -> Attachment {
        berth_core::bundle::read(&self.path, ATTACHMENT).ok().flatten().unwrap_or_default()
    }

    /// The last that the shim printed: why it is gone.
    pub(crate) fn complaint(&self) -> String {
        let log = fs::read(self.path.join(SHIM_LOG)).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).trim().to_owned();
        if text.is_empty() { "it said nothing".into() } else { text }
    }

    /// Takes the directory away. Blocks.
    pub(crate) fn remove(&self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(bundle = %self.path.display(), %error, "a bundle cannot be removed");
            }
            _ => {}
        }
    }
}

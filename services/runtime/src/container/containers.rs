//! All containers of the node, and what they need: the store, the neighbours, networks, volumes, the shim's binary.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{OnceCell, watch};

use crate::{
    container::{gone::Gone, index::Index, live::Container, record::Record, store::Store},
    error::{Error, Result},
    events::Events,
    neighbours::Neighbours,
    network::Networks,
    settings::Settings,
    shims::{Binary, Bundle, Exporter},
    volumes::Volumes,
};

/// Where this service keeps what it has.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    pub(crate) root: PathBuf,
    /// Of the containers: log, hosts, a copy of the record.
    pub(crate) containers: PathBuf,
    pub(crate) bundles: PathBuf,
    /// Copies of what the store has of networks.
    pub(crate) networks: PathBuf,
    /// Compiled seccomp programs.
    pub(crate) seccomp: PathBuf,
    /// The program that is the first process of containers that ask for one.
    pub(crate) init: PathBuf,
}

/// See the module. Shared behind an [`Arc`].
#[derive(Debug)]
pub(crate) struct Containers {
    pub(crate) settings: Settings,
    pub(crate) directories: Directories,
    pub(crate) store: Store,
    pub(crate) index: Arc<Index>,
    pub(crate) gone: Gone,
    pub(crate) neighbours: Neighbours,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) shim: Binary,
    pub(crate) spans: Exporter,
    pub(crate) events: Events,
    /// Name of the snapshotter's driver, once it was asked.
    pub(crate) driver: OnceCell<String>,
    /// The image service that answers now knows which images are in use.
    pub(crate) uses_told: watch::Sender<Told>,
}

/// Whether the image service knows the uses, and how often it was told all of them: it forgets them when it restarts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) now: bool,
    pub(crate) round: u64,
}

impl Containers {
    /// The container with this id, name, or beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        self.index.find(text)
    }

    pub(crate) fn bundle(&self, id: &str) -> Bundle {
        Bundle::of(&self.directories.bundles, id)
    }

    /// The container's directory.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.directories.containers.join(id)
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.directory(id).join("json.log")
    }

    /// The directory with the container's hosts, hostname and resolv.conf: that of the container whose network it
    /// shares, where it shares one.
    pub(crate) fn names_directory(&self, record: &Record) -> PathBuf {
        match record.spec.network_mode.strip_prefix("container:") {
            Some(other) => self
                .index
                .find(other)
                .map_or_else(|_| self.directory(&record.id), |other| self.names_directory(&other.record())),
            None => self.directory(&record.id),
        }
    }

    /// Name of the snapshotter's driver, which does not change while a node runs.
    pub(crate) async fn storage_driver(&self) -> Result<String> {
        self.driver.get_or_try_init(|| self.neighbours.storage_driver()).await.cloned()
    }

    /// Says that the volumes of a container are mounted in it ("mount"), or are no longer ("unmount").
    pub(crate) fn volumes_event(&self, action: &str, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.r#type == "volume") {
            let mut told = vec![("container", record.id.clone()), ("driver", mount.driver.clone())];
            if action == "mount" {
                let read_write = ("read/write", mount.read_write.to_string());
                let propagation = ("propagation", mount.propagation.clone());
                told.extend([("destination", mount.destination.clone()), read_write, propagation]);
            }
            self.events.say("volume", action, &mount.name, &told);
        }
    }

    /// Says what happened to a container.
    pub(crate) fn event(&self, action: &str, record: &Record, attributes: &[(&str, String)]) {
        self.events.container(action, record, attributes);
    }
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked { what })?
}

/// Runs what must not stop halfway when the caller goes away.
pub(crate) async fn to_the_end<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let span = tracing::Span::current();
    tokio::spawn(tracing::Instrument::instrument(work, span)).await.map_err(|_| Error::Panicked { what })?
}

//! Create: name and id reserved, image looked up or pulled, what was asked for completed and checked, a snapshot made,
//! and then, in one step, the record. Whatever fails or is cancelled before that is undone; what is cut off by a crash
//! is undone by the next start, which finds the job.

use std::{fs, sync::Arc, time::Duration};

use berth_core::{Failure, Kind, Reference};
use berth_proto::berth::{
    image::v1::{Auth, Image, pull_progress::Message},
    runtime::v1::ContainerSpec,
};
use bytes::Bytes;
use nix::unistd::{AccessFlags, access};
use oci_spec::image::ImageConfiguration;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::{
    container::{
        containers::{Containers, blocking, to_the_end},
        index::Reservation,
        live::Container,
        names,
        record::{Record, Time},
        restart::Policy,
        signal,
        store::{Change, Job},
    },
    error::{Error, Result},
    network, spec,
    volumes::Volumes,
};

/// An image service that restarts is back within this time.
const AWAY: Duration = Duration::from_secs(20);

/// When the image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    Missing,
    Always,
    Never,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    /// Empty for an invented one.
    pub(crate) name: String,
    pub(crate) spec: ContainerSpec,
    pub(crate) pull: Pull,
    pub(crate) auth: Option<Auth>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) warnings: Vec<String>,
}

impl Containers {
    /// Makes a container. The pull's progress goes to `progress`, as the image service says it; when nobody takes it any
    /// more, the call counts as cancelled.
    pub(crate) async fn create(self: &Arc<Self>, order: Order, progress: mpsc::Sender<Bytes>) -> Result<Created> {
        let containers = Arc::clone(self);
        to_the_end("creating a container", async move { containers.try_create(order, &progress).await }).await
    }

    async fn try_create(self: &Arc<Self>, mut order: Order, progress: &mpsc::Sender<Bytes>) -> Result<Created> {
        let mut warnings = self.check(&mut order.spec)?;
        self.check_storage_opts(&order.spec).await?;
        let id = names::id();
        let reservation = self.index.reserve(&order.name, &id)?;
        let job = Job::Create { name: reservation.name.clone() };
        self.store.commit(Change { put_job: Some((id.clone(), job)), ..Change::default() }).await?;
        let mut record = Record {
            id: id.clone(),
            name: reservation.name.clone(),
            created: Time::now(),
            image: order.spec.image.clone(),
            attachments: Some(self.networks.resolve(&order.spec.network_mode, &order.spec.networks).map_err(said)?),
            spec: std::mem::take(&mut order.spec),
            ..Record::default()
        };
        let round = self.uses_told.borrow().round;
        let made = async {
            self.make(&mut record, &order, &mut warnings, progress).await?;
            if progress.is_closed() { Err(Error::Cancelled) } else { Ok(()) }
        };
        if let Err(error) = made.await {
            self.undo_create(&record).await;
            return Err(error);
        }
        match self.commit_created(record.clone(), reservation).await {
            Ok(container) => {
                let record = container.record();
                if self.uses_told.borrow().round != round
                    && let Err(error) = self.neighbours.image(&record.image_id, "", &id).await
                {
                    // It restarted meanwhile, and was told of the uses before this one could be among them.
                    tracing::warn!(id, %error, "the image service does not know of a use");
                }
                self.event("create", &record, &[]);
                Ok(Created { id, name: record.name.clone(), warnings })
            }
            Err(error) => {
                self.undo_create(&record).await;
                Err(error)
            }
        }
    }

    /// What can be refused without looking at the image. Other containers are named by their ids afterwards.
    fn check(&self, asked: &mut ContainerSpec) -> Result<Vec<String>> {
        if asked.image.is_empty() {
            return Err(Error::Invalid("no image specified".into()));
        }
        for mode in [&mut asked.network_mode, &mut asked.pid_mode, &mut asked.ipc_mode] {
            if let Some(other) = mode.strip_prefix("container:") {
                *mode = format!("container:{}", self.find(other)?.id);
            }
        }
        network::check_ports(&asked.ports).map_err(said)?;
        network::files::check(&asked.extra_hosts, &asked.dns).map_err(said)?;
        Policy::parse(&asked.restart_policy)?;
        if asked.auto_remove && Policy::parse(&asked.restart_policy)? != Policy::No {
            return Err(Error::Invalid("can't create 'AutoRemove' container with restart policy".into()));
        }
        if !asked.stop_signal.is_empty() {
            signal::parse(&asked.stop_signal)?;
        }
        self.handler(&asked.runtime)?;
        self.check_volumes_from(asked)?;
        Volumes::check(&asked.mounts).map_err(said)?;
        spec::check(asked).map_err(said)
    }

    /// No driver of this node's can limit a single root file system yet; Docker's can with a quota of the file system below.
    async fn check_storage_opts(&self, asked: &ContainerSpec) -> Result<()> {
        let mut names: Vec<_> = asked.storage_opts.keys().collect();
        names.sort();
        let Some(name) = names.first() else { return Ok(()) };
        let driver = self.storage_driver().await?;
        Err(Error::Invalid(format!(
            "--storage-opt {name} is not supported for {driver}: on this node the size of one container's root file system \
             is not limited; use a volume or a tmpfs with a size for what may grow"
        )))
    }

    /// The low-level runtime binary of a handler; `None` for the shim's own.
    pub(crate) fn handler(&self, name: &str) -> Result<Option<String>> {
        let name = if name.is_empty() { &self.settings.default_handler } else { name };
        if name.is_empty() || name == "berth" {
            return Ok(None);
        }
        match self.settings.handler.get(name) {
            Some(handler) => match &handler.oci_runtime {
                Some(binary) if access(binary.as_str(), AccessFlags::X_OK).is_err() => Err(Error::Invalid(format!(
                    "the runtime {name} cannot be used: {binary} is not there, or not executable"
                ))),
                binary => Ok(binary.clone()),
            },
            None => Err(Error::UnknownHandler(name.into())),
        }
    }

    async fn make(
        &self,
        record: &mut Record,
        order: &Order,
        warnings: &mut Vec<String>,
        progress: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let image = self.image(record, order, progress).await?;
        record.image_id.clone_from(&image.id);
        let config = ImageConfiguration::from_reader(&image.config[..])
            .map_err(|e| Error::Invalid(format!("the configuration of image {} cannot be used: {e}", record.image)))?;
        let completed = spec::complete(&mut record.spec, &config).map_err(said)?;
        spec::complete_health(&mut record.spec, &image.config);
        record.args = completed.args;
        record.exposed_ports = completed.exposed_ports;
        warnings.extend(completed.warnings);
        self.name_host(record);
        let directory = self.directory(&record.id);
        let make_directory = blocking("making a container's directory", move || {
            fs::create_dir_all(&directory).map_err(Error::io("cannot make", &directory))
        });
        let mounts = self.all_mounts(&record.spec)?;
        let volumes = self.volumes.resolve(&record.id, &mounts, &completed.volumes);
        let (rootfs, made, volumes) =
            tokio::join!(self.neighbours.prepare(&record.id, &image.chain_id), make_directory, volumes);
        // Known before anything can fail, so that it can be undone.
        let volumes = volumes.map_err(said);
        if let Ok(volumes) = &volumes {
            record.mounts.clone_from(volumes);
        }
        made?;
        self.volumes.fill(&volumes?, &rootfs?).await.map_err(said)
    }

    /// What the container calls itself, where nobody says: its id, or what whoever shares its network is called.
    fn name_host(&self, record: &mut Record) {
        let other = record.spec.network_mode.strip_prefix("container:").and_then(|other| self.find(other).ok());
        if let Some(other) = other {
            let other = other.record();
            record.spec.hostname.clone_from(&other.spec.hostname);
            record.spec.domainname.clone_from(&other.spec.domainname);
        }
        if record.spec.hostname.is_empty() {
            record.spec.hostname = if record.spec.network_mode == "host" || record.spec.uts_mode == "host" {
                rustix::system::uname().nodename().to_string_lossy().into_owned()
            } else {
                record.short_id().to_owned()
            };
        }
    }

    /// The image, in use by the container from now on, pulled where that is asked for.
    async fn image(&self, record: &Record, order: &Order, progress: &mpsc::Sender<Bytes>) -> Result<Image> {
        // Uses that are told before this one would wipe it out.
        let mut told = self.uses_told.subscribe();
        if tokio::time::timeout(AWAY, told.wait_for(|told| told.now)).await.is_err() {
            return Err(Failure::new(Kind::Unavailable, "the image service is away").into());
        }
        let platform = &record.spec.platform;
        if order.pull != Pull::Always {
            match self.neighbours.image(&record.image, platform, &record.id).await {
                Err(Error::Said(failure)) if failure.kind == Kind::NotFound && order.pull == Pull::Missing => {}
                answer => return answer,
            }
        }
        self.pull(&record.image, platform, order.auth.clone(), progress).await?;
        self.neighbours.image(&record.image, platform, &record.id).await
    }

    async fn pull(
        &self,
        image: &str,
        platform: &str,
        auth: Option<Auth>,
        progress: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let _: Reference = image.parse().map_err(|e| Error::Invalid(format!("{e}")))?;
        let mut stream = self.neighbours.pull(image, platform, auth).await?;
        loop {
            let message = tokio::select! {
                message = stream.message() => message?,
                () = progress.closed() => return Err(Error::Cancelled),
            };
            let Some(message) = message else {
                return Err(
                    Failure::new(Kind::Unavailable, "the image service ended while it pulled; try again").into()
                );
            };
            let done = matches!(message.message, Some(Message::Done(_)));
            if progress.send(message.encode_to_vec().into()).await.is_err() {
                return Err(Error::Cancelled);
            }
            if done {
                return Ok(());
            }
        }
    }

    async fn commit_created(&self, record: Record, reservation: Reservation) -> Result<Arc<Container>> {
        let container = Container::new(record);
        let change =
            Change { put: Some(container.record()), remove_job: Some(container.id.clone()), ..Change::default() };
        self.store.commit(change).await?;
        self.index.insert(Arc::clone(&container));
        reservation.keep();
        Ok(container)
    }

    /// Takes back what was made of a container that did not come to be.
    pub(crate) async fn undo_create(&self, record: &Record) {
        match self.clear(&record.id, record, true).await {
            Ok(()) => self.store.job_done(&record.id),
            Err(error) => {
                tracing::warn!(id = record.id, %error, "something of a failed create is left until the next start");
            }
        }
    }
}

/// What another part of this service said.
pub(super) fn said(error: impl Into<Failure>) -> Error {
    error.into().into()
}

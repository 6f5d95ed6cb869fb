//! Commit: an image of what a container has written. It is paused while its files are read, and goes on whatever becomes
//! of that: when the caller goes away, and when this service is killed, at its next start.

use std::sync::Arc;

use berth_proto::berth::image::v1::{self as image, commit_progress::Message};

use crate::{
    container::{
        containers::{Containers, to_the_end},
        effective,
        live::Container,
        record::{Record, Status},
    },
    error::{Error, Result},
    shims::{Reason, Task},
};

/// Where files and directories are made so that something can be mounted on them, as far as the image has none.
pub(crate) const MOUNT_POINTS: [&str; 11] = [
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commit {
    pub(crate) reference: String,
    pub(crate) author: String,
    pub(crate) comment: String,
    pub(crate) changes: Vec<String>,
    pub(crate) no_pause: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) image_id: String,
    pub(crate) warnings: Vec<String>,
}

impl Containers {
    /// Makes an image of a container. Dropped, it is given up.
    pub(crate) async fn commit(self: &Arc<Self>, container: &Arc<Container>, commit: Commit) -> Result<Committed> {
        let live = container.now();
        let record = &live.record;
        if live.removed || record.state.status == Status::Removing {
            return Err(Error::State(format!("You cannot commit container {} which is being removed", container.id)));
        }
        let base = self.neighbours.image(&record.image_id, "", "").await?;
        let config = serde_json::Value::from(effective::config(record, &base.config)).to_string();
        let request = image::CommitRequest {
            snapshot: container.id.clone(),
            image_id: record.image_id.clone(),
            config: config.into_bytes().into(),
            changes: commit.changes,
            author: commit.author,
            comment: commit.comment.clone(),
            name: commit.reference.clone(),
            created_by: record.spec.command.join(" "),
            leave_out: MOUNT_POINTS.map(str::to_owned).to_vec(),
        };
        let mut still = if commit.no_pause { None } else { self.hold_still(container).await? };
        let mut progress = self.neighbours.commit(request).await?;
        let done = loop {
            match progress.message().await?.and_then(|progress| progress.message) {
                Some(Message::Read(_)) => {
                    if let Some(still) = still.take() {
                        still.end().await?;
                    }
                }
                Some(Message::Done(done)) => break done,
                None => {
                    let ended = tonic::Status::unavailable("the image service ended while it committed; try again");
                    return Err(berth_core::Failure::from(ended).into());
                }
            }
        };
        let id = done.image.unwrap_or_default().id;
        let attributes = [("comment", commit.comment), ("imageID", id.clone()), ("imageRef", commit.reference)];
        self.event("commit", &container.record(), &attributes);
        Ok(Committed { image_id: id, warnings: done.warnings })
    }

    /// Freezes a container that runs, and nothing else.
    async fn hold_still(self: &Arc<Self>, container: &Arc<Container>) -> Result<Option<Still>> {
        let still = Still { containers: Arc::clone(self), container: Arc::clone(container), over: false };
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        let held = to_the_end("pausing a container", async move {
            let _turn = container.turn().await;
            let live = container.now();
            let Some(task) = live.task.filter(|_| live.record.state.status == Status::Running) else {
                return Ok(false);
            };
            // Known before it is frozen, so that it is let go by the next start where this service is killed.
            container.keep(&containers.store, |record| record.held_still = true, |_| {}).await?;
            task.pause().await?;
            set(&containers, &container, Status::Running, Status::Paused, true).await?;
            containers.event("pause", &live.record, &[]);
            Ok(true)
        })
        .await;
        match held {
            Ok(true) => Ok(Some(still)),
            Ok(false) => {
                still.nothing();
                Ok(None)
            }
            // Whatever was done of it is taken back.
            Err(error) => Err(error),
        }
    }

    /// Lets a container go on that was frozen to be read.
    pub(crate) async fn let_go(&self, container: &Container) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        if !live.record.held_still {
            return Ok(());
        }
        // A person may have let it go on meanwhile.
        if let Some(task) = live.task.filter(|_| live.record.state.status.is_live()) {
            resume(&task).await?;
        }
        set(self, container, Status::Paused, Status::Running, false).await?;
        if live.record.state.status == Status::Paused {
            self.event("unpause", &live.record, &[]);
        }
        Ok(())
    }
}

async fn resume(task: &Task) -> Result<()> {
    match task.resume().await {
        Ok(()) => Ok(()),
        // It has ended, or was not frozen any more, or not yet.
        Err(failure) if matches!(failure.reason, Reason::NotFound | Reason::State | Reason::Gone) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

async fn set(containers: &Containers, container: &Container, from: Status, to: Status, held: bool) -> Result<()> {
    let change = |record: &mut Record| {
        record.held_still = held;
        if record.state.status == from {
            record.state.status = to;
        }
    };
    container.note(Some(&containers.store), change, |_| {}).await
}

/// A container that is frozen as long as this lives.
struct Still {
    containers: Arc<Containers>,
    container: Arc<Container>,
    over: bool,
}

impl Still {
    async fn end(mut self) -> Result<()> {
        self.over = true;
        let (containers, container) = (Arc::clone(&self.containers), Arc::clone(&self.container));
        to_the_end("unpausing a container", async move { containers.let_go(&container).await }).await
    }

    /// It was not frozen.
    fn nothing(mut self) {
        self.over = true;
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (containers, container) = (Arc::clone(&self.containers), Arc::clone(&self.container));
        // Without a runtime the process ends, and the next start does it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = containers.let_go(&container).await {
                    tracing::error!(id = container.id, %error, "a container that was paused to be read stays so");
                }
            });
        }
    }
}

//! Removal: first the record, so that the name is free; then, as a job that a restart finishes, what is left on disk.

use std::{fs, sync::Arc};

use crate::{
    container::{
        containers::{Containers, blocking, to_the_end},
        live::Container,
        record::{Record, Status},
        store::{Change, Job},
    },
    error::{Error, Result},
};

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Remove {
    /// Also where it runs: it is killed.
    pub(crate) force: bool,
    /// Anonymous volumes too.
    pub(crate) volumes: bool,
}

impl Containers {
    /// Removes a container.
    pub(crate) async fn remove(self: &Arc<Self>, container: &Arc<Container>, how: Remove) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("removing a container", async move { containers.try_remove(&container, how).await }).await
    }

    async fn try_remove(&self, container: &Arc<Container>, how: Remove) -> Result<()> {
        if how.force {
            // Whoever stops it just now, with all the patience in the world, is done at once.
            let live = container.now();
            if live.record.state.status.is_live() && container.is_busy() {
                let _ = self.kill(container, "KILL").await;
            }
        }
        let _turn = container.turn().await;
        let live = container.now();
        if live.removed {
            return Err(Error::NotFound { name: container.id.clone() });
        }
        let refused =
            |why: &str| Err(Error::State(format!("cannot remove container \"/{}\": {why}", live.record.name)));
        match live.record.state.status {
            Status::Running if !how.force => {
                return refused("container is running: stop the container before removing or force remove");
            }
            Status::Paused if !how.force => {
                return refused("container is paused and must be unpaused first");
            }
            Status::Restarting if !how.force => {
                return refused("container is restarting: stop the container before removing or force remove");
            }
            Status::Running | Status::Paused => self.kill_in_turn(container).await?,
            _ => {}
        }
        // Its bundle goes by itself; when this answers it is gone.
        container.clear().await?;
        self.remove_in_turn(container, how.volumes).await
    }

    /// Removes a container that ended and is to go with its end.
    pub(crate) async fn remove_ended(&self, container: &Arc<Container>) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        if live.removed || live.record.state.status.is_live() {
            return Ok(());
        }
        self.remove_in_turn(container, true).await
    }

    pub(crate) async fn remove_in_turn(&self, container: &Arc<Container>, volumes: bool) -> Result<()> {
        let record = container.record();
        let job = Job::Remove { mounts: record.mounts.clone(), volumes };
        let change = Change { put_job: Some((record.id.clone(), job)), ..Change::default() };
        container.erase(&self.store, change).await?;
        // Known here before it is unknown there.
        self.gone.keep(&record);
        self.index.remove(&record.id);
        let cleared = self.clear(&record.id, &record, volumes).await;
        if cleared.is_ok() {
            self.store.job_done(&record.id);
        }
        container.take_early();
        container.publish(|live| {
            let mut record = (*live.record).clone();
            record.state.status = Status::Removing;
            live.record = Arc::new(record);
            live.removed = true;
        });
        self.event("destroy", &record, &[]);
        if let Err(error) = cleared {
            tracing::warn!(id = record.id, %error, "something of a removed container is left until the next start");
        }
        Ok(())
    }

    /// Takes away what a container without a record has left. Can be done again.
    pub(crate) async fn clear(&self, id: &str, record: &Record, volumes: bool) -> Result<()> {
        let directory = self.directory(id);
        let remove = blocking("removing a container's directory", move || match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("cannot remove", &directory)(error))
            }
            _ => Ok(()),
        });
        let (released, snapshot, removed, ()) = tokio::join!(
            self.neighbours.release(id),
            self.neighbours.remove_snapshot(id),
            remove,
            self.volumes.released(id, &record.mounts, volumes),
        );
        released.and(snapshot).and(removed)
    }
}

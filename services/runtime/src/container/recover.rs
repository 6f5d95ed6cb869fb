//! The start of the service, which is the recovery. What runs is told by the bundles and the shims behind them; the
//! records are made to say the same. Only then does anybody get an answer. What needs the neighbours, and what is only
//! left over, comes afterwards.

use std::{fs, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    container::{
        containers::{Containers, Told},
        found::{Found, TRUTH},
        live::{Container, Live},
        record::{Record, Restart, Status, Time},
        restart::Policy,
        signal,
        store::{Change, Job},
    },
    error::{Error, Result},
    network::Live as Attached,
    shims::{Attachment, Task, TaskState},
};

/// What the end is called of a process that nobody saw ending, in Docker's number: the machine went down with it.
const LOST: i32 = 255;
/// A shim that has written an end down says so within this time, or is killed.
const WORD: Duration = Duration::from_secs(30);

impl Containers {
    /// Takes over what there is. The service answers when this has.
    pub(crate) async fn recover(self: &Arc<Self>, records: Vec<Record>) -> Result<Vec<Arc<Container>>> {
        let containers: Vec<_> = records.into_iter().map(Container::new).collect();
        for container in &containers {
            self.index.insert(Arc::clone(container));
            self.volumes.belong(&container.id, &container.record().mounts);
        }
        let mut looks = JoinSet::new();
        for id in self.bundle_ids()? {
            let (this, container) = (Arc::clone(self), self.index.find(&id).ok().filter(|c| c.id == id));
            looks.spawn(async move {
                let found = this.look(&id).await;
                (id, container, found)
            });
        }
        let (mut live, mut running, mut silent, mut over) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while let Some(looked) = looks.join_next().await {
            let (id, container, found) = looked.map_err(|_| Error::Panicked { what: "looking at a bundle" })?;
            match (container, found) {
                (Some(container), Found::Lives(task, state, pid)) => {
                    live.push(self.attached(&id, &container));
                    self.adopt(&container, &task, state, pid).await;
                    running.push((container, task));
                }
                (Some(container), Found::Silent(task)) => {
                    live.push(self.attached(&id, &container));
                    container.publish(|live| (live.task, live.cleaning) = (task.clone(), true));
                    silent.push((container, task));
                }
                (container, Found::Ended(task) | Found::Silent(task)) => over.push((id, container, task)),
                (None, Found::Lives(task, ..)) => over.push((id, None, Some(task))),
            }
        }
        self.networks.recover(live).await.map_err(berth_core::Failure::from)?;
        for (container, task) in running {
            self.watch(&container, &task);
        }
        for (container, task) in silent {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.wait_for_word(&container, task).await });
        }
        let mut ends = Vec::new();
        for (id, container, task) in over {
            let this = Arc::clone(self);
            if let Some(container) = &container {
                container.publish(|live| live.cleaning = true);
                ends.push(Arc::clone(container));
            }
            tokio::spawn(async move { this.finish(&id, container, task).await });
        }
        // An end is quick where the shim has written it down; what has to be killed takes the time that takes.
        let told = ends.iter().map(|container| container.when(|live| !live.record.state.status.is_live()));
        if tokio::time::timeout(TRUTH, futures::future::join_all(told)).await.is_err() {
            tracing::warn!("cleaning up after shims that died takes long and goes on");
        }
        for container in &containers {
            self.without_a_bundle(container).await?;
        }
        Ok(containers)
    }

    fn bundle_ids(&self) -> Result<Vec<String>> {
        let bundles = &self.directories.bundles;
        fs::create_dir_all(bundles).map_err(Error::io("cannot make", bundles))?;
        let entries = fs::read_dir(bundles).map_err(Error::io("cannot list", bundles))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Where the container of a bundle is attached.
    fn attached(&self, id: &str, container: &Container) -> Attached {
        let Attachment { networks, ports } = self.bundle(id).attachment();
        Attached { id: id.into(), name: container.record().name.clone(), endpoints: networks, ports }
    }

    /// A container runs: the record says so, whatever it said before.
    async fn adopt(self: &Arc<Self>, container: &Arc<Container>, task: &Arc<Task>, state: TaskState, pid: u32) {
        let attachment = self.bundle(&container.id).attachment();
        let status = if state == TaskState::Paused { Status::Paused } else { Status::Running };
        let known = container.record();
        let health = self.known_health(&container.id);
        let change = |record: &mut Record| {
            runs(record, status, pid, &attachment);
            if health.is_some() {
                record.state.health = health;
            }
        };
        let store = (known.state.status != status || known.state.pid != pid).then_some(&self.store);
        let also = |live: &mut Live| (live.task, live.cleaning) = (Some(Arc::clone(task)), false);
        if let Err(error) = container.note(store, change, also).await {
            tracing::warn!(id = container.id, %error, "that a container runs cannot be written down");
        }
        if known.held_still {
            // Beside the start, which waits for no shim.
            let (containers, container) = (Arc::clone(self), Arc::clone(container));
            tokio::spawn(async move {
                if let Err(error) = containers.let_go(&container).await {
                    tracing::error!(id = container.id, %error, "a container that was paused to be read stays so");
                }
            });
        }
    }

    async fn wait_for_word(self: &Arc<Self>, container: &Arc<Container>, task: Option<Arc<Task>>) {
        match self.once_it_answers(&container.id, task).await {
            Found::Lives(task, state, pid) => {
                self.adopt(container, &task, state, pid).await;
                self.watch(container, &task);
            }
            Found::Ended(task) | Found::Silent(task) => {
                self.finish(&container.id, Some(Arc::clone(container)), task).await;
            }
        }
    }

    /// A bundle whose container does not run any more, or never did.
    async fn finish(self: &Arc<Self>, id: &str, container: Option<Arc<Container>>, task: Option<Arc<Task>>) {
        if let Some(container) = &container
            && (container.record().state.status.is_live() || self.bundle(id).exit().is_some())
        {
            let ended = match task {
                // Made, and never started, it does not end by itself.
                Some(task) => {
                    let _ = task.kill(signal::KILL).await;
                    let outcome = tokio::time::timeout(WORD, task.wait("")).await;
                    outcome.ok().map(|outcome| (task, outcome))
                }
                None => None,
            };
            self.ended(container, ended).await;
            return;
        }
        // The start was cut off before the program ran, or the create was undone: nobody was told of it.
        self.clear_run(id, task.as_deref()).await;
        self.networks.detach(id).await;
        self.remove_bundle(id).await;
        if let Some(container) = container {
            container.publish(|live| (live.task, live.cleaning) = (None, false));
        }
    }

    /// A record that says "running" without a bundle is from before a reboot.
    async fn without_a_bundle(&self, container: &Arc<Container>) -> Result<()> {
        let live = container.now();
        if !live.is_clear() || !live.record.state.status.is_live() {
            return Ok(());
        }
        let change = |record: &mut Record| {
            record.end(LOST, false, Time::now());
            record.state.error = "the machine went down while it ran".into();
        };
        container.keep(&self.store, change, |live| live.ends += 1).await.map(|_| ())
    }

    /// What comes once the service answers: jobs, restart policies, what nobody refers to.
    pub(crate) async fn settle(self: Arc<Self>, containers: Vec<Arc<Container>>, jobs: Vec<(String, Job)>) {
        let uses = tokio::spawn(Arc::clone(&self).tell_uses());
        tokio::spawn(Arc::clone(&self).hear_of_images());
        for container in containers {
            let this = Arc::clone(&self);
            // Each by itself: one that somebody stops with patience holds up no other.
            tokio::spawn(async move { this.continue_policy(&container).await });
        }
        for (id, job) in jobs {
            let (mounts, volumes) = match job {
                // Its record was committed in the same step that ends the job, so there is none.
                Job::Create { .. } => match self.volumes.made_for(&id).await {
                    Ok(mounts) => (mounts, true),
                    Err(error) => {
                        let error = berth_core::Failure::from(error);
                        tracing::warn!(id, %error, "volumes of a create that was cut off stay until the next start");
                        continue;
                    }
                },
                Job::Remove { mounts, volumes } => (mounts, volumes),
            };
            let record = Record { id: id.clone(), mounts, ..Record::default() };
            match self.clear(&id, &record, volumes).await {
                Ok(()) => self.store.job_done(&id),
                Err(error) => tracing::warn!(id, %error, "something of a container is left until the next start"),
            }
        }
        if let Err(error) = self.remove_strays().await {
            tracing::warn!(%error, "what nobody refers to is left until the next start");
        }
        drop(uses);
    }

    async fn continue_policy(self: &Arc<Self>, container: &Arc<Container>) {
        // The service answers by now: whoever was first has its say, and what holds then is what counts.
        let _turn = container.turn().await;
        let Live { record, removed, .. } = container.now();
        let status = record.state.status;
        if status == Status::Restarting {
            // `ended` may have taken care of it just now; then two wait, and the second finds it started.
            self.start_later(container, Duration::from_millis(record.restart.wait_ms));
            return;
        }
        if status != Status::Exited || removed {
            return;
        }
        if record.spec.auto_remove {
            if let Err(error) = self.remove_in_turn(container, true).await {
                tracing::warn!(id = container.id, %error, "a container that ended cannot be removed");
            }
            return;
        }
        let policy = Policy::parse(&record.spec.restart_policy).unwrap_or(Policy::No);
        if !policy.at_service_start(record.state.exit_code, record.restart) {
            return;
        }
        let change = |record: &mut Record| {
            record.state.status = Status::Restarting;
            record.restart.stopped_by_hand = false;
        };
        match container.keep(&self.store, change, |_| {}).await {
            Ok(_) => self.start_later(container, Duration::ZERO),
            Err(error) => tracing::warn!(id = container.id, %error, "a container's restart policy cannot start it"),
        }
    }

    /// Keeps the image service informed of which images are in use, as often as it starts. What is made meanwhile waits.
    async fn tell_uses(self: Arc<Self>) {
        loop {
            let gone = self.neighbours.image_service_lives().await;
            let all = self.index.all();
            let uses = all.iter().map(|container| (container.id.clone(), container.record().image_id.clone()));
            match self.neighbours.set_uses(uses.filter(|(_, image)| !image.is_empty()).collect()).await {
                Ok(()) => {
                    self.uses_told.send_modify(|told| *told = Told { now: true, round: told.round + 1 });
                    gone.await;
                }
                Err(error) => tracing::warn!(%error, "the image service cannot be told which images are in use"),
            }
            self.uses_told.send_modify(|told| told.now = false);
        }
    }

    /// Passes on what happens to images, as often as the image service starts.
    async fn hear_of_images(self: Arc<Self>) {
        loop {
            let gone = self.neighbours.image_service_lives().await;
            let hear = async {
                let mut events = self.neighbours.image_events().await?;
                while let Ok(Some(event)) = events.message().await {
                    self.events.image(event);
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = hear.await {
                tracing::debug!(%error, "what happens to images is not heard of for now");
            }
            gone.await;
        }
    }

    /// Snapshots and directories of containers that are not there: what a crash left between two steps.
    async fn remove_strays(&self) -> Result<()> {
        let known = |id: &str| self.index.find(id).is_ok_and(|container| container.id == id);
        // What is being made was reserved before anything of it was on disk, and is known before it is no longer made.
        let stray = |id: &str| !self.index.is_being_made(id) && !known(id);
        let snapshots = self.neighbours.container_snapshots().await?;
        for id in snapshots.iter().filter(|id| stray(id)) {
            tracing::info!(id, "a snapshot of a container that is not there is removed");
            self.neighbours.remove_snapshot(id).await?;
        }
        for entry in fs::read_dir(&self.directories.containers).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if stray(&id) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// Jobs that are still to be done: where there is a record, its creation is over.
    pub(crate) async fn drop_finished_jobs(&self, jobs: Vec<(String, Job)>) -> Result<Vec<(String, Job)>> {
        let (finished, open): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(id, job)| {
            matches!(job, Job::Create { .. }) && self.index.find(id).is_ok_and(|container| container.id == *id)
        });
        for (id, _) in finished {
            self.store.commit(Change { remove_job: Some(id), ..Change::default() }).await?;
        }
        Ok(open)
    }
}

/// What a record says once its container is found running. A run that it does not know of yet began just before the
/// service was killed: nothing of the run before is true of it.
fn runs(record: &mut Record, status: Status, pid: u32, attachment: &Attachment) {
    let known = record.state.status.is_live() && record.state.pid == pid;
    if !known {
        if record.state.status != Status::Restarting {
            record.restart = Restart::default();
        }
        record.state.health = record.health_at_start();
        record.state.started = Some(Time::now());
        record.state.exit_code = 0;
        record.state.oom_killed = false;
        record.state.error.clear();
    }
    record.state.status = status;
    record.state.pid = pid;
    record.networks.clone_from(&attachment.networks);
    record.ports.clone_from(&attachment.ports);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_nobody_wrote_down_has_nothing_of_the_last_one() {
        let restart = Restart { stopped_by_hand: true, count: 3, wait_ms: 100 };
        let mut record = Record { restart, ..Record::default() };
        record.state.started = Some(Time(1));
        record.end(3, true, Time(2));
        runs(&mut record, Status::Running, 7, &Attachment::default());
        assert!(record.state.started > Some(Time(2)));
        assert_eq!(record.restart, Restart::default());
        assert_eq!((record.state.exit_code, record.state.oom_killed, record.state.pid), (0, false, 7));

        let started = record.state.started;
        record.restart.count = 2;
        runs(&mut record, Status::Paused, 7, &Attachment::default());
        assert_eq!((record.state.started, record.restart.count), (started, 2), "one that is known goes on");

        record.state.status = Status::Restarting;
        runs(&mut record, Status::Running, 8, &Attachment::default());
        assert_eq!(record.restart.count, 2, "its policy started it");
    }
}

//! Update: limits and restart policy, all of what is asked for or nothing.

use std::sync::Arc;

use berth_core::Failure;
use berth_proto::berth::runtime::v1::Resources;

use super::create::said;
use crate::{
    container::{
        containers::{Containers, to_the_end},
        live::Container,
        record::Status,
        restart::Policy,
    },
    error::{Error, Result},
    spec,
};

/// What changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Update {
    /// 0 and "" leave things as they are.
    pub(crate) resources: Resources,
    pub(crate) restart_policy: Option<String>,
}

/// As Docker says which container a cgroup's refusal is of.
fn cannot(id: &str, error: Error) -> Error {
    let failure = Failure::from(error);
    let message = format!("Cannot update container {id}: {}", failure.message);
    Failure { message, ..failure }.into()
}

impl Containers {
    /// Changes a container; answers with warnings.
    pub(crate) async fn update(self: &Arc<Self>, container: &Arc<Container>, change: Update) -> Result<Vec<String>> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("updating a container", async move {
            let _turn = container.turn().await;
            containers.update_in_turn(&container, change).await
        })
        .await
    }

    async fn update_in_turn(&self, container: &Container, change: Update) -> Result<Vec<String>> {
        let live = container.now();
        if live.removed || live.record.state.status == Status::Removing {
            return Err(Error::NotFound { name: container.id.clone() });
        }
        let asked = &live.record.spec;
        if let Some(policy) = &change.restart_policy
            && Policy::parse(policy)? != Policy::No
            && asked.auto_remove
        {
            return Err(Error::Invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container".into(),
            ));
        }
        let before = asked.resources.clone().unwrap_or_default();
        let (after, warnings) = spec::update(&before, &change.resources).map_err(said)?;
        // Where the cgroup refuses, nothing has changed; where the disk does, the cgroup is as before.
        let task = live.task.filter(|_| live.record.state.status.is_live() && after != before);
        if let Some(task) = &task {
            let limits = spec::limits(&after).map_err(said)?;
            task.update(limits).await.map_err(|failure| cannot(&container.id, failure.into()))?;
        }
        let kept = container.keep(
            &self.store,
            |record| {
                record.spec.resources = Some(after);
                if let Some(policy) = change.restart_policy {
                    record.spec.restart_policy = policy;
                }
            },
            |_| {},
        );
        match kept.await {
            Ok(record) => self.event("update", &record, &[]),
            Err(error) => {
                if let Some(task) = &task
                    && let Err(failure) = task.update(spec::limits(&before).map_err(said)?).await
                {
                    tracing::error!(id = container.id, %failure, "limits that cannot be kept cannot be taken back");
                }
                return Err(error);
            }
        }
        Ok(warnings)
    }
}

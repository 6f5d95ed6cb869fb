//! `Events`, and what removals say.

use std::sync::Arc;

use berth_core::Reference;
use berth_proto::berth::image::v1::ImageEvent;
use futures::{StreamExt as _, stream};
use tokio::sync::broadcast::error::RecvError;

use super::Answers;
use crate::{images::Images, removal::Removed};

/// Everything from now on, until the listener goes.
pub(super) fn events(images: &Arc<Images>) -> Answers<ImageEvent> {
    let events = stream::unfold(images.events.listen(), |mut events| async move {
        loop {
            match events.recv().await {
                Ok(event) => {
                    let event = ImageEvent {
                        time: event.time.to_string(),
                        action: event.action.into(),
                        id: event.id,
                        attributes: event.attributes.into_iter().collect(),
                    };
                    return Some((Ok(event), events));
                }
                // The oldest were missed; what is said now is told.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    events.boxed()
}

/// A name as people write it.
pub(super) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.familiar())
}

/// Says what was removed. `of` is the image whose names went, where that is known already.
pub(super) fn removed(images: &Images, removed: &[Removed], of: Option<&str>) {
    let mut untagged = 0;
    for one in removed {
        let Removed::Deleted(id) = one else {
            untagged += 1;
            continue;
        };
        (0..untagged).for_each(|_| images.events.named("untag", id, id));
        untagged = 0;
        images.events.named("delete", id, id);
    }
    if let Some(id) = of {
        (0..untagged).for_each(|_| images.events.named("untag", id, id));
    }
}

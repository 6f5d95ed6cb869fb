//! `Push`.

use std::sync::Arc;

use berth_core::Reference;
use berth_proto::berth::image::v1::{PushProgress, PushRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, QUEUE, status};
use crate::{
    error::Error,
    images::Images,
    push::{self, Order, Telling},
    registry::Credentials,
};

pub(super) fn push(images: &Arc<Images>, request: PushRequest) -> Result<Answers<PushProgress>, Status> {
    let reference: Reference = request.reference.parse().map_err(Error::from).map_err(status)?;
    if reference.digest().is_some() {
        return Err(status(Error::Request("cannot push a digest reference")));
    }
    let name = reference.familiar();
    let order = Order {
        reference,
        all_tags: request.all_tags,
        platform: request.platform,
        credentials: request.auth.and_then(Credentials::from_wire),
    };
    let (answers, stream) = mpsc::channel(QUEUE);
    let (images, saying) = (Arc::clone(images), Arc::clone(images));
    let work = async move {
        let (telling, mut told) = mpsc::channel(QUEUE);
        let pushing = async move { push::push(&images, order, &Telling(telling)).await };
        let passing = async {
            while let Some(message) = told.recv().await {
                if answers.send(Ok(PushProgress { message: Some(message) })).await.is_err() {
                    return;
                }
            }
        };
        let both = async {
            let (pushed, ()) = tokio::join!(pushing, passing);
            pushed
        };
        let pushed = tokio::select! {
            pushed = both => pushed,
            // Nobody waits for it any more; what has arrived there stays for the next push.
            () = answers.closed() => return,
        };
        if let Err(error) = pushed {
            let _ = answers.send(Err(status(error))).await;
            return;
        }
        let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository).to_owned();
        saying.events.named("push", name, repository);
    };
    tokio::spawn(tracing::Instrument::in_current_span(work));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

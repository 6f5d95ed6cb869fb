//! `Commit`, `Import` and `Save`.

use std::sync::Arc;

use berth_core::Reference;
use berth_proto::berth::image::v1::{
    CommitDone, CommitProgress, CommitRead, CommitRequest, ImportRequest, ImportResponse, SaveRequest, SaveResponse,
    commit_progress::Message, import_request,
};
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, QUEUE, Service, arriving, events::familiar, platform, status};
use crate::{
    error::Error,
    images::Images,
    making::{commit, import},
    save as saving,
};

/// A name that can be given; `None` for an empty one.
fn name(text: &str) -> Result<Option<Reference>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let name: Reference = text.parse()?;
    if name.digest().is_some() {
        return Err(Error::Request("a name with a digest cannot be given; name a tag"));
    }
    Ok(Some(name))
}

pub(super) fn commit(images: &Arc<Images>, request: CommitRequest) -> Result<Answers<CommitProgress>, Status> {
    let order = commit::Order {
        name: name(&request.name).map_err(status)?,
        snapshot: request.snapshot,
        leave_out: request.leave_out,
        image_id: request.image_id,
        config: request.config.to_vec(),
        changes: request.changes,
        author: request.author,
        comment: request.comment,
        created_by: request.created_by,
    };
    // It holds all that is ever sent.
    let (answers, stream) = mpsc::channel(2);
    let images = Arc::clone(images);
    let work = async move {
        let progress = |message| Ok(CommitProgress { message: Some(message) });
        let told = answers.clone();
        let making = async {
            let read = || drop(told.try_send(progress(Message::Read(CommitRead {}))));
            let made = commit::commit(&images, order, read).await?;
            let service = Service(Arc::clone(&images));
            let image = service.wire(images.find(&made.id.to_string())?).await?;
            Ok::<_, Error>(CommitDone { image: Some(image), warnings: made.warnings })
        };
        let made = tokio::select! {
            made = making => made,
            // What is made for nobody is given up.
            () = answers.closed() => return,
        };
        let _ = answers.send(made.map_err(status).and_then(|done| progress(Message::Done(done)))).await;
    };
    tokio::spawn(tracing::Instrument::in_current_span(work));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

pub(super) async fn import(
    images: &Arc<Images>,
    mut messages: Streaming<ImportRequest>,
) -> Result<ImportResponse, Status> {
    let Some(import_request::Message::Start(start)) = messages.message().await?.and_then(|m| m.message) else {
        return Err(status(Error::Request("the first message of Import is start")));
    };
    let order = import::Order {
        name: name(&start.name).map_err(status)?,
        changes: start.changes,
        comment: start.comment,
        platform: platform(&start.platform).map_err(status)?,
    };
    let data = arriving(messages, |message| match message.message {
        Some(import_request::Message::Data(data)) => Some(data),
        _ => None,
    });
    let made = import::import(images, order, data).await.map_err(status)?;
    let record = images.find(&made.id.to_string()).map_err(status)?;
    let image = Service(Arc::clone(images)).wire(record).await.map_err(status)?;
    images.events.named("import", &image.id, image.names.first().map_or(image.id.clone(), |name| familiar(name)));
    Ok(ImportResponse { image: Some(image), warnings: made.warnings })
}

pub(super) fn save(images: &Arc<Images>, request: SaveRequest) -> Answers<SaveResponse> {
    let (sender, pieces) = mpsc::channel(QUEUE);
    let images = Arc::clone(images);
    let saving = tokio::spawn(tracing::Instrument::in_current_span(async move {
        saving::save(&images, &request.references, &request.platform, sender).await?;
        for reference in &request.references {
            if let Ok(record) = images.find(reference) {
                images.events.named("save", record.id.to_string(), record.id.to_string());
            }
        }
        Ok(())
    }));
    let last = stream::once(saving).filter_map(|saved| async move {
        let saved = saved.unwrap_or(Err(Error::Panicked { what: "saving images" }));
        saved.err().map(|error| Err(status(error)))
    });
    let pieces = ReceiverStream::new(pieces).map(|data| Ok(SaveResponse { data }));
    pieces.chain(last).boxed()
}

//! `berth.snapshotter.v1`

use std::{collections::BTreeMap, fs::File, pin::Pin, sync::Arc};

use berth_core::Digest;
use berth_proto::berth::snapshotter::v1::{
    ApplyDone, ApplyRequest, ApplyResponse, ApplyStart, ComposeRequest, ComposeResponse, DiskUsageRequest,
    DiskUsageResponse, LayerUsage, StatRequest, StatResponse, apply_request, apply_response, layers_server,
};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{blocking, status};
use crate::{
    error::Error,
    layer::growing::{Arrival, End},
    snapshotter::{Snapshotter, Turn},
};

pub(crate) struct Layers(Arc<Snapshotter>);

impl Layers {
    pub(crate) fn new(snapshotter: Arc<Snapshotter>) -> Self {
        Self(snapshotter)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<ApplyResponse, Status>> + Send>>;

#[tonic::async_trait]
impl layers_server::Layers for Layers {
    type ApplyStream = Answers;

    async fn apply(&self, request: Request<Streaming<ApplyRequest>>) -> Result<Response<Answers>, Status> {
        let mut messages = request.into_inner();
        let Some(apply_request::Message::Start(start)) = messages.message().await?.and_then(|m| m.message) else {
            return Err(status(Error::Request("the first message of Apply is start")));
        };
        let diff_id: Digest = start.diff_id.parse().map_err(Error::from).map_err(status)?;
        let snapshotter = Arc::clone(&self.0);
        let (answers, stream) = mpsc::channel(4);
        let span = tracing::Span::current();
        tokio::spawn(tracing::Instrument::instrument(
            async move {
                let answer = lay_down(&snapshotter, start, diff_id, messages).await;
                let answer = answer.map(|done| ApplyResponse { message: Some(apply_response::Message::Done(done)) });
                // A caller that went away needs no answer.
                let _ = answers.send(answer.map_err(status)).await;
            },
            span,
        ));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<StatResponse>, Status> {
        let diff_ids = digests(&request.into_inner().diff_ids)?;
        let diff_ids = self.0.present(&diff_ids).iter().map(Digest::to_string).collect();
        Ok(Response::new(StatResponse { diff_ids }))
    }

    async fn compose(&self, request: Request<ComposeRequest>) -> Result<Response<ComposeResponse>, Status> {
        let ComposeRequest { diff_ids, labels } = request.into_inner();
        let diff_ids = digests(&diff_ids)?;
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        let chain_ids = blocking(&self.0, move |s| s.compose(&diff_ids, &labels)).await?;
        Ok(Response::new(ComposeResponse { chain_ids }))
    }

    async fn usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        let layers = self.0.layers().into_iter().map(|(diff_id, layer, references)| LayerUsage {
            diff_id: diff_id.to_string(),
            bytes: layer.usage.bytes,
            inodes: layer.usage.inodes,
            references: references as u32,
        });
        Ok(Response::new(DiskUsageResponse {
            driver: self.0.driver().into(),
            layers: layers.collect(),
            path: self.0.root().display().to_string(),
            backing_filesystem: backing(self.0.root()),
        }))
    }
}

fn digests(texts: &[String]) -> Result<Vec<Digest>, Status> {
    texts.iter().map(|text| text.parse().map_err(Error::from).map_err(status)).collect()
}

/// Lays a layer down, or waits for the call that does.
async fn lay_down(
    snapshotter: &Arc<Snapshotter>,
    start: ApplyStart,
    diff_id: Digest,
    mut messages: Streaming<ApplyRequest>,
) -> Result<ApplyDone, Error> {
    // What is said while another call is at work holds for this one's own turn as well.
    let heard = Arc::new(Arrival::default());
    let claim = loop {
        let mut other = match snapshotter.turn(&diff_id) {
            Turn::Here(size) => return Ok(ApplyDone { size, existed: true }),
            Turn::Ours(claim) => break claim,
            Turn::Wait(other) => other,
        };
        tokio::select! {
            // It closes, whatever became of the other call.
            _ = other.changed() => {}
            message = messages.message() => match message {
                Ok(Some(message)) => hear(&heard, message),
                Ok(None) | Err(_) => return Err(Error::Interrupted { diff_id: diff_id.to_string() }),
            }
        }
    };
    let arrival = Arc::clone(&heard);
    let mut working = tokio::task::spawn_blocking({
        let snapshotter = Arc::clone(snapshotter);
        move || {
            let blob = File::open(&start.path).map_err(Error::io("cannot open the blob", &start.path))?;
            snapshotter.apply(&claim, blob, &arrival)
        }
    });
    let mut listening = true;
    loop {
        tokio::select! {
            result = &mut working => {
                let size = result.unwrap_or(Err(Error::Panicked { what: "unpacking" }))?;
                return Ok(ApplyDone { size, existed: false });
            }
            message = messages.message(), if listening => match message {
                Ok(Some(message)) => hear(&heard, message),
                Ok(None) | Err(_) => {
                    // After `finish` this changes nothing: the first end counts.
                    heard.end(End::Abandoned);
                    listening = false;
                }
            },
        }
    }
}

fn hear(arrival: &Arrival, message: ApplyRequest) {
    match message.message {
        Some(apply_request::Message::Available(bytes)) => arrival.advance(bytes),
        Some(apply_request::Message::Finish(_)) => arrival.end(End::Finished),
        Some(apply_request::Message::Start(_)) | None => {}
    }
}

/// Name of the file system that holds a path.
fn backing(path: &std::path::Path) -> String {
    let magic = rustix::fs::statfs(path).map(|stat| stat.f_type as i64).unwrap_or(0);
    match magic {
        0xef53 => "extfs".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        other => format!("{other:#x}"),
    }
}

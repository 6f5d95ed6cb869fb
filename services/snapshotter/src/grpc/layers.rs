//! `berth.snapshotter.v1`

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
};

use berth_core::Digest;
use berth_proto::berth::snapshotter::v1::{
    ApplyDone, ApplyRequest, ApplyResponse, ApplyStart, ChangesRequest, ChangesResponse, ComposeRequest,
    ComposeResponse, DiskUsageRequest, DiskUsageResponse, ExportRequest, ExportResponse, ForgetRequest, ForgetResponse,
    LayerUsage, PackRequest, PackResponse, StatRequest, StatResponse, TakeRequest, TakeResponse, apply_request,
    apply_response, layers_server,
};
use futures::Stream;
use rustix::fs::{Mode, OFlags};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{blocking, reading, status};
use crate::{
    error::Error,
    layer::growing::{Arrival, End},
    snapshotter::{Snapshotter, Turn},
};

/// Layers that are laid down at once. Each may wait long for its blob, on a thread of its own; there must be some left for
/// the other calls.
const PLACES: usize = 64;

pub(crate) struct Layers(Arc<Snapshotter>, Arc<Semaphore>);

impl Layers {
    pub(crate) fn new(snapshotter: Arc<Snapshotter>) -> Self {
        Self(snapshotter, Arc::new(Semaphore::new(PLACES)))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

#[tonic::async_trait]
impl layers_server::Layers for Layers {
    type ApplyStream = Answers;
    type TakeStream = reading::Answers<TakeResponse>;
    type PackStream = reading::Answers<PackResponse>;
    type ChangesStream = reading::Answers<ChangesResponse>;
    type ExportStream = reading::Answers<ExportResponse>;

    async fn apply(&self, request: Request<Streaming<ApplyRequest>>) -> Result<Response<Answers>, Status> {
        let mut messages = request.into_inner();
        let Some(apply_request::Message::Start(start)) = messages.message().await?.and_then(|m| m.message) else {
            return Err(status(Error::Request("the first message of Apply is start")));
        };
        let diff_id: Digest = start.diff_id.parse().map_err(Error::from).map_err(status)?;
        // Opened at once, so that a later rename does no harm, however long this call waits for its turn.
        let blob = blocking(&self.0, move |_| open(&start)).await?;
        let snapshotter = Arc::clone(&self.0);
        let places = Arc::clone(&self.1);
        let (answers, stream) = mpsc::channel(4);
        let span = tracing::Span::current();
        tokio::spawn(tracing::Instrument::instrument(
            async move {
                let answer = lay_down(&snapshotter, &places, blob, diff_id, messages, &answers).await;
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

    async fn forget(&self, _: Request<ForgetRequest>) -> Result<Response<ForgetResponse>, Status> {
        blocking(&self.0, |s| {
            s.forget_abandoned();
            Ok(())
        })
        .await?;
        self.0.cleaned().await;
        Ok(Response::new(ForgetResponse {}))
    }

    async fn take(&self, request: Request<TakeRequest>) -> Result<Response<Self::TakeStream>, Status> {
        Ok(Response::new(reading::take(&self.0, request.into_inner())))
    }

    async fn pack(&self, request: Request<PackRequest>) -> Result<Response<Self::PackStream>, Status> {
        reading::pack(&self.0, request.get_ref()).map(Response::new)
    }

    async fn changes(&self, request: Request<ChangesRequest>) -> Result<Response<Self::ChangesStream>, Status> {
        reading::changes(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Ok(Response::new(reading::export(&self.0, request.into_inner())))
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

/// Opens the blob's file, and nothing else than a file.
fn open(start: &ApplyStart) -> Result<File, Error> {
    let path = Path::new(&start.path);
    if !path.is_absolute() {
        return Err(Error::Request("the path of a blob is absolute"));
    }
    // A FIFO would otherwise hold this up until somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = || Error::io("cannot open the blob", path);
    let blob = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed()(error.into()))?);
    if blob.metadata().map_err(failed())?.is_file() { Ok(blob) } else { Err(Error::Request("the blob is no file")) }
}

type Answer = Result<ApplyResponse, Status>;

/// Lays a layer down, or waits for the call that does.
async fn lay_down(
    snapshotter: &Arc<Snapshotter>,
    places: &Arc<Semaphore>,
    blob: File,
    diff_id: Digest,
    mut messages: Streaming<ApplyRequest>,
    answers: &mpsc::Sender<Answer>,
) -> Result<ApplyDone, Error> {
    // What is said while another call is at work holds for this one's own turn as well.
    let heard = Arc::new(Arrival::default());
    // Whoever waits goes on listening, so that a caller that goes away is not waited for.
    let mut waiting = true;
    let claim = loop {
        let mut other = match snapshotter.turn(&diff_id) {
            Turn::Here(size) => return Ok(ApplyDone { size, existed: true }),
            Turn::Ours(claim) => break claim,
            Turn::Wait(other) => other,
        };
        tokio::select! {
            // It closes, whatever became of the other call.
            _ = other.changed() => {}
            more = listen(&mut messages, &heard), if waiting => waiting = more,
            // Whatever it has said before: nobody is there who would answer for the layer.
            () = answers.closed() => heard.abandon(),
        }
        if heard.abandoned() {
            return Err(Error::Interrupted { diff_id: diff_id.to_string() });
        }
    };
    let mut place = pin!(Arc::clone(places).acquire_owned());
    let place = loop {
        let mut free = None;
        tokio::select! {
            // In this order: nothing is begun for a caller that is known to be gone.
            biased;
            () = answers.closed() => heard.abandon(),
            place = &mut place => free = Some(place.map_err(|_| Error::Panicked { what: "the service" })?),
            more = listen(&mut messages, &heard), if waiting => waiting = more,
        }
        if heard.abandoned() {
            return Err(Error::Interrupted { diff_id: diff_id.to_string() });
        }
        if let Some(place) = free {
            break place;
        }
    };
    let mut consumed = heard.consumed();
    let mut working = tokio::task::spawn_blocking({
        let (snapshotter, arrival, span) = (Arc::clone(snapshotter), Arc::clone(&heard), tracing::Span::current());
        move || {
            let _place = place;
            span.in_scope(|| snapshotter.apply(&claim, blob, &arrival))
        }
    });
    loop {
        tokio::select! {
            result = &mut working => {
                let size = result.unwrap_or(Err(Error::Panicked { what: "unpacking" }))?;
                return Ok(ApplyDone { size, existed: false });
            }
            more = listen(&mut messages, &heard), if waiting => waiting = more,
            () = answers.closed(), if !heard.abandoned() => heard.abandon(),
            Ok(()) = consumed.changed() => {
                let consumed = *consumed.borrow_and_update();
                // Whoever reads slowly is told less often.
                let _ = answers.try_send(Ok(ApplyResponse { message: Some(apply_response::Message::Consumed(consumed)) }));
            }
        }
    }
}

/// Hears one message; false when no more will come.
async fn listen(messages: &mut Streaming<ApplyRequest>, arrival: &Arrival) -> bool {
    match messages.message().await {
        Ok(Some(message)) => {
            hear(arrival, message);
            true
        }
        Ok(None) | Err(_) => {
            // After `finish` this changes nothing: the first end counts.
            arrival.end(End::Abandoned);
            false
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
fn backing(path: &Path) -> String {
    let magic = rustix::fs::statfs(path).map(|stat| stat.f_type).unwrap_or(0);
    match magic {
        0xef53 => "extfs".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        other => format!("{other:#x}"),
    }
}

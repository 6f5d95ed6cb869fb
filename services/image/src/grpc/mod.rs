//! `berth.image.v1`. Nothing of the rules is here: a message is taken apart, the call is made, the answer is put together.

mod events;
mod making;
mod push;
mod remote;

use std::{pin::Pin, sync::Arc};

use berth_core::{Failure, Platform, Reference};
use berth_proto::berth::image::v1::{
    CommitProgress, CommitRequest, EventsRequest, GetRequest, GetResponse, HistoryRequest, HistoryResponse,
    HistoryStep, Image, ImageEvent, ImageUsage, ImportRequest, ImportResponse, ListRequest, ListResponse, LoadProgress,
    LoadRequest, LoadedImage, LoginRequest, LoginResponse, ManifestRequest, ManifestResponse, PruneRequest,
    PruneResponse, PullDone, PullProgress, PullRequest, PushProgress, PushRequest, PutManifestListRequest,
    PutManifestListResponse, ReleaseRequest, ReleaseResponse, RemoveRequest, RemoveResponse, Removed as WireRemoved,
    SaveRequest, SaveResponse, SearchRequest, SearchResponse, SetUsesRequest, SetUsesResponse, TagRequest, TagResponse,
    TagsRequest, TagsResponse, UsageRequest, UsageResponse, images_server, load_progress, load_request,
    pull_progress::Message, removed::What,
};
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    archive,
    error::Error,
    filter::Filters,
    history,
    images::{Images, blocking},
    pull::{self, Event, Wanted},
    registry::Credentials,
    removal::Removed,
    store::{Record, Stored},
    usage,
};

/// A load's data comes in messages of up to this size.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
/// Messages that wait for a slow caller; the pull itself never waits for one.
const QUEUE: usize = 16;

pub(crate) struct Service(Arc<Images>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn status(error: Error) -> Status {
    Failure::from(error).into()
}

impl Service {
    pub(crate) fn new(images: Arc<Images>) -> Self {
        Self(images)
    }

    async fn wire(&self, record: Record) -> Result<Image, Error> {
        let stored = self.0.config(&record.id).await?;
        Ok(to_wire(&self.0, record, &stored))
    }
}

/// The data of an archive, as the caller sends it.
fn arriving<T: Send + 'static>(
    mut messages: Streaming<T>,
    data: impl Fn(T) -> Option<Bytes> + Send + 'static,
) -> mpsc::Receiver<Result<Bytes, Error>> {
    let (chunks, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let chunk = match messages.message().await.map(|message| message.map(&data)) {
                Ok(Some(Some(data))) => Ok(data),
                Ok(Some(None)) => continue,
                Ok(None) => return,
                Err(_) => Err(Error::Cancelled),
            };
            if chunks.send(chunk).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn told(removed: Vec<Removed>) -> Vec<WireRemoved> {
    let one = |removed| match removed {
        Removed::Untagged(name) => What::Untagged(name),
        Removed::Deleted(id) => What::Deleted(id),
    };
    removed.into_iter().map(|removed| WireRemoved { what: Some(one(removed)) }).collect()
}

fn to_wire(images: &Images, record: Record, stored: &Stored) -> Image {
    let config = &stored.config;
    let chain_id = berth_core::digest::chain_ids(&record.diff_ids).pop();
    let tagged = std::time::UNIX_EPOCH + std::time::Duration::from_secs(record.last_tagged);
    Image {
        used_by: images.uses.of(&record.id),
        id: record.id.to_string(),
        names: record.names.into_iter().collect(),
        repo_digests: record.repo_digests.into_iter().collect(),
        created: config.created.clone().unwrap_or_default(),
        size: record.size,
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        manifest_digest: record.manifest.to_string(),
        manifest_media_type: record.manifest_media_type,
        diff_ids: record.diff_ids.iter().map(ToString::to_string).collect(),
        chain_id: chain_id.map(|id| id.to_string()).unwrap_or_default(),
        labels: config.config.as_ref().and_then(|c| c.labels.clone()).unwrap_or_default(),
        parent: record.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        last_tagged: jiff::Timestamp::try_from(tagged).map(|t| t.to_string()).unwrap_or_default(),
        config: stored.bytes.clone(),
    }
}

fn platform(text: &str) -> Result<Platform, Error> {
    if text.is_empty() { Ok(Platform::host()) } else { Ok(text.parse()?) }
}

#[tonic::async_trait]
impl images_server::Images for Service {
    type PullStream = Answers<PullProgress>;
    type LoadStream = Answers<LoadProgress>;
    type CommitStream = Answers<CommitProgress>;
    type SaveStream = Answers<SaveResponse>;
    type PushStream = Answers<PushProgress>;
    type EventsStream = Answers<ImageEvent>;

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let PullRequest { reference, platform: wanted, auth } = request.into_inner();
        let reference: Reference = reference.parse().map_err(Error::from).map_err(status)?;
        let platform = platform(&wanted).map_err(status)?;
        let credentials = auth.and_then(Credentials::from_wire);
        let images = Arc::clone(&self.0);
        let name = reference.familiar();
        let wanted = Wanted { reference, platform, credentials };
        let mut ticket = self
            .0
            .flights
            .join(wanted.clone(), move |progress| async move { pull::pull(&images, &wanted, &progress).await });
        let (answers, stream) = mpsc::channel(QUEUE);
        let service = Self(Arc::clone(&self.0));
        tokio::spawn(async move {
            loop {
                // A caller that goes away gives up its part in the pull.
                let event = tokio::select! {
                    event = ticket.next() => event,
                    () = answers.closed() => return,
                };
                let (answer, last) = match event {
                    Event::Progress(progress) => (Ok(*progress), false),
                    Event::Done(Ok(pulled)) => (service.done(pulled, &name).await.map_err(status), true),
                    Event::Done(Err(failure)) => (Err(failure.into()), true),
                };
                if answers.send(answer).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { filters, .. } = request.into_inner();
        let images = Arc::clone(&self.0);
        let list = blocking(move || {
            let all = images.store.records.all();
            let filters = Filters::parse(&filters, &images, &all)?;
            let mut list = Vec::new();
            for record in all.values() {
                let stored = images.store.configs.get(&images.store.blobs, &record.id)?;
                if let Some(record) = filters.admit(record.clone(), &stored.config) {
                    list.push(to_wire(&images, record, &stored));
                }
            }
            Ok(list)
        });
        Ok(Response::new(ListResponse { images: list.await.map_err(status)? }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { reference, platform, use_by } = request.into_inner();
        let (record, stored) = self.0.find_for(&reference, &platform).await.map_err(status)?;
        if !use_by.is_empty() {
            self.0.begin_use(&use_by, &record.id, &reference).map_err(status)?;
        }
        Ok(Response::new(GetResponse { image: Some(to_wire(&self.0, record, &stored)) }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let RemoveRequest { reference, force, .. } = request.into_inner();
        let of = self.0.find(&reference).map(|record| record.id.to_string()).ok();
        let removed = self.0.remove(&reference, force).await.map_err(status)?;
        events::removed(&self.0, &removed, of.as_deref());
        Ok(Response::new(RemoveResponse { removed: told(removed) }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let PruneRequest { all, filters } = request.into_inner();
        let (removed, reclaimed) = self.0.prune_images(all, filters).await.map_err(status)?;
        events::removed(&self.0, &removed, None);
        self.0.events.say("prune", "", [("reclaimed".to_owned(), reclaimed.to_string())]);
        Ok(Response::new(PruneResponse { removed: told(removed), reclaimed }))
    }

    async fn tag(&self, request: Request<TagRequest>) -> Result<Response<TagResponse>, Status> {
        let TagRequest { source, target } = request.into_inner();
        let record = self.0.tag(&source, &target).await.map_err(status)?;
        self.0.events.named("tag", record.id.to_string(), events::familiar(&target));
        Ok(Response::new(TagResponse { image: Some(self.wire(record).await.map_err(status)?) }))
    }

    async fn load(&self, request: Request<Streaming<LoadRequest>>) -> Result<Response<Self::LoadStream>, Status> {
        let mut messages = request.into_inner();
        let Some(load_request::Message::Start(start)) = messages.message().await?.and_then(|m| m.message) else {
            return Err(status(Error::Request("the first message of Load is start")));
        };
        let platform = platform(&start.platform).map_err(status)?;
        let name = match start.name.as_str() {
            "" => None,
            name => Some(name.parse::<Reference>().map_err(Error::from).map_err(status)?),
        };
        let data = arriving(messages, |message| match message.message {
            Some(load_request::Message::Data(data)) => Some(data),
            _ => None,
        });
        let (answers, stream) = mpsc::channel(QUEUE);
        let service = Self(Arc::clone(&self.0));
        tokio::spawn(async move {
            let loading = async {
                let mut loaded = Vec::new();
                for (id, names) in archive::load(&service.0, data, platform, name).await? {
                    let image = service.wire(service.0.find(&id.to_string())?).await?;
                    if names.is_empty() {
                        loaded.push(LoadedImage { image: Some(image), name: String::new() });
                    } else {
                        loaded.extend(
                            names.iter().map(|n| LoadedImage { image: Some(image.clone()), name: n.familiar() }),
                        );
                    }
                }
                Ok(loaded)
            };
            let result: Result<Vec<LoadedImage>, Error> = tokio::select! {
                result = loading => result,
                () = answers.closed() => return,
            };
            match result {
                Err(error) => drop(answers.send(Err(status(error))).await),
                Ok(loaded) => {
                    for image in loaded {
                        let id = image.image.as_ref().map_or(String::new(), |image| image.id.clone());
                        let name = if image.name.is_empty() { id.clone() } else { image.name.clone() };
                        service.0.events.named("load", id, name);
                        let message = Some(load_progress::Message::Loaded(image));
                        if answers.send(Ok(LoadProgress { message })).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<Self::CommitStream>, Status> {
        making::commit(&self.0, request.into_inner()).map(Response::new)
    }

    async fn import(&self, request: Request<Streaming<ImportRequest>>) -> Result<Response<ImportResponse>, Status> {
        making::import(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        let steps = history::history(&self.0, &request.into_inner().reference).await.map_err(status)?;
        let steps = steps.into_iter().map(|step| HistoryStep {
            image_id: step.image.map(|id| id.to_string()).unwrap_or_default(),
            created: step.created,
            created_by: step.created_by,
            size: step.size,
            comment: step.comment,
            names: step.names,
        });
        Ok(Response::new(HistoryResponse { steps: steps.collect() }))
    }

    async fn save(&self, request: Request<SaveRequest>) -> Result<Response<Self::SaveStream>, Status> {
        Ok(Response::new(making::save(&self.0, request.into_inner())))
    }

    async fn set_uses(&self, request: Request<SetUsesRequest>) -> Result<Response<SetUsesResponse>, Status> {
        let SetUsesRequest { owner_prefix, uses } = request.into_inner();
        let mut parsed = Vec::new();
        for one in uses {
            parsed.push((one.owner, one.image_id.parse().map_err(Error::from).map_err(status)?));
        }
        self.0.uses.replace(&owner_prefix, parsed);
        Ok(Response::new(SetUsesResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        self.0.uses.end(&request.into_inner().owner);
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn usage(&self, _: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let images = Arc::clone(&self.0);
        let [(blobs, bytes), (partial_blobs, partial_bytes)] =
            blocking(move || images.store.blobs.usage()).await.map_err(status)?;
        let path = self.0.store.blobs.root().display().to_string();
        let usage::Usage { images, total, unused } = usage::usage(&self.0).await.map_err(status)?;
        let image = |of: usage::ImageUsage| ImageUsage { id: of.id.to_string(), size: of.size, shared: of.shared };
        let images = images.into_iter().map(image).collect();
        Ok(Response::new(UsageResponse { blobs, bytes, partial_blobs, partial_bytes, path, images, total, unused }))
    }

    async fn events(&self, _: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        Ok(Response::new(events::events(&self.0)))
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<Self::PushStream>, Status> {
        push::push(&self.0, request.into_inner()).map(Response::new)
    }

    async fn tags(&self, request: Request<TagsRequest>) -> Result<Response<TagsResponse>, Status> {
        remote::tags(&self.0, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn manifest(&self, request: Request<ManifestRequest>) -> Result<Response<ManifestResponse>, Status> {
        remote::manifest(&self.0, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn put_manifest_list(
        &self,
        request: Request<PutManifestListRequest>,
    ) -> Result<Response<PutManifestListResponse>, Status> {
        remote::put_list(&self.0, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        remote::search(&self.0, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let LoginRequest { server, auth } = request.into_inner();
        let credentials = auth.and_then(Credentials::from_wire);
        let credentials = credentials.ok_or_else(|| status(Error::Request("Login needs credentials")))?;
        let identity = self.0.registries.login(&server, &credentials).await.map_err(status)?;
        let identity_token = identity.unwrap_or_default();
        Ok(Response::new(LoginResponse { status: "Login Succeeded".into(), identity_token }))
    }
}

impl Service {
    async fn done(&self, pulled: pull::Pulled, name: &str) -> Result<PullProgress, Error> {
        let image = self.wire(self.0.find(&pulled.id.to_string())?).await?;
        let repository = name.rsplit_once([':', '@']).map_or(name, |(repository, _)| repository);
        let labels = image.labels.clone().into_iter();
        self.0.events.say("pull", name, labels.chain([("name".to_owned(), repository.to_owned())]));
        let done = PullDone { image: Some(image), changed: pulled.changed, digest: pulled.digest.to_string() };
        Ok(PullProgress { message: Some(Message::Done(done)) })
    }
}

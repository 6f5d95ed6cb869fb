//! `Containers`.

use std::sync::Arc;

use berth_core::Failure;
use berth_proto::berth::{
    image::v1::Auth,
    runtime::v1::{
        AttachRequest, AttachResponse, ChangesRequest, ChangesResponse, CommitRequest, CommitResponse, CreateProgress,
        CreateRequest, Created as WireCreated, ExecRequest, ExecResponse, ExportRequest, ExportResponse,
        InspectRequest, InspectResponse, KillRequest, KillResponse, ListRequest, ListResponse, LogsRequest,
        LogsResponse, PauseRequest, PauseResponse, PruneRequest, PruneResponse, ReadFilesRequest, ReadFilesResponse,
        RemoveRequest, RemoveResponse, RenameRequest, RenameResponse, ResizeRequest, ResizeResponse, RestartRequest,
        RestartResponse, StartRequest, StartResponse, StatFileRequest, StatFileResponse, StatsRequest, StatsResponse,
        StopRequest, StopResponse, TopRequest, TopResponse, TopRow, UnpauseRequest, UnpauseResponse, UpdateRequest,
        UpdateResponse, WaitRequest, WaitResponse, WhyRequest, WhyResponse, WriteFilesRequest, WriteFilesResponse,
        containers_server, create_progress::Message, create_request::PullPolicy,
        wait_request::Condition as WireCondition,
    },
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, QUEUE, attach, convert, copy, exec, files, logs, sizes, stats, status};
use crate::{
    container::{
        Containers, Wanted, Why,
        lifecycle::{Condition, Created, Order, Pull, remove::Remove, stop::Stop, update::Update, wait},
        record::Time,
        why,
    },
    error::Error,
    spec,
};

pub(crate) struct Service(pub(super) Arc<Containers>);

#[tonic::async_trait]
impl containers_server::Containers for Service {
    type CreateStream = Answers<CreateProgress>;
    type AttachStream = Answers<AttachResponse>;
    type ExecStream = Answers<ExecResponse>;
    type LogsStream = Answers<LogsResponse>;
    type StatsStream = Answers<StatsResponse>;
    type ChangesStream = Answers<ChangesResponse>;
    type ExportStream = Answers<ExportResponse>;
    type ReadFilesStream = Answers<ReadFilesResponse>;

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Self::CreateStream>, Status> {
        let order = order(request.into_inner()).map_err(status)?;
        let (progress, pulled) = mpsc::channel(QUEUE);
        let (done, last) = mpsc::channel(1);
        let containers = Arc::clone(&self.0);
        let span = tracing::Span::current();
        let work = async move {
            let result = containers.create(order, progress).await;
            // A caller that went away at the very last moment has a container it does not know of, as in Docker.
            let _ = done.send(result).await;
        };
        tokio::spawn(tracing::Instrument::instrument(work, span));
        let pulled = ReceiverStream::new(pulled).map(|bytes| Ok(Message::Pull(bytes)));
        let last = ReceiverStream::new(last).map(|result| match result {
            Ok(Created { id, name, warnings }) => Ok(Message::Created(WireCreated { id, warnings, name })),
            Err(error) => Err(status(error)),
        });
        let answers = pulled.chain(last).map(|message| message.map(|m| CreateProgress { message: Some(m) }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        let container = self.0.find(&request.into_inner().container).map_err(status)?;
        let pid = self.0.start(&container).await.map_err(status)?;
        Ok(Response::new(StartResponse { pid }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let StopRequest { container, signal, timeout } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.stop(&container, Stop { signal, timeout }).await.map_err(status)?;
        Ok(Response::new(StopResponse {}))
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Result<Response<RestartResponse>, Status> {
        let RestartRequest { container, signal, timeout } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.restart(&container, Stop { signal, timeout }).await.map_err(status)?;
        Ok(Response::new(RestartResponse {}))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        let KillRequest { container, signal } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.kill(&container, &signal).await.map_err(status)?;
        Ok(Response::new(KillResponse {}))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let container = self.0.find(&request.into_inner().container).map_err(status)?;
        self.0.pause(&container).await.map_err(status)?;
        Ok(Response::new(PauseResponse {}))
    }

    async fn unpause(&self, request: Request<UnpauseRequest>) -> Result<Response<UnpauseResponse>, Status> {
        let container = self.0.find(&request.into_inner().container).map_err(status)?;
        self.0.unpause(&container).await.map_err(status)?;
        Ok(Response::new(UnpauseResponse {}))
    }

    async fn rename(&self, request: Request<RenameRequest>) -> Result<Response<RenameResponse>, Status> {
        let RenameRequest { container, name } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.rename(&container, name).await.map_err(status)?;
        Ok(Response::new(RenameResponse {}))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let RemoveRequest { container, force, volumes } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.remove(&container, Remove { force, volumes }).await.map_err(status)?;
        Ok(Response::new(RemoveResponse {}))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let request = request.into_inner();
        let condition = match request.condition() {
            WireCondition::NotRunning => Condition::NotRunning,
            WireCondition::NextExit => Condition::NextExit,
            WireCondition::Removed => Condition::Removed,
        };
        let (exit_code, error) = match (self.0.find(&request.container), self.0.gone.find(&request.container)) {
            (Ok(container), _) => wait(container, condition).await,
            (Err(_), Some(ended)) => ended,
            (Err(error), None) => return Err(status(error)),
        };
        Ok(Response::new(WaitResponse { exit_code, error }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { all, filters, last, size } = request.into_inner();
        let containers = self.0.list(&Wanted { all, filters, last: last as usize }).map_err(status)?;
        let mut containers: Vec<_> = containers.iter().map(|c| convert::container(&self.0, c)).collect();
        if size {
            sizes::measure(&self.0.neighbours, &mut containers).await.map_err(status)?;
        }
        Ok(Response::new(ListResponse { containers }))
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Result<Response<InspectResponse>, Status> {
        let InspectRequest { container, size } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        // Asked for once; while the snapshotter is away the rest is told without it.
        let _ = self.0.storage_driver().await;
        let mut container = convert::container(&self.0, &container);
        if let Some(spec) = &container.spec {
            (container.masked_paths, container.readonly_paths) = spec::guarded_paths(spec);
        }
        if size {
            sizes::measure(&self.0.neighbours, std::slice::from_mut(&mut container)).await.map_err(status)?;
        }
        Ok(Response::new(InspectResponse { container: Some(container) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let UpdateRequest { container, resources, restart_policy } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        let update = Update { resources: resources.unwrap_or_default(), restart_policy };
        let warnings = self.0.update(&container, update).await.map_err(status)?;
        Ok(Response::new(UpdateResponse { warnings }))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        stats::stats(&self.0, request.into_inner()).map(Response::new)
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        let TopRequest { container, ps_arguments } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        let table = self.0.top(&container, &ps_arguments).await.map_err(status)?;
        self.0.event("top", &container.record(), &[]);
        let rows = table.rows.into_iter().map(|fields| TopRow { fields }).collect();
        Ok(Response::new(TopResponse { titles: table.titles, rows }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let container = self.0.find(&request.into_inner().container).map_err(status)?;
        let Why { sentence, hint } = why(&container.record(), container.is_busy(), Time::now());
        Ok(Response::new(WhyResponse { sentence, hint }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let (containers, reclaimed) = self.0.prune(&request.into_inner().filters).await.map_err(status)?;
        self.0.events.say("container", "prune", "", &[("reclaimed", reclaimed.to_string())]);
        Ok(Response::new(PruneResponse { containers, reclaimed }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        files::commit(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn changes(&self, request: Request<ChangesRequest>) -> Result<Response<Self::ChangesStream>, Status> {
        files::changes(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        files::export(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        copy::stat(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn read_files(&self, request: Request<ReadFilesRequest>) -> Result<Response<Self::ReadFilesStream>, Status> {
        copy::read(&self.0, request.into_inner()).map(Response::new)
    }

    async fn write_files(
        &self,
        request: Request<Streaming<WriteFilesRequest>>,
    ) -> Result<Response<WriteFilesResponse>, Status> {
        copy::write(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        attach::attach(Arc::clone(&self.0), request.into_inner()).await.map(Response::new)
    }

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        exec::exec(Arc::clone(&self.0), request.into_inner()).await.map(Response::new)
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        logs::logs(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Result<Response<ResizeResponse>, Status> {
        let ResizeRequest { container, exec_id, size } = request.into_inner();
        let size = size.ok_or_else(|| status(Error::Request("a size without a size")))?;
        let container = self.0.find(&container).map_err(status)?;
        let live = container.now();
        let task = live.task.filter(|_| live.record.state.status.is_live());
        let not_running = || Error::State(format!("Container {} is not running", container.id));
        let task = task.ok_or_else(|| status(not_running()))?;
        task.resize(&exec_id, size.columns, size.rows).await.map_err(status)?;
        if exec_id.is_empty() {
            let told = [("height", size.rows.to_string()), ("width", size.columns.to_string())];
            self.0.event("resize", &live.record, &told);
        }
        Ok(Response::new(ResizeResponse {}))
    }
}

fn order(request: CreateRequest) -> Result<Order, Error> {
    let pull = match request.pull() {
        PullPolicy::Missing => Pull::Missing,
        PullPolicy::Always => Pull::Always,
        PullPolicy::Never => Pull::Never,
    };
    let CreateRequest { name, spec, auth, .. } = request;
    let spec =
        spec.ok_or_else(|| Error::from(Failure::new(berth_core::Kind::InvalidArgument, "a container without a spec")))?;
    let auth = auth.map(|auth| Auth {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    });
    Ok(Order { name, spec, pull, auth })
}

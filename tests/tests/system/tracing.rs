//! One `run` is one trace through the command line, the services and the shim.

use std::{collections::BTreeSet, net::TcpListener, sync::mpsc, time::Duration};

use berth_tests::{Node, Setup};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use tonic::{Request, Response, Status};

/// A collector that hands on what it is sent.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn collect(listener: TcpListener, sender: mpsc::Sender<ExportTraceServiceRequest>) {
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
}

#[test]
fn one_run_is_one_trace() {
    // The collector's address is known before the node starts, in a namespace that the node will share.
    let setup = Setup { config: "[telemetry]\notlp_endpoint = \"http://127.0.0.1:4317\"\n".into(), ..Setup::default() };
    let node = Node::with(setup);
    let (sender, spans) = mpsc::channel();
    collect(node.netns.within(|| TcpListener::bind("127.0.0.1:4317").unwrap()), sender);
    node.load("busybox");
    let mut run = node.command(&["run", "--rm", "busybox", "true"]);
    run.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    berth_tests::run(&mut run, b"").ok();
    let wanted: BTreeSet<_> =
        ["berth", "berth-runtime", "berth-image", "berth-snapshotter", "berth-shim"].map(str::to_owned).into();
    let mut trace = None;
    let mut seen: Vec<(Vec<u8>, String)> = Vec::new();
    let complete = loop {
        let request = match spans.recv_timeout(Duration::from_secs(30)) {
            Ok(request) => request,
            Err(_) => break false,
        };
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|r| r.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|a| a.key == "service.name").and_then(|a| a.value?.value);
            let Some(Value::StringValue(service)) = name else { continue };
            for span in resource.scope_spans.into_iter().flat_map(|s| s.spans) {
                if service == "berth" && span.parent_span_id.is_empty() {
                    trace = Some(span.trace_id.clone());
                }
                seen.push((span.trace_id, service.clone()));
            }
        }
        let services =
            |id: &[u8]| seen.iter().filter(|(t, _)| t == id).map(|(_, s)| s.clone()).collect::<BTreeSet<_>>();
        if trace.as_ref().is_some_and(|id| services(id).is_superset(&wanted)) {
            break true;
        }
    };
    assert!(complete, "the command's trace {trace:?} has spans of {wanted:?}; all spans: {seen:?}");
    node.finish();
}

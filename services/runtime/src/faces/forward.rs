//! Passing a call on.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use berth_core::{
    config::Node,
    connect::{self, Channel},
    failure::chain,
};
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt as _};

/// Passes every call on to one neighbour. A neighbour that restarts is waited for.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    neighbour: &'static str,
    channel: Channel,
}

impl Forward {
    pub(super) fn to(node: &Node, neighbour: &'static str) -> Self {
        Self { neighbour, channel: connect::patient(&node.socket(neighbour)) }
    }
}

impl Service<Request<axum::body::Body>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The channel's own readiness is waited for in the call, where its failure can be answered.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let Self { neighbour, channel } = self.clone();
        Box::pin(async move {
            let answer = channel.oneshot(request.map(Body::new)).await;
            Ok(answer.unwrap_or_else(|error| {
                Status::unavailable(format!("the {neighbour} service does not answer: {}", chain(&error))).into_http()
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use berth_core::serve;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    fn node(state: &Path) -> Node {
        let mut node = Node::default();
        node.state = state.into();
        node
    }

    /// Health stands for a neighbour's API: unary, streamed, and with errors of its own.
    async fn face(node: &Node) -> HealthClient<Channel> {
        let router = axum::Router::new().route_service("/grpc.health.v1.Health/{*method}", Forward::to(node, "image"));
        let path = node.state.join("face.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::from(router));
        tokio::spawn(server.serve_with_incoming(incoming));
        HealthClient::new(connect::lazy(&path))
    }

    #[tokio::test]
    async fn calls_streams_and_errors_pass_through_and_a_restart_is_waited_for() {
        let state = tempfile::tempdir().unwrap();
        let node = node(state.path());
        let mut client = face(&node).await;
        // The neighbour comes only after it was called.
        let asked = HealthCheckRequest::default();
        let (answer, ()) = tokio::join!(client.check(asked.clone()), async {
            let socket = serve::bind(&node, &node.socket("image")).unwrap();
            tokio::spawn(socket.serve(tonic::service::Routes::default()));
        });
        assert_eq!(answer.unwrap().into_inner().status, 1);
        let mut stream = client.watch(asked).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().status, 1);
        let unknown = client.check(HealthCheckRequest { service: "x".into() }).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown}");
    }
}

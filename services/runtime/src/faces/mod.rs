//! The node's faces: sockets where the APIs of several services answer. What belongs to a neighbour is passed on as it
//! came, undecoded, in both directions and with its trailers; so nothing here knows a message of theirs.

mod forward;

use berth_core::{
    config::Node,
    serve::{self, Socket},
};
use tonic::{Status, body::Body, service::Routes};

use forward::Forward;

/// gRPC services of the neighbours, and the name of whose socket they answer on.
const BERTH: [(&str, &str); 4] = [
    ("berth.image.v1.Images", "image"),
    ("berth.registry.v1.Registry", "registry-proxy"),
    ("berth.snapshotter.v1.Layers", "snapshotter"),
    ("containerd.services.snapshots.v1.Snapshots", "snapshotter"),
];

/// The faces' sockets, bound and not yet served.
#[derive(Debug)]
pub(crate) struct Faces {
    node: Node,
    berth: Socket,
    cri: Socket,
}

/// Binds `berth.sock` and `cri.sock`.
///
/// # Errors
/// One of them cannot be bound.
pub(crate) fn bind(node: &Node) -> Result<Faces, serve::Error> {
    let berth = serve::bind(node, &node.state.join("berth.sock"))?;
    let cri = serve::bind(node, &node.state.join("cri.sock"))?;
    Ok(Faces { node: node.clone(), berth, cri })
}

impl Faces {
    /// Serves both until the process ends; `own` are this service's APIs.
    ///
    /// # Errors
    /// A listener broke.
    pub(crate) async fn serve(self, own: Routes) -> Result<(), serve::Error> {
        let berth = berth(own, &self.node);
        tokio::try_join!(self.berth.serve(berth), self.cri.serve(cri())).map(|_| ())
    }
}

/// Our own services and all of the neighbours' public ones.
fn berth(own: Routes, node: &Node) -> Routes {
    let mut router = own.into_axum_router();
    for (service, neighbour) in BERTH {
        router = router.route_service(&format!("/{service}/{{*method}}"), Forward::to(node, neighbour));
    }
    Routes::from(router.fallback(|request: axum::extract::Request| async move {
        unknown(request.uri().path(), "berth.sock has no such method; is the client newer than this node?")
    }))
}

/// Where a kubelet calls. This version has no CRI: every call is told so.
fn cri() -> Routes {
    Routes::from(axum::Router::new().fallback(|request: axum::extract::Request| async move {
        unknown(request.uri().path(), "this version of berth does not serve the Kubernetes CRI")
    }))
}

fn unknown(path: &str, why: &str) -> http::Response<Body> {
    Status::unimplemented(format!("{}: {why}", path.trim_start_matches('/'))).into_http()
}

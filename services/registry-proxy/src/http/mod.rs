//! The HTTP face: the pulling half of the OCI distribution-spec.

mod answer;
mod body;
mod buffers;
mod range;
mod route;

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{Error, mirror::Mirror};

/// Connections at the same time; more wait to be accepted.
const CONNECTIONS: usize = 4096;
/// The head of a request may take this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After a refused accept (no descriptors left), the next is tried after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, Error> {
    // `:5080`, as others write it, is every address.
    let full = if address.starts_with(':') { format!("[::]{address}") } else { address.to_owned() };
    TcpListener::bind(&full).await.map_err(|source| Error::Listen { address: address.into(), source })
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, mirror: Arc<Mirror>) -> Infallible {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let turn = connections.clone().acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mirror = mirror.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let mirror = mirror.clone();
                async move { Ok::<_, Infallible>(answer::to(&mirror, &request).await) }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error = &*error, "a connection broke");
            }
        });
    }
}

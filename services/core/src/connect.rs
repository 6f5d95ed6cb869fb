//! Calling another service over its Unix socket, with the current trace carried along.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{body::Body, transport::Endpoint};
use tower::{Service, service_fn};

use crate::telemetry;

/// A service that restarts is back within this time; a caller that waited longer is told so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a frame that the other side may send: streams of bytes are not cut into small ones.
const FRAME: u32 = 256 << 10;
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// A connection to a service, made when first needed and made again when it breaks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel(tonic::transport::Channel);

/// Connects to the service that listens at `socket` when the first call is made.
pub fn lazy(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The address is never looked at: the connector knows the socket.
    let endpoint = Endpoint::from_static("http://berth.local").connect_timeout(CONNECT_TIMEOUT).max_frame_size(FRAME);
    Channel(endpoint.connect_with_connector_lazy(service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(connect(socket).await?)) }
    })))
}

/// As [`lazy`]; a service that does not listen at the moment is waited for, for as long as a restart takes.
pub fn patient(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let endpoint = Endpoint::from_static("http://berth.local").max_frame_size(FRAME);
    Channel(endpoint.connect_with_connector_lazy(service_fn(move |_| {
        let socket = socket.clone();
        async move {
            let until = tokio::time::Instant::now() + CONNECT_TIMEOUT;
            let mut wait = FIRST_WAIT;
            loop {
                match connect(socket.clone()).await {
                    // Nothing tells of a socket that somebody begins to listen on, so it is tried again.
                    Err(e) if is_absent(&e) && tokio::time::Instant::now() < until => tokio::time::sleep(wait).await,
                    result => return result.map(TokioIo::new),
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    })))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Connects to a Unix socket whose path may be longer than a socket's address.
///
/// # Errors
/// Nobody listens there, or the caller may not connect.
pub async fn connect(socket: PathBuf) -> io::Result<UnixStream> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", socket.display()));
    if socket.as_os_str().len() < SOCKET_PATH_MAX {
        return UnixStream::connect(&socket).await.map_err(named);
    }
    let (directory, name) = (socket.parent().unwrap_or(Path::new("/")), socket.file_name().unwrap_or_default());
    let directory = std::fs::File::open(directory).map_err(named)?;
    UnixStream::connect(short_path(&directory, Path::new(name))).await.map_err(named)
}

/// Bytes that fit a Unix socket's address, the terminating one included.
pub const SOCKET_PATH_MAX: usize = 108;

/// A short path to `name` in an open directory; it holds while `directory` is open.
pub fn short_path(directory: &impl AsRawFd, name: &Path) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <tonic::transport::Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        telemetry::inject(request.headers_mut());
        self.0.call(request)
    }
}

//! The connection to the node: one Unix socket on which all of its APIs answer. It is made once, when the first call
//! needs it, and made again where it broke: containers outlive the services, so whoever waits goes on waiting.

use std::{
    cell::OnceCell,
    future::Future,
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use berth_core::{connect, telemetry};
use berth_proto::berth::{
    image::v1::images_client::ImagesClient,
    runtime::v1::{
        containers_client::ContainersClient, networks_client::NetworksClient, system_client::SystemClient,
        volumes_client::VolumesClient,
    },
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{body::Body, transport::Endpoint};
use tower::{Service, service_fn};

use crate::{outcome::Error, revival};

const DEFAULT_HOST: &str = "/run/berth/berth.sock";
/// A service that was killed is started again within this time.
const RESTART: Duration = Duration::from_secs(3);
/// Bytes under way in one stream and in all: large enough that a pipe is never held up by the flow control.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A frame as large as what the other side reads at once, so that a stream is not cut into small ones.
const FRAME: u32 = 256 << 10;
/// A list of many images carries their configurations.
const MAX_MESSAGE: usize = 256 << 20;

/// Where the node listens.
#[derive(Clone, Debug)]
pub(crate) struct Host(PathBuf);

impl Default for Host {
    fn default() -> Self {
        Self(DEFAULT_HOST.into())
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |why: &str| Error::Host { host: text.to_owned(), why: why.to_owned() };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self(path.into())),
            Some(("unix", _)) => Err(refused("a unix socket's path is absolute (unix:///run/berth/berth.sock)")),
            Some(_) => Err(refused("berth is reached over a Unix socket (unix:///run/berth/berth.sock)")),
            None if text.starts_with('/') => Ok(Self(text.into())),
            None => Err(refused("write it as unix:///run/berth/berth.sock")),
        }
    }
}

/// The node's APIs.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    host: Host,
    channel: OnceCell<Channel>,
}

impl Client {
    /// A client of the node at `host`; nothing is connected yet.
    pub(crate) fn new(host: Host) -> Self {
        Self { host, channel: OnceCell::new() }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.host.0
    }

    async fn channel(&self) -> Result<Channel, Error> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel.clone());
        }
        let channel = Channel::open(&self.host.0).await?;
        Ok(self.channel.get_or_init(|| channel).clone())
    }

    /// `berth.runtime.v1.Containers`
    pub(crate) async fn containers(&self) -> Result<ContainersClient<Channel>, Error> {
        Ok(ContainersClient::new(self.channel().await?).max_decoding_message_size(MAX_MESSAGE))
    }

    /// `berth.runtime.v1.Networks`
    pub(crate) async fn networks(&self) -> Result<NetworksClient<Channel>, Error> {
        Ok(NetworksClient::new(self.channel().await?))
    }

    /// `berth.runtime.v1.Volumes`
    pub(crate) async fn volumes(&self) -> Result<VolumesClient<Channel>, Error> {
        Ok(VolumesClient::new(self.channel().await?).max_decoding_message_size(MAX_MESSAGE))
    }

    /// `berth.runtime.v1.System`
    pub(crate) async fn system(&self) -> Result<SystemClient<Channel>, Error> {
        Ok(SystemClient::new(self.channel().await?))
    }

    /// `berth.image.v1.Images`
    pub(crate) async fn images(&self) -> Result<ImagesClient<Channel>, Error> {
        Ok(ImagesClient::new(self.channel().await?).max_decoding_message_size(MAX_MESSAGE))
    }
}

/// A connection that carries the current trace along.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    inner: tonic::transport::Channel,
    /// The node has answered a call: whatever comes later, it does not refuse this user.
    answered: Arc<AtomicBool>,
}

/// A call that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer came")]
pub(crate) struct Unanswered {
    /// Nothing was ever answered to this user, who is not root: it may be that the node refuses such.
    pub(crate) may_be_refused: bool,
    /// What happened instead.
    source: tonic::transport::Error,
}

impl Channel {
    /// Connects now, so that what stands in the way is said plainly; later connections are tonic's to make.
    async fn open(socket: &Path) -> Result<Self, Error> {
        let stream = match connect::connect(socket.to_owned()).await {
            // The socket is there and nobody listens: a service is on its way back, or there is none.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(socket) => {
                revival::connect(socket, RESTART).await
            }
            other => other,
        };
        let stream = stream.map_err(|source| Error::Connect {
            socket: socket.into(),
            hint: hint(&source, is_socket(socket)),
            source: bare(source),
        })?;
        let first = Arc::new(Mutex::new(Some(stream)));
        let path = socket.to_owned();
        let connector = service_fn(move |_| {
            let first = first.lock().ok().and_then(|mut first| first.take());
            let path = path.clone();
            async move {
                let stream: UnixStream = match first {
                    Some(stream) => stream,
                    None => connect::connect(path).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The address is never looked at: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://berth.local")
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME);
        Ok(Self { inner: endpoint.connect_with_connector_lazy(connector), answered: Arc::default() })
    }
}

/// Somebody may listen there, now or soon.
fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The reason alone: the message names the socket already.
fn bare(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("no such file or directory"),
        kind => io::Error::from(kind),
    }
}

/// What to do about a socket that cannot be connected to.
fn hint(error: &io::Error, is_socket: bool) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "No node has run here since the machine started: start one with 'berthd all', or name another one with --host \
             or BERTH_HOST"
        }
        io::ErrorKind::ConnectionRefused if is_socket => {
            "A node was here and has ended; its containers go on. Start it again with 'berthd all'"
        }
        io::ErrorKind::ConnectionRefused => "That is no socket: name the node's berth.sock with --host or BERTH_HOST",
        io::ErrorKind::PermissionDenied => {
            "Only root and members of the node's group (berth) may use it: call berth as root, or join the group and log \
             in again"
        }
        _ => "Check --host and BERTH_HOST",
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Unanswered;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unanswered>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        self.inner.poll_ready(cx).map_err(|source| unanswered(&self.answered, source))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        telemetry::inject(request.headers_mut());
        let (call, answered) = (self.inner.call(request), self.answered.clone());
        Box::pin(async move {
            let answer = call.await.map_err(|source| unanswered(&answered, source))?;
            answered.store(true, Ordering::Relaxed);
            Ok(answer)
        })
    }
}

fn unanswered(answered: &AtomicBool, source: tonic::transport::Error) -> Unanswered {
    let may_be_refused = !answered.load(Ordering::Relaxed) && !nix::unistd::Uid::effective().is_root();
    Unanswered { may_be_refused, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!("unix:///a/b.sock".parse::<Host>().unwrap().0, Path::new("/a/b.sock"));
        assert_eq!("/a/b.sock".parse::<Host>().unwrap().0, Path::new("/a/b.sock"));
        for wrong in ["tcp://1.2.3.4:5", "unix://relative", "name", ""] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn each_way_of_not_being_reached_has_its_own_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let said = async |path: &Path| match Channel::open(path).await {
            Err(error) => error.to_string(),
            Ok(_) => "connected".into(),
        };
        let file = directory.path().join("file");
        assert!(said(&file).await.contains("start one with 'berthd all'"));
        std::fs::write(&file, "").unwrap();
        assert!(said(&file).await.contains("That is no socket"));
        assert!(hint(&io::ErrorKind::ConnectionRefused.into(), true).contains("Start it again"));
        assert!(hint(&io::ErrorKind::PermissionDenied.into(), true).contains("join the group"));
    }

    #[tokio::test]
    async fn a_node_that_answered_went_away_and_did_not_refuse() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("berth.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let channel = Channel::open(&path).await.unwrap();
        let refused = async {
            let mut system = SystemClient::new(channel.clone());
            Error::from(system.version(berth_proto::berth::runtime::v1::VersionRequest::default()).await.unwrap_err())
                .to_string()
        };
        let (text, ()) = tokio::join!(refused, async { drop(listener.accept().await.unwrap()) });
        let root = nix::unistd::Uid::effective().is_root();
        assert_eq!(text.contains("neither root nor"), !root, "{text}");
        assert!(!root || text.contains("went away"), "{text}");
        channel.answered.store(true, Ordering::Relaxed);
        drop(listener);
        let error = tower::ServiceExt::oneshot(channel, http::Request::new(Body::empty())).await;
        assert!(error.is_err_and(|error| !error.may_be_refused));
    }
}

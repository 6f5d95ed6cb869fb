//! Serving gRPC on a Unix socket: bound without a moment of wider permissions, open to root and one group, checked by
//! peer credentials, with health, tracing, systemd's readiness and an end at SIGTERM.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, PermissionsExt, chown},
            net::{SocketAddr, UnixDatagram, UnixListener as StdUnixListener},
        },
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::{UnixListener, UnixStream, unix::UCred};
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::{service::Routes, transport::Server};

use crate::{
    apis,
    config::Node,
    connect::{SOCKET_PATH_MAX, short_path},
    telemetry,
};

/// Why a service cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of the socket belongs to somebody else, who could swap the socket.
    #[error(
        "cannot listen in {path}: the directory belongs to user {owner}, not to user {me}; choose another state directory \
         or change its owner"
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// Anybody may put another socket in its place.
    #[error(
        "cannot listen in {path}: its mode {mode:04o} lets others replace the socket, and it is not ours to change; remove \
         their right to write (chmod go-w) or choose another state directory"
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something else is there.
    #[error(
        "cannot listen on {path}: there is {what} in the socket's place; move it away or choose another state directory"
    )]
    Occupied {
        /// The socket.
        path: PathBuf,
        /// What is there instead.
        what: &'static str,
    },
    /// Another process serves there.
    #[error("cannot listen on {path}: another service answers there; stop it first or choose another state directory")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The transport failed.
    #[error("serving on {path}: {source}")]
    Transport {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// A bound socket; see [`bind`].
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: StdUnixListener,
    group: Option<Gid>,
}

/// Binds a node's socket at `path`. What a dead service left there is replaced; a living one is not.
///
/// # Errors
/// The directory cannot be made or is another user's, another service answers there, or the socket cannot be bound.
pub fn bind(node: &Node, path: &Path) -> Result<Socket, Error> {
    let failed = |source| Error::Bind { path: path.into(), source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    guard(directory)?;
    if let Some(what) = other_than_socket(path) {
        return Err(Error::Occupied { path: path.into(), what });
    }
    let opened = fs::File::open(directory).map_err(failed)?;
    let short = |name: &Path| match directory.join(name) {
        path if path.as_os_str().len() < SOCKET_PATH_MAX => path,
        _ => short_path(&opened, name),
    };
    let name = Path::new(path.file_name().unwrap_or_default());
    if std::os::unix::net::UnixStream::connect(short(name)).is_ok() {
        return Err(Error::Taken { path: path.into() });
    }
    // Bound under another name and renamed, so that nobody connects before owner and mode are right.
    let new = PathBuf::from(format!(".{}.{}", name.display(), std::process::id()));
    let _ = fs::remove_file(directory.join(&new));
    let listener = StdUnixListener::bind(short(&new)).map_err(failed)?;
    let group = Group::from_name(&node.group).ok().flatten().map(|group| group.gid);
    let made = directory.join(&new);
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    if let Some(gid) = group {
        chown(&made, None, Some(gid.as_raw())).map_err(failed)?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    fs::rename(&made, path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Socket { path: path.into(), listener, group })
}

/// Makes sure that nobody else can swap what lies in the directory. A mode that lets others write is put right where the
/// directory is ours; a sticky one, as that of /tmp, holds already.
fn guard(directory: &Path) -> Result<(), Error> {
    const STICKY: u32 = 0o1000;
    const OTHERS_WRITE: u32 = 0o022;
    let failed = |source| Error::Bind { path: directory.into(), source };
    let found = fs::metadata(directory).map_err(failed)?;
    let (owner, me) = (std::os::unix::fs::MetadataExt::uid(&found), Uid::effective().as_raw());
    if owner != me && owner != 0 {
        return Err(Error::Owner { path: directory.into(), owner, me });
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE == 0 || mode & STICKY != 0 {
        return Ok(());
    }
    if owner != me {
        return Err(Error::Writable { path: directory.into(), mode });
    }
    let better = mode & !OTHERS_WRITE;
    tracing::warn!(
        directory = %directory.display(),
        was = %format_args!("{mode:04o}"),
        now = %format_args!("{better:04o}"),
        "others could write to the state directory; its mode is put right"
    );
    fs::set_permissions(directory, fs::Permissions::from_mode(better)).map_err(failed)
}

/// What lies at `path` that a socket must not replace.
fn other_than_socket(path: &Path) -> Option<&'static str> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    if kind.is_socket() {
        None
    } else if kind.is_file() {
        Some("a file")
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else {
        Some("something that is no socket")
    }
}

impl Socket {
    /// Serves these routes, with health beside them, until the process ends. Ready as soon as this is polled.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn serve(self, routes: Routes) -> Result<(), Error> {
        let Self { path, listener, group } = self;
        let listener = UnixListener::from_std(listener).map_err(|source| Error::Bind { path: path.clone(), source })?;
        let (health, health_service) = tonic_health::server::health_reporter();
        for service in std::iter::once("").chain(apis::on(&path)) {
            health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        }
        let incoming = UnixListenerStream::new(listener).filter(move |connection| match connection {
            Ok(connection) => allowed(connection, group),
            Err(_) => true,
        });
        Server::builder()
            .layer(telemetry::ServerLayer)
            .add_routes(routes.add_service(health_service))
            .serve_with_incoming(incoming)
            .await
            .map_err(|source| Error::Transport { path, source })
    }
}

/// Root, ourselves, and members of the group may connect. The socket's mode says the same; this holds even where
/// somebody widened it.
fn allowed(connection: &UnixStream, group: Option<Gid>) -> bool {
    let admitted = connection.peer_cred().is_ok_and(|peer| admits(&peer, group));
    if !admitted {
        tracing::warn!(peer = ?connection.peer_cred().ok(), "refused a connection: neither root nor in the group");
    }
    admitted
}

fn admits(peer: &UCred, group: Option<Gid>) -> bool {
    if peer.uid() == 0 || peer.uid() == Uid::effective().as_raw() {
        return true;
    }
    let Some(group) = group else { return false };
    if peer.gid() == group.as_raw() {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(peer.uid())) else { return false };
    std::ffi::CString::new(user.name)
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .is_some_and(|groups| groups.contains(&group))
}

/// Tells systemd, where it asked to be told, that the service is ready (sd_notify(3), `NOTIFY_SOCKET`).
pub fn notify_ready() {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify(address.as_bytes(), b"READY=1") {
        tracing::warn!(%error, ?address, "whoever started the service was not told that it is ready");
    }
}

/// An address that begins with `@` is an abstract one: it has no file.
fn notify(address: &[u8], message: &[u8]) -> io::Result<()> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(address))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}

/// Answers at SIGTERM or SIGINT. What runs then may be dropped at once: a service may be killed at any moment, so there
/// is nothing that a slower end would do better.
///
/// # Errors
/// The signals cannot be watched.
pub async fn terminated() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    fn node(state: &Path) -> Node {
        let mut node = Node::default();
        node.state = state.into();
        node.group = "no-such-group".into();
        node
    }

    #[test]
    fn what_is_no_socket_is_named_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("berth.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind(&node(state.path()), &path).unwrap_err().to_string();
        assert!(error.contains("berth.sock: there is a file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        drop(StdUnixListener::bind(&path).unwrap());
        bind(&node(state.path()), &path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_put_right() {
        let state = tempfile::tempdir().unwrap();
        for (before, after) in [(0o777, 0o755), (0o1777, 0o1777), (0o711, 0o711)] {
            fs::set_permissions(state.path(), fs::Permissions::from_mode(before)).unwrap();
            bind(&node(state.path()), &state.path().join("berth.sock")).unwrap();
            assert_eq!(fs::metadata(state.path()).unwrap().permissions().mode() & 0o7777, after);
        }
    }

    #[tokio::test]
    async fn health_knows_what_is_served() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("image.sock");
        let socket = bind(&node(state.path()), &path).unwrap();
        tokio::spawn(socket.serve(Routes::default()));
        let mut health = HealthClient::new(crate::connect::lazy(&path));
        for service in ["", "berth.image.v1.Images"] {
            let request = HealthCheckRequest { service: service.into() };
            assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
        }
        let other = HealthCheckRequest { service: "berth.runtime.v1.Containers".into() };
        assert_eq!(health.check(other).await.unwrap_err().code(), tonic::Code::NotFound);
    }

    #[test]
    fn readiness_is_heard_on_both_kinds_of_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("berth-core-test-{}", std::process::id());
        let named = UnixDatagram::bind(&path).unwrap();
        let nameless = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(named, path.to_str().unwrap().to_owned()), (nameless, format!("@{name}"))] {
            notify(address.as_bytes(), b"READY=1").unwrap();
            let mut message = [0; 16];
            let size = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..size], b"READY=1");
        }
        assert!(notify(b"/not/there", b"READY=1").is_err());
    }
}

//! Serving gRPC on a Unix socket: bound without a moment of wider permissions, open to root and one group, checked by
//! peer credentials, with health, tracing, systemd's readiness and an end at SIGTERM.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{PermissionsExt, chown},
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
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(directory).map_err(failed)?);
    let me = Uid::effective().as_raw();
    if owner != me && owner != 0 {
        return Err(Error::Owner { path: directory.into(), owner, me });
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

impl Socket {
    /// Serves these routes, with health beside them, until the process ends. Ready as soon as this is polled.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn serve(self, routes: Routes) -> Result<(), Error> {
        let Self { path, listener, group } = self;
        let listener = UnixListener::from_std(listener).map_err(|source| Error::Bind { path: path.clone(), source })?;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
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
    use super::*;

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

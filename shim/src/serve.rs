//! The process that holds a container, from its start to its end.

use std::{
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    rc::Rc,
    time::Duration,
};

use berth_core::bundle::{ATTACH_SOCKET, NETNS_FD, OPTIONS, SHIM_PID, SHIM_SOCKET_FD};
use containerd_shim_protos::ttrpc::{r#async::Server, asynchronous::transport::Listener};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::{
    address,
    arguments::Arguments,
    attach,
    error::{During as _, Error},
    events::Events,
    oci::{self, seal},
    rootfs,
    shim::Shim,
    spans::Spans,
    task,
};

/// How long a shim waits to be told what for it was started.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was handed over by whoever started this process.
#[derive(Debug)]
pub struct Inherited {
    socket: OwnedFd,
    netns: Option<OwnedFd>,
}

impl Inherited {
    /// Takes the descriptors. Must be the first thing that the process does: what is open later may be its own.
    ///
    /// # Errors
    /// There is no socket.
    pub fn take() -> Result<Self, Error> {
        let socket = inherit(SHIM_SOCKET_FD)
            .ok_or_else(|| Error::Usage(format!("`serve` needs a listening socket as descriptor {SHIM_SOCKET_FD}")))?;
        Ok(Self { socket, netns: inherit(NETNS_FD) })
    }
}

fn inherit(number: i32) -> Option<OwnedFd> {
    // SAFETY: the call takes its arguments by value.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // SAFETY: it is open, and nothing in this process has opened or taken anything yet, so it belongs to nobody.
    (flags >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Holds a container until it is told to end.
///
/// # Errors
/// The process cannot be set up; the container's own failures are answers to requests.
pub fn serve(arguments: Arguments, inherited: Inherited) -> Result<(), Error> {
    // Still inherited by the sealed copy, where this is not one.
    seal::ensure("containerd-shim-berth-v2")?;
    let Inherited { socket, netns } = inherited;
    for fd in [Some(&socket), netns.as_ref()].into_iter().flatten() {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).during(|| "keeping a descriptor to ourselves")?;
    }
    debug_assert!(socket.as_raw_fd() == SHIM_SOCKET_FD, "it is where the contract says");
    let bundle =
        fs::canonicalize(&arguments.bundle).during(|| format!("finding the bundle {}", arguments.bundle.display()))?;
    std::env::set_current_dir(&bundle).during(|| format!("going to {}", bundle.display()))?;
    let options = berth_core::bundle::read(&bundle, OPTIONS).during(|| "reading the bundle")?;
    let pid = std::process::id();
    let own = format!("{pid} {}", oci::started_at(pid).unwrap_or_default());
    fs::write(bundle.join(SHIM_PID), own).during(|| format!("writing {SHIM_PID}"))?;
    rootfs::separate()?;
    nix::sys::prctl::set_child_subreaper(true).during(|| "becoming a subreaper")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during(|| "making the runtime")?;
    LocalSet::new().block_on(&runtime, hold(arguments, &bundle, options, socket, netns))
}

async fn hold(
    arguments: Arguments,
    bundle: &Path,
    options: Option<berth_core::bundle::Options>,
    socket: OwnedFd,
    netns: Option<OwnedFd>,
) -> Result<(), Error> {
    let mut children = signal(SignalKind::child()).during(|| "watching for signals")?;
    let mut stop = signal(SignalKind::terminate()).during(|| "watching for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).during(|| "watching for signals")?;
    let ours = options.is_some();
    let traced = options.as_ref().is_some_and(|options| options.traced);
    let address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let events = if ours || address.is_empty() { Events::default() } else { Events::to(&address) };
    let shim = Shim::new(arguments.namespace, arguments.id, bundle.to_owned(), options, events);
    *shim.netns.borrow_mut() = netns;
    if ours {
        // Relative to the working directory: a socket's path is short, a bundle's may be long.
        let _ = fs::remove_file(ATTACH_SOCKET);
        let listener =
            tokio::net::UnixListener::bind(ATTACH_SOCKET).during(|| format!("listening on {ATTACH_SOCKET}"))?;
        tokio::task::spawn_local(attach::serve(Rc::clone(&shim), listener));
    }
    let (services, jobs) = task::services(Spans::into(traced.then(|| bundle.to_owned())));
    tokio::task::spawn_local(task::work(Rc::clone(&shim), jobs));
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).during(|| "preparing the socket")?;
    let listener = tokio::net::UnixListener::from_std(listener).during(|| "preparing the socket")?;
    let mut server = Server::new().add_listener(Listener::from(listener)).register_service(services);
    server.start().await.during(|| "serving")?;
    let mut unwanted = std::pin::pin!(tokio::time::sleep(PATIENCE));
    let mut wanted = false;
    loop {
        tokio::select! {
            // Whoever started us died before it could say what for.
            () = &mut unwanted, if !wanted => {
                if shim.container.borrow().is_none() {
                    break;
                }
                wanted = true;
            }
            _ = children.recv() => shim.reap(),
            // The end of a session, or of a service manager's unit, is not the container's.
            _ = stop.recv() => {}
            _ = interrupt.recv() => {}
            () = shim.end.notified() => break,
        }
    }
    shim.events.flushed().await;
    address::forget(bundle);
    // What was answered is sent before the process ends; everything is ready to be, so a few rounds suffice.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

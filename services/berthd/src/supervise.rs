//! `berthd all`: the four services as child processes. A child that dies is started again, at once the first time and
//! later and later if it keeps dying; the containers notice nothing of it. The children end with the supervisor, however
//! that ends, so that a new one finds the sockets free.

use std::{
    cell::Cell,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram},
    },
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use berth_core::{config::Node, config::SERVICES, serve, telemetry};
use nix::sys::{prctl, signal::Signal};
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
    time::Instant,
};

use crate::args::Args;

/// A service that ran for this long was well; the next death starts at the shortest wait again.
const WELL: Duration = Duration::from_secs(10);
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Makes this process end when its parent does, if it was started by `berthd all`.
///
/// # Errors
/// The kernel refuses, or the parent is gone already.
pub(crate) fn end_with_parent(supervised: bool) -> anyhow::Result<()> {
    if !supervised {
        return Ok(());
    }
    prctl::set_pdeathsig(Signal::SIGTERM).context("cannot ask to be told of the supervisor's end")?;
    // The parent may have died before the request was in force.
    anyhow::ensure!(nix::unistd::getppid().as_raw() != 1, "the supervisor is gone");
    Ok(())
}

/// Runs the node until SIGTERM.
pub(crate) fn run(args: &Args, node: &Node) -> anyhow::Result<()> {
    // One thread: the children's death signal is tied to the thread that started them.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        let _guard = telemetry::init(node, "berthd")?;
        std::fs::create_dir_all(&node.state)
            .with_context(|| format!("cannot make the state directory {}", node.state.display()))?;
        let [a, b, c, d] = SERVICES.map(|service| Readiness::listen(service, node));
        let sockets = [a?, b?, c?, d?];
        let addresses = sockets.each_ref().map(|socket| socket.address.clone());
        let ready = SERVICES.map(|_| Cell::new(false));
        let [a, b, c, d] = std::array::from_fn(|n| keep(SERVICES[n], args, node, &addresses[n], &ready[n]));
        let ready = async {
            let [a, b, c, d] = sockets;
            let [e, f, g, h] = &ready;
            tokio::try_join!(a.heard(e), b.heard(f), c.heard(g), d.heard(h))?;
            serve::notify_ready();
            tracing::info!("the node is ready");
            anyhow::Ok(())
        };
        tokio::select! {
            result = async { tokio::try_join!(a, b, c, d, ready) } => result.map(|_| ()),
            signal = serve::terminated() => signal.context("cannot watch for signals"),
        }
    });
    // The children were killed with their handles; when this process has ended, they have.
    while nix::sys::wait::wait().is_ok() {}
    result
}

/// Keeps one service running. Answers only if it cannot be started at all: the program is not there, or it ended by
/// itself, with a reason that it printed, before it was ever ready.
async fn keep(service: &str, args: &Args, node: &Node, readiness: &str, was_ready: &Cell<bool>) -> anyhow::Result<()> {
    let mut wait = SHORTEST_WAIT;
    loop {
        let started = Instant::now();
        let mut child = spawn(service, args, node, readiness)?;
        let status = child.wait().await.with_context(|| format!("cannot wait for the {service} service"))?;
        anyhow::ensure!(
            was_ready.get() || status.code().is_none(),
            "the {service} service cannot start ({}); what it said is above",
            describe(status)
        );
        if started.elapsed() >= WELL {
            wait = SHORTEST_WAIT;
        }
        tracing::warn!(service, status = %describe(status), again_in = ?wait, "a service ended and is started again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn spawn(service: &str, args: &Args, node: &Node, readiness: &str) -> anyhow::Result<Child> {
    let executable = std::env::current_exe().context("cannot find the own executable")?;
    let mut command = Command::new(executable);
    command.arg(service).arg("--supervised").arg("--root").arg(&node.root).arg("--state").arg(&node.state);
    let shared = &args.shared;
    if let Some(config) = &shared.config {
        command.arg("--config").arg(config);
    }
    for (flag, value) in [
        ("--group", &shared.group),
        ("--log", &shared.log),
        ("--storage-driver", &shared.storage_driver),
        ("--otlp-endpoint", &shared.otlp_endpoint),
    ] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", readiness).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start the {service} service"))
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Where a service says that it is ready, as it would to systemd.
struct Readiness {
    /// For `NOTIFY_SOCKET`.
    address: String,
    socket: UnixDatagram,
}

impl Readiness {
    fn listen(service: &str, node: &Node) -> anyhow::Result<Self> {
        // An abstract address ("@…") needs no file and no cleaning up.
        let name = format!("berthd-{}-{service}", std::process::id());
        let bind = || -> io::Result<UnixDatagram> {
            let socket = StdUnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
            socket.set_nonblocking(true)?;
            UnixDatagram::from_std(socket)
        };
        let socket = bind().with_context(|| {
            format!("cannot listen for the {service} service's readiness (state directory {})", node.state.display())
        })?;
        Ok(Self { address: format!("@{name}"), socket })
    }

    /// Answers, and sets `ready`, when the service has said so for the first time. What it says later, when it was started again, is taken
    /// and dropped, so that no sender ever waits for room.
    async fn heard(self, ready: &Cell<bool>) -> anyhow::Result<()> {
        let mut message = [0; 256];
        loop {
            let size = self.socket.recv(&mut message).await.context("cannot hear a service's readiness")?;
            if message[..size].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                break;
            }
        }
        ready.set(true);
        tokio::spawn(async move { while self.socket.recv(&mut message).await.is_ok() {} });
        Ok(())
    }
}

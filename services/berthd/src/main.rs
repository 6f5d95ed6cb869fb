//! `berthd SERVICE` runs one service of a node; `berthd all` runs the four as processes of their own and starts one
//! again that dies.

mod args;
mod directories;
mod supervise;

use std::process::ExitCode;

use anyhow::Context as _;
use berth_core::{config::Node, failure::chain, serve, telemetry};
use clap::Parser as _;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let node = args.node()?;
    let service = match args.command {
        Command::All => return supervise::run(args, &node),
        Command::Image => "image",
        Command::Snapshotter => "snapshotter",
        Command::Runtime => "runtime",
        Command::RegistryProxy => "registry-proxy",
    };
    supervise::end_with_parent(args.supervised)?;
    // Two threads serve one node's calls; what blocks goes to the pool.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(service)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let guard = telemetry::init(&node, trace_name(service))?;
        let result = tokio::select! {
            result = start(service, node) => result.with_context(|| format!("the {service} service ended")),
            signal = serve::terminated() => signal.context("cannot watch for signals"),
        };
        // Sends what the exporter still holds.
        drop(guard);
        // Whatever still runs may be cut off anywhere: the process is as good as killed.
        match result {
            Ok(()) => std::process::exit(0),
            Err(error) => Err(error),
        }
    })
}

async fn start(service: &str, node: Node) -> anyhow::Result<()> {
    node.make_private_root(service).context("cannot make the service's directory")?;
    match service {
        "image" => berth_image::run(node).await?,
        "snapshotter" => berth_snapshotter::run(node).await?,
        "runtime" => berth_runtime::run(node).await?,
        _ => berth_registry_proxy::run(node).await?,
    }
    Ok(())
}

/// The service's name in traces.
fn trace_name(service: &str) -> &'static str {
    match service {
        "image" => "berth-image",
        "snapshotter" => "berth-snapshotter",
        "runtime" => "berth-runtime",
        _ => "berth-registry-proxy",
    }
}

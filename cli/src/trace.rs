//! The async runtime a command runs on and, where a collector is named, the root span of its trace. Nothing of tracing is
//! set up otherwise, because a command's start must cost nothing.

use berth_core::{config::Node, telemetry};
use tracing::Instrument as _;

use crate::{args::Answer, outcome::Error};

/// Runs a command to its end.
///
/// # Errors
/// The command's own, and those of setting up the runtime.
pub(crate) fn command(path: &str, body: impl FnOnce() -> Answer) -> Result<u8, Error> {
    let runtime = Error::io("cannot start the async runtime");
    let Some(endpoint) = endpoint() else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(runtime)?;
        let answer = runtime.block_on(body());
        // A blocking thread may stand in a read that nobody will end.
        runtime.shutdown_background();
        return answer;
    };
    // The exporter needs a thread of its own that goes on while the last spans are flushed.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(runtime)?;
    let mut node = Node::default();
    node.log = "off".into();
    node.telemetry.otlp_endpoint = Some(endpoint);
    let entered = runtime.enter();
    let guard = telemetry::init(&node, "berth").map_err(|error| Error::Invalid(error.to_string()))?;
    drop(entered);
    let span = tracing::info_span!(target: "berth", "command", otel.name = %format!("berth {path}"));
    let answer = runtime.block_on(body().instrument(span));
    drop(guard);
    runtime.shutdown_background();
    answer
}

/// Where spans go: the environment's word, else the node's configuration, where this machine has one.
fn endpoint() -> Option<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| named("OTEL_EXPORTER_OTLP_ENDPOINT"))
        .or_else(|| named("BERTH_OTLP_ENDPOINT"))
        // A configuration that is not there or not for this user to read names nothing.
        .or_else(|| Node::load(None).ok()?.telemetry.otlp_endpoint)
}

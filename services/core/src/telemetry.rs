//! Logs and traces. Every gRPC call carries the W3C trace context in its metadata ([`inject`], [`ServerLayer`]), so one
//! command is one trace through all services; spans are exported over OTLP where the configuration names a collector.

use std::{
    io::IsTerminal as _,
    task::{Context, Poll},
};

use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
    trace::TracerProvider as _,
};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tower::{Layer, Service};
use tracing::{Span, instrument::Instrumented};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::Node;

/// Keeps the exporter alive; what is not sent yet is sent when this is dropped.
#[derive(Debug)]
#[must_use = "spans are exported while this lives"]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // Nothing better can be done with spans that nobody takes.
            let _ = provider.shutdown();
        }
    }
}

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is malformed.
    #[error("log = {filter:?} (--log, BERTH_LOG or the configuration) is not a filter: {source}")]
    Filter {
        /// What the configuration says.
        filter: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The exporter cannot be made.
    #[error(
        "{endpoint:?} (--otlp-endpoint, BERTH_OTLP_ENDPOINT or the configuration's telemetry.otlp_endpoint) cannot be used: {source}"
    )]
    Exporter {
        /// What the configuration says.
        endpoint: String,
        /// Why not.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// This process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logs on standard error and, where a collector is configured, traces. `service` is the name in traces
/// (`berth-image`). Call it once, inside the async runtime.
///
/// # Errors
/// See [`Error`].
pub fn init(node: &Node, service: &'static str) -> Result<Guard, Error> {
    let filter =
        EnvFilter::builder().parse(&node.log).map_err(|source| Error::Filter { filter: node.log.clone(), source })?;
    // Colours are for people; a file or a journal gets plain text.
    let colours = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    let logs = tracing_subscriber::Layer::with_filter(logs, filter);
    let provider = node.telemetry.otlp_endpoint.as_deref().map(|endpoint| provider(endpoint, service)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
        // Only our own spans: the transport's would drown them.
        tracing_subscriber::Layer::with_filter(layer, EnvFilter::new("off,berth=info"))
    });
    global::set_text_map_propagator(TraceContextPropagator::new());
    tracing_subscriber::registry().with(logs).with(traces).try_init().map_err(|_| Error::Twice)?;
    Ok(Guard(provider))
}

fn provider(endpoint: &str, service: &'static str) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| Error::Exporter { endpoint: endpoint.into(), source })?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Writes the current span's context into a request's headers (`traceparent`).
pub fn inject(headers: &mut http::HeaderMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Headers(headers)));
}

/// The current span's context as a `traceparent` value (W3C Trace Context, section 3.2); `None` outside a trace.
pub fn traceparent() -> Option<String> {
    let mut headers = http::HeaderMap::new();
    inject(&mut headers);
    headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

struct Headers<'a>(&'a mut http::HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(key), http::HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct Headings<'a>(&'a http::HeaderMap);

impl Extractor for Headings<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Puts every call that arrives into a span that continues the caller's trace.
#[derive(Clone, Copy, Debug)]
pub struct ServerLayer;

impl<S> Layer<S> for ServerLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced(inner)
    }
}

/// See [`ServerLayer`].
#[derive(Clone, Debug)]
pub struct Traced<S>(S);

impl<S, B> Service<http::Request<B>> for Traced<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let span = tracing::info_span!(
            target: "berth",
            "call",
            otel.name = request.uri().path().trim_start_matches('/'),
            otel.kind = "server"
        );
        if !span.is_disabled() {
            let context =
                global::get_text_map_propagator(|propagator| propagator.extract(&Headings(request.headers())));
            // Refused only where the span has begun to be used, which it has not.
            let _ = span.set_parent(context);
        }
        let future = span.in_scope(|| self.0.call(request));
        tracing::Instrument::instrument(future, span)
    }
}

//! Export of the shims' spans. A shim is too small to speak OTLP: it leaves its spans in its bundle, and they are sent
//! from here under the name `berth-shim`.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use berth_core::bundle::{SPANS, Span};
use opentelemetry::{
    InstrumentationScope, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::sync::mpsc;

/// Bundles' worth of spans that wait for the collector; beyond that they are dropped.
const QUEUE: usize = 64;

/// Sends spans to the collector, where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Exporter(Option<mpsc::Sender<Vec<SpanData>>>);

impl Exporter {
    /// Exports to this OTLP/gRPC endpoint.
    pub(crate) fn new(endpoint: Option<&str>) -> Self {
        let Some(endpoint) = endpoint else { return Self(None) };
        let mut exporter = match SpanExporter::builder().with_tonic().with_endpoint(endpoint).build() {
            Ok(exporter) => exporter,
            Err(error) => {
                // The service's own exporter has the same endpoint and has refused to start with it.
                tracing::warn!(%error, endpoint, "the shims' spans cannot be exported");
                return Self(None);
            }
        };
        exporter.set_resource(&Resource::builder().with_service_name("berth-shim").build());
        let (spans, mut queue) = mpsc::channel::<Vec<SpanData>>(QUEUE);
        tokio::spawn(async move {
            while let Some(batch) = queue.recv().await {
                if let Err(error) = exporter.export(batch).await {
                    tracing::debug!(%error, "spans of a shim were not taken");
                }
            }
        });
        Self(Some(spans))
    }

    /// Shims are to write spans.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends what a shim left in its bundle.
    pub(crate) fn export(&self, bundle: &Path) {
        let Some(queue) = &self.0 else { return };
        let text = std::fs::read_to_string(bundle.join(SPANS)).unwrap_or_default();
        let spans: Vec<SpanData> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(data).collect();
        if !spans.is_empty() && queue.try_send(spans).is_err() {
            tracing::debug!("the collector is slow; spans of a shim are dropped");
        }
    }
}

fn data(span: Span) -> Option<SpanData> {
    let trace = TraceId::from_hex(&span.trace_id).ok()?;
    let id = SpanId::from_hex(&span.span_id).ok()?;
    let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default());
    Some(SpanData {
        span_context: context,
        parent_span_id: SpanId::from_hex(&span.parent_span_id).unwrap_or(SpanId::INVALID),
        parent_span_is_remote: true,
        span_kind: SpanKind::Server,
        name: span.name.into(),
        start_time: time(span.start_ns),
        end_time: time(span.end_ns),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("berth-shim").build(),
    })
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_span_of_its_trace() {
        let line = r#"{"name":"Create","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7",
            "parent_span_id":"b7ad6b7169203331","start_ns":1,"end_ns":2}"#;
        let span = data(serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(data(Span { trace_id: "x".into(), ..serde_json::from_str(line).unwrap() }).is_none());
    }
}

//! Spans of what the shim was asked to do, written into the bundle for the runtime service to export.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{Read as _, Write as _},
    path::PathBuf,
};

use berth_core::bundle::{SPANS, Span};

use crate::log::now_ns;

/// Where spans go, if anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Spans(Option<PathBuf>);

impl Spans {
    /// Into the bundle.
    pub(crate) fn into(bundle: Option<PathBuf>) -> Self {
        Self(bundle.map(|bundle| bundle.join(SPANS)))
    }

    /// A span below the caller's, where the request's metadata names one.
    pub(crate) fn begin(&self, name: &str, metadata: &HashMap<String, Vec<String>>) -> Option<Span> {
        self.0.as_ref()?;
        let (trace_id, parent_span_id) = parent(metadata.get("traceparent")?.first()?)?;
        let mut random = [0; 8];
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).ok()?;
        let span_id = format!("{:016x}", u64::from_le_bytes(random) | 1);
        Some(Span { name: name.to_owned(), trace_id, span_id, parent_span_id, start_ns: now_ns(), end_ns: 0 })
    }

    /// It is done.
    pub(crate) fn end(&self, span: Option<Span>) {
        let (Some(path), Some(mut span)) = (&self.0, span) else { return };
        span.end_ns = now_ns();
        let Ok(mut line) = serde_json::to_vec(&span) else { return };
        line.push(b'\n');
        // A span that cannot be written is one that nobody will miss.
        let file = OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(&line));
    }
}

/// Trace and span of a W3C `traceparent` that is sampled.
fn parent(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let sampled = hex(flags, 2) && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    (hex(version, 2) && hex(trace, 32) && hex(span, 16) && sampled).then(|| (trace.to_owned(), span.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hang_below_the_callers() {
        let directory = tempfile::tempdir().unwrap();
        let spans = Spans::into(Some(directory.path().into()));
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        let span = spans.begin("x", &HashMap::from([("traceparent".to_owned(), vec![header])]));
        spans.end(span);
        spans.end(spans.begin("y", &HashMap::new()));
        let text = std::fs::read_to_string(directory.path().join(SPANS)).unwrap();
        let span: Span = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((span.name.as_str(), span.parent_span_id.as_str()), ("x", "b7ad6b7169203331"));
        assert!(span.end_ns >= span.start_ns && span.span_id.len() == 16);
    }

    #[test]
    fn what_is_no_parent_makes_no_span() {
        for text in ["", "00-x-y-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"] {
            assert_eq!(parent(text), None, "{text}");
        }
    }
}

//! What a client is told instead of content: a status, and the distribution-spec's JSON ("Error Codes").

use std::{io, sync::Arc, time::Duration};

use http::StatusCode;

/// An answer without content. Cheap to copy: all who wait for one request get the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// One of the specification's codes.
    pub(crate) code: &'static str,
    pub(crate) message: Arc<str>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<Arc<str>>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// The upstream is away or talks nonsense.
    pub(crate) fn upstream(message: impl Into<Arc<str>>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "UNKNOWN", message)
    }

    /// The upstream was away a moment ago and is left alone for this long.
    pub(crate) fn unavailable(message: impl Into<Arc<str>>, retry_after: Duration) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", message);
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// Our own disk or records.
    pub(crate) fn own(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let (message, status) = match (berth_core::failure::chain(error), is_full(error)) {
            (why, false) => (format!("{what}: {why}"), StatusCode::INTERNAL_SERVER_ERROR),
            (why, true) => {
                let full =
                    format!("{what}: {why}; free some space on the mirror's disk, or lower registry-proxy.max_size");
                (full, StatusCode::INSUFFICIENT_STORAGE)
            }
        };
        tracing::error!(message, "the mirror's own store failed");
        Self::new(status, "UNKNOWN", message)
    }

    /// Whether the last good answer is better than this one: the upstream is away, overloaded, or counts our requests.
    pub(crate) fn is_outage(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The body.
    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::json!({ "errors": [{ "code": self.code, "message": &*self.message }] }).to_string().into_bytes()
    }
}

/// Whether a full disk is among the causes.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = match error.downcast_ref::<redb::Error>() {
        Some(redb::Error::Io(error)) => error.kind(),
        _ => error.downcast_ref::<io::Error>().map_or(io::ErrorKind::Other, io::Error::kind),
    };
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) || error.source().is_some_and(is_full)
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        io::Error::other(refusal)
    }
}

//! Times as shim v2 tells them.

use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;

/// A time in nanoseconds since 1970.
pub(crate) fn timestamp(ns: u64) -> Timestamp {
    Timestamp { seconds: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as i32, ..Timestamp::default() }
}

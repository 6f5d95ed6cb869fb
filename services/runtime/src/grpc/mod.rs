//! `berth.runtime.v1`.

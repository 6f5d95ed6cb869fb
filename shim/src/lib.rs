//! The shim: it holds one container, its processes, terminal, streams, log and exit; and it is the low-level OCI runtime
//! that makes them.

pub mod oci;

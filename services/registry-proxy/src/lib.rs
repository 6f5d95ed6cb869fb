//! The registry-proxy.

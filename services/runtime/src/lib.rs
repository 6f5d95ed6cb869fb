//! The runtime service.

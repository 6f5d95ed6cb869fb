//! The snapshotter service.

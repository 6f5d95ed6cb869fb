//! Filters of `ps`.

//! The services that this one calls.

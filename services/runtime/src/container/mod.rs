//! Containers: their records, their states, and what leads from one to the next.

pub(crate) mod live;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod store;

//! Laying layers down: a blob that may still be arriving is inflated, hashed and unpacked in one pass.

mod apply;
mod attributes;
mod beneath;
pub(crate) mod copy;
pub(crate) mod growing;
mod inflate;
mod pipeline;
mod unpack;

pub(crate) use apply::apply;
pub(crate) use unpack::sync;

//! Laying layers down: a blob that may still be arriving is inflated, hashed and unpacked in one pass.

mod apply;
pub(crate) mod attributes;
pub(crate) mod beneath;
pub(crate) mod copy;
pub(crate) mod growing;
mod inflate;
mod pipeline;
pub(crate) mod settle;
mod tar;
pub(crate) mod tree;
mod unpack;

pub(crate) use apply::apply;

//! Laying layers down: a blob that may still be arriving is inflated, hashed and unpacked in one pass. And the way back:
//! what a container has written, walked through once, as a tar or as a list.

mod apply;
pub(crate) mod attributes;
pub(crate) mod beneath;
pub(crate) mod changes;
pub(crate) mod copy;
pub(crate) mod growing;
mod inflate;
pub(crate) mod outgoing;
pub(crate) mod pack;
pub(crate) mod pipeline;
pub(crate) mod settle;
pub(crate) mod take;
mod tar;
pub(crate) mod tree;
pub(crate) mod unpack;
mod walk;

pub(crate) use apply::apply;

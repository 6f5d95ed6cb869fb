//! The firewall: one nf_tables table of our own, spoken to directly over netlink. What is in it is written here and
//! nowhere else; nothing of anybody else's is read or changed.

mod expression;
mod message;
mod rules;
mod table;
mod watch;

pub(crate) use rules::{Rules, Target, Traffic};
pub(crate) use watch::watch;

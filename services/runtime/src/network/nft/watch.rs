//! Puts our table back as soon as somebody took it away: a program that reloads the whole firewall does.

use std::{sync::Weak, thread};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::message::DELETED_TABLE;
use crate::network::{Error, netlink::Listener, networks::Inner};

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// It puts back what is on the heap.
const STACK: usize = 256 << 10;

/// Watches from a thread of its own, in the network namespace of the calling one, as long as the networks are there.
pub(crate) fn watch(networks: Weak<Inner>) -> Result<(), Error> {
    let failed = |source| Error::Io { what: "cannot listen to changes of", path: "the firewall".into(), source };
    let mut listener = Listener::open(NETLINK_NETFILTER, GROUP).map_err(failed)?;
    let watching = move || {
        loop {
            let gone = match listener.hears(DELETED_TABLE) {
                Ok(gone) => gone,
                Err(error) => {
                    tracing::error!(%error, "changes of the firewall are no longer heard of");
                    return;
                }
            };
            let Some(networks) = networks.upgrade() else { return };
            if gone && let Err(error) = networks.rules.put_back() {
                tracing::error!(%error, "our firewall rules were taken away and cannot be put back");
            }
        }
    };
    thread::Builder::new().name("firewall".into()).stack_size(STACK).spawn(watching).map(drop).map_err(failed)
}

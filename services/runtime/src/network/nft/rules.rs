//! The rules as they should be, and the conversation that makes them so. Should somebody have taken our table away
//! (another program that reloads the whole firewall does), the next change puts all of it back.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    message::{Batch, Verb},
    table,
};
use crate::network::{Error, bridge::Bridge, netlink::Conversation, ports::HostPort};

/// A container's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

/// Where each published port leads.
pub(super) type Redirects = BTreeMap<HostPort, Target>;

/// Our table. One change at a time: the kernel makes them so anyway.
#[derive(Debug)]
pub(crate) struct Rules(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    kernel: Conversation,
    bridge: Bridge,
    redirects: Redirects,
}

impl Rules {
    /// Opens the conversation; nothing is changed. The table has the bridge's name.
    pub(crate) fn open(bridge: &Bridge) -> Result<Self, Error> {
        let kernel = Conversation::open(NETLINK_NETFILTER)
            .map_err(Error::netlink("cannot talk about firewall rules for", &bridge.name))?;
        Ok(Self(Mutex::new(Inner { kernel, bridge: bridge.clone(), redirects: Redirects::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What should be is changed before the kernel is asked, so it is right even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the table anew, with these redirections, in one transaction.
    pub(crate) fn install(&self, redirects: impl IntoIterator<Item = (HostPort, Target)>) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.redirects = redirects.into_iter().collect();
        inner.replace()
    }

    /// Adds redirections.
    pub(crate) fn add(&self, redirects: &[(HostPort, Target)]) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.redirects.extend(redirects.iter().copied());
        let all: Vec<_> = redirects.iter().map(|(host, target)| (*host, Some(*target))).collect();
        inner.change(Verb::NewElements, &all)
    }

    /// Takes redirections away.
    pub(crate) fn remove(&self, hosts: &[HostPort]) -> Result<(), Error> {
        let mut inner = self.lock();
        for host in hosts {
            inner.redirects.remove(host);
        }
        let all: Vec<_> = hosts.iter().map(|host| (*host, None)).collect();
        inner.change(Verb::DeleteElements, &all)
    }
}

impl Inner {
    fn change(&mut self, verb: Verb, all: &[(HostPort, Option<Target>)]) -> Result<(), Error> {
        if all.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(&mut self.kernel);
        table::elements(&mut batch, &self.bridge.name, verb, all);
        match batch.commit() {
            Ok(()) => Ok(()),
            Err(refused) => {
                tracing::warn!(%refused, table = self.bridge.name, "our firewall table is not as we left it; it is made anew");
                self.replace()
            }
        }
    }

    fn replace(&mut self) -> Result<(), Error> {
        let Bridge { name, subnet, .. } = &self.bridge;
        let mut batch = Batch::new(&mut self.kernel);
        table::replace(&mut batch, name, *subnet, &self.redirects);
        batch.commit().map_err(Error::netlink("cannot make the firewall rules of", name))
    }
}

//! The rules as they should be, and the conversation that makes them so. Should somebody have taken our table away
//! (another program that reloads the whole firewall does), all of it is put back.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    message::{Batch, Verb},
    table,
};
use crate::network::{Error, netlink::Conversation, ports::HostPort, subnet::Subnet};

/// A container's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// What a bridge lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// The network's.
    pub(crate) subnets: Vec<Subnet>,
    /// Nothing between it and anything else.
    pub(crate) internal: bool,
    /// What leaves it for elsewhere has the host's address.
    pub(crate) masquerade: bool,
}

/// Where each published port leads.
pub(super) type Redirects = BTreeMap<HostPort, Target>;
/// The bridges by their names.
pub(super) type Bridges = BTreeMap<String, Traffic>;

/// Our table. One change at a time: the kernel makes them so anyway.
#[derive(Debug)]
pub(crate) struct Rules(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    kernel: Conversation,
    /// The table's name.
    table: String,
    bridges: Bridges,
    redirects: Redirects,
}

impl Rules {
    /// Opens the conversation; nothing is changed.
    pub(crate) fn open(table: &str) -> Result<Self, Error> {
        let kernel = Conversation::open(NETLINK_NETFILTER)
            .map_err(Error::netlink("cannot talk about firewall rules for", table))?;
        let inner = Inner { kernel, table: table.into(), bridges: Bridges::new(), redirects: Redirects::new() };
        Ok(Self(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What should be is changed before the kernel is asked, so it is right even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the table anew, with these bridges and redirections, in one transaction.
    pub(crate) fn install(
        &self,
        bridges: impl IntoIterator<Item = (String, Traffic)>,
        redirects: impl IntoIterator<Item = (HostPort, Target)>,
    ) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.bridges = bridges.into_iter().collect();
        inner.redirects = redirects.into_iter().collect();
        inner.replace()
    }

    /// Makes the table anew where somebody took it away.
    pub(crate) fn put_back(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        // Without a bridge there is no rule that anybody could miss.
        let Some(bridge) = inner.bridges.keys().next().cloned() else { return Ok(()) };
        inner.change(|batch, table| table::touch(batch, table, &bridge))
    }

    /// Lets traffic of a bridge through, as it says.
    pub(crate) fn open_bridge(&self, name: &str, traffic: Traffic) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.bridges.insert(name.into(), traffic.clone()).as_ref() == Some(&traffic) {
            return Ok(());
        }
        inner.change(|batch, table| table::bridge(batch, table, Verb::NewElements, name, &traffic))
    }

    /// Forgets a bridge.
    pub(crate) fn close_bridge(&self, name: &str) -> Result<(), Error> {
        let mut inner = self.lock();
        let Some(traffic) = inner.bridges.remove(name) else { return Ok(()) };
        inner.change(|batch, table| table::bridge(batch, table, Verb::DeleteElements, name, &traffic))
    }

    /// Adds redirections.
    pub(crate) fn add(&self, redirects: &[(HostPort, Target)]) -> Result<(), Error> {
        if redirects.is_empty() {
            return Ok(());
        }
        let mut inner = self.lock();
        inner.redirects.extend(redirects.iter().copied());
        let all: Vec<_> = redirects.iter().map(|(host, target)| (*host, Some(*target))).collect();
        inner.change(|batch, table| table::elements(batch, table, Verb::NewElements, &all))
    }

    /// Takes redirections away.
    pub(crate) fn remove(&self, hosts: &[HostPort]) -> Result<(), Error> {
        let mut inner = self.lock();
        let all: Vec<_> =
            hosts.iter().filter(|host| inner.redirects.remove(host).is_some()).map(|host| (*host, None)).collect();
        if all.is_empty() {
            return Ok(());
        }
        inner.change(|batch, table| table::elements(batch, table, Verb::DeleteElements, &all))
    }
}

impl Inner {
    fn change(&mut self, what: impl FnOnce(&mut Batch<'_>, &str)) -> Result<(), Error> {
        let mut batch = Batch::new(&mut self.kernel);
        what(&mut batch, &self.table);
        match batch.commit() {
            Ok(()) => Ok(()),
            Err(refused) => {
                tracing::warn!(%refused, table = self.table, "our firewall table is not as we left it; it is made anew");
                self.replace()
            }
        }
    }

    fn replace(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new(&mut self.kernel);
        table::replace(&mut batch, &self.table, &self.bridges, &self.redirects);
        batch.commit().map_err(Error::netlink("cannot make the firewall rules of", &self.table))
    }
}

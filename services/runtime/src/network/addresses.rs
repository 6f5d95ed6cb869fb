//! Which addresses of the bridge's subnet are taken. The next free one after the last that was given is given, so that
//! an address that was just freed rests: neighbours and connections that remember it have time to forget.

use std::{collections::HashSet, net::Ipv4Addr};

use crate::network::subnet::Subnet;

/// The addresses of one subnet.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    taken: HashSet<u32>,
    last: u32,
}

impl Addresses {
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self { subnet, taken: HashSet::new(), last: *subnet.containers().end() }
    }

    /// An address that nobody has; `None` where every one is taken.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let all = self.subnet.containers();
        let after = (self.last + 1..=*all.end()).chain(*all.start()..=self.last.min(*all.end()));
        let free = after.into_iter().find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.last = free;
        Some(free.into())
    }

    /// Marks an address that a container has since before this service started.
    pub(crate) fn keep(&mut self, address: Ipv4Addr) {
        let address = u32::from(address);
        if self.subnet.containers().contains(&address) {
            self.taken.insert(address);
            // As far as is known, what was given last is the highest.
            if self.taken.len() == 1 || address > self.last {
                self.last = address;
            }
        }
    }

    pub(crate) fn free(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses::new(Subnet::parse("10.9.8.0/29").unwrap())
    }

    fn last(address: Option<Ipv4Addr>) -> Option<u8> {
        address.map(|address| address.octets()[3])
    }

    #[test]
    fn a_freed_address_rests() {
        let mut addresses = addresses();
        assert_eq!(last(addresses.take()), Some(2));
        assert_eq!(last(addresses.take()), Some(3));
        addresses.free(Ipv4Addr::new(10, 9, 8, 2));
        assert_eq!(last(addresses.take()), Some(4));
    }

    #[test]
    fn all_are_given_and_then_none() {
        let mut addresses = addresses();
        let given: Vec<_> = std::iter::from_fn(|| last(addresses.take())).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        addresses.free(Ipv4Addr::new(10, 9, 8, 4));
        assert_eq!(last(addresses.take()), Some(4));
    }

    #[test]
    fn what_is_kept_is_not_given() {
        let mut addresses = addresses();
        addresses.keep(Ipv4Addr::new(10, 9, 8, 4));
        addresses.keep(Ipv4Addr::new(10, 9, 8, 2));
        addresses.keep(Ipv4Addr::new(10, 1, 1, 1));
        let given: Vec<_> = std::iter::from_fn(|| last(addresses.take())).collect();
        assert_eq!(given, [5, 6, 3]);
    }
}

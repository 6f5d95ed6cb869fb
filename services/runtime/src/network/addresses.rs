//! Which addresses of a network's subnet are taken. The next free one after the last that was given is given, so that
//! an address that was just freed rests: neighbours and connections that remember it have time to forget.

use std::{collections::HashSet, net::IpAddr, ops::RangeInclusive};

use crate::network::subnet::{Subnet, number};

/// The addresses of one subnet.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    /// Those that are given where nobody asks for one.
    range: RangeInclusive<u128>,
    taken: HashSet<u128>,
    last: u128,
}

impl Addresses {
    /// Addresses are given from `range`, where it is narrower than the subnet; `reserved` never.
    pub(crate) fn new(subnet: Subnet, range: Option<Subnet>, reserved: impl IntoIterator<Item = IpAddr>) -> Self {
        let hosts = subnet.hosts();
        let range = range.map_or(hosts.clone(), |range| {
            let all = range.all();
            *all.start().max(hosts.start())..=*all.end().min(hosts.end())
        });
        let taken = reserved.into_iter().map(number).collect();
        Self { subnet, last: *range.end(), range, taken }
    }

    /// An address that nobody has; `None` where every one is taken.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let (start, end) = (*self.range.start(), *self.range.end());
        let after = (self.last + 1..=end).chain(start..=self.last.min(end));
        let free = after.into_iter().find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.last = free;
        self.subnet.address(free)
    }

    /// A certain address, where it can be a host's and nobody has it.
    pub(crate) fn take_this(&mut self, address: IpAddr) -> bool {
        self.can_have(address) && self.taken.insert(number(address))
    }

    /// Whether a host of this subnet can have it.
    pub(crate) fn can_have(&self, address: IpAddr) -> bool {
        self.subnet.contains(address) && self.subnet.hosts().contains(&number(address))
    }

    /// Marks an address that a container has since before this service started.
    pub(crate) fn keep(&mut self, address: IpAddr) {
        if !self.can_have(address) {
            return;
        }
        let (address, first) = (number(address), self.last == *self.range.end());
        self.taken.insert(address);
        // As far as is known, what was given last is the highest.
        if self.range.contains(&address) && (first || address > self.last) {
            self.last = address;
        }
    }

    pub(crate) fn free(&mut self, address: IpAddr) {
        self.taken.remove(&number(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let subnet = Subnet::parse("10.9.8.0/29").unwrap();
        Addresses::new(subnet, None, [subnet.gateway()])
    }

    fn at(last: u8) -> IpAddr {
        [10, 9, 8, last].into()
    }

    fn last(address: Option<IpAddr>) -> Option<u8> {
        address.map(|address| number(address) as u8)
    }

    #[test]
    fn a_freed_address_rests() {
        let mut addresses = addresses();
        assert_eq!(last(addresses.take()), Some(2));
        assert_eq!(last(addresses.take()), Some(3));
        addresses.free(at(2));
        assert_eq!(last(addresses.take()), Some(4));
    }

    #[test]
    fn all_are_given_and_then_none() {
        let mut addresses = addresses();
        let given: Vec<_> = std::iter::from_fn(|| last(addresses.take())).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        addresses.free(at(4));
        assert_eq!(last(addresses.take()), Some(4));
    }

    #[test]
    fn what_is_kept_is_not_given() {
        let mut addresses = addresses();
        addresses.keep(at(4));
        addresses.keep(at(2));
        addresses.keep([10, 1, 1, 1].into());
        let given: Vec<_> = std::iter::from_fn(|| last(addresses.take())).collect();
        assert_eq!(given, [5, 6, 3]);
    }

    #[test]
    fn a_range_and_what_is_asked_for() {
        let subnet = Subnet::parse("10.9.8.0/24").unwrap();
        let mut addresses = Addresses::new(subnet, Subnet::read("10.9.8.128/30"), [subnet.gateway(), at(129)]);
        assert!(addresses.take_this(at(7)) && !addresses.take_this(at(7)) && !addresses.take_this(at(1)));
        assert!(!addresses.take_this(at(255)) && !addresses.take_this([10, 9, 9, 1].into()));
        let given: Vec<_> = std::iter::from_fn(|| last(addresses.take())).collect();
        assert_eq!(given, [128, 130, 131]);
        let mut six = Addresses::new(Subnet::parse("fd00::/64").unwrap(), None, ["fd00::1".parse().unwrap()]);
        assert_eq!(six.take().unwrap().to_string(), "fd00::2");
    }
}

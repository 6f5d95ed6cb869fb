//! An IPv4 subnet with the bridge's place in it: the first address is the gateway's, as Docker has it.

use std::{fmt, net::Ipv4Addr};

/// An IPv4 network: address bits beyond the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// 127.0.0.0/8
    pub(crate) const LOOPBACK: Self = Self { network: 127 << 24, prefix: 8 };

    /// The network that an address with a prefix length is in.
    pub(crate) fn of(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self { network: u32::from(address) & mask(prefix), prefix })
    }

    /// Reads "172.30.0.0/16".
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, prefix) = text.split_once('/').ok_or("it has no prefix length, as in 172.30.0.0/16")?;
        let address: Ipv4Addr = address.parse().map_err(|_| "it does not begin with an IPv4 address")?;
        let prefix: u8 = prefix.parse().map_err(|_| "its prefix length is no number")?;
        if !(8..=29).contains(&prefix) {
            return Err("its prefix length is not between 8 and 29");
        }
        let subnet = Self::of(address, prefix).ok_or("its prefix length is too large")?;
        if subnet.network != u32::from(address) {
            return Err("it has address bits beyond its prefix length");
        }
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() || address.octets()[0] >= 240 {
            return Err("its addresses cannot be used for hosts");
        }
        Ok(subnet)
    }

    pub(crate) fn network(self) -> Ipv4Addr {
        self.network.into()
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The network's mask.
    pub(crate) fn mask(self) -> Ipv4Addr {
        mask(self.prefix).into()
    }

    /// The bridge's address.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        (self.network + 1).into()
    }

    /// The address for all hosts.
    pub(crate) fn broadcast(self) -> Ipv4Addr {
        (self.network | !mask(self.prefix)).into()
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether an address is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// Addresses for containers: all but the network's, the gateway's and the broadcast address.
    pub(crate) fn containers(self) -> std::ops::RangeInclusive<u32> {
        self.network + 2..=u32::from(self.broadcast()) - 1
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_subnet() {
        let subnet = Subnet::parse("172.30.4.0/24").unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 30, 4, 1));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 30, 4, 255));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(subnet.containers().count(), 253);
        assert_eq!(subnet.to_string(), "172.30.4.0/24");
    }

    #[test]
    fn what_is_no_subnet() {
        for text in ["172.30.0.0", "172.30.0.1/16", "x/16", "172.30.0.0/33", "10.0.0.0/30", "127.0.0.0/8", "0.0.0.0/8"]
        {
            assert!(Subnet::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn overlaps_are_symmetric() {
        let of = |text| Subnet::parse(text).unwrap();
        assert!(of("10.0.0.0/8").overlaps(of("10.211.0.0/16")) && of("10.211.0.0/16").overlaps(of("10.0.0.0/8")));
        assert!(!of("172.30.0.0/16").overlaps(of("172.29.0.0/16")));
        assert!(Subnet::of(Ipv4Addr::UNSPECIFIED, 0).unwrap().overlaps(of("172.29.0.0/16")));
    }
}

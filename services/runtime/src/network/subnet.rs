//! A subnet of either family.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A network: address bits beyond the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subnet {
    network: IpAddr,
    prefix: u8,
}

/// An address as a number, as wide as its family is.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Subnet {
    /// 127.0.0.0/8
    pub(crate) const LOOPBACK: Self = Self { network: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 };

    /// The network that an address with a prefix length is in.
    pub(crate) fn of(address: impl Into<IpAddr>, prefix: u8) -> Option<Self> {
        let address = address.into();
        let width = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= width).then(|| {
            let all = Self { network: address, prefix };
            Self { network: all.at(number(address) & all.mask_bits()), prefix }
        })
    }

    /// Reads "172.30.0.0/16"; address bits beyond the prefix are left out.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        Self::of(address.parse::<IpAddr>().ok()?, prefix.parse().ok()?)
    }

    /// Reads one that containers can have addresses in.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, prefix) = text.split_once('/').ok_or("it has no prefix length, as in 172.30.0.0/16")?;
        let address: IpAddr = address.parse().map_err(|_| "it does not begin with an IP address")?;
        let prefix: u8 = prefix.parse().map_err(|_| "its prefix length is no number")?;
        let subnet = Self::of(address, prefix).ok_or("its prefix length is too large")?;
        match address {
            IpAddr::V4(_) if !(8..=30).contains(&prefix) => return Err("its prefix length is not between 8 and 30"),
            IpAddr::V6(_) if !(16..=126).contains(&prefix) => {
                return Err("its prefix length is not between 16 and 126");
            }
            _ => {}
        }
        if subnet.network != address {
            return Err("it has address bits beyond its prefix length");
        }
        let reserved = matches!(address, IpAddr::V4(v4) if v4.octets()[0] >= 240);
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() || reserved {
            return Err("its addresses cannot be used for hosts");
        }
        Ok(subnet)
    }

    pub(crate) fn network(self) -> IpAddr {
        self.network
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    pub(crate) fn is_ipv6(self) -> bool {
        self.network.is_ipv6()
    }

    fn width(self) -> u8 {
        if self.is_ipv6() { 128 } else { 32 }
    }

    fn mask_bits(self) -> u128 {
        let host_bits = u32::from(self.width() - self.prefix);
        let all = if self.is_ipv6() { u128::MAX } else { u32::MAX.into() };
        all.checked_shl(host_bits).unwrap_or(0) & all
    }

    /// The address of its family that has this number.
    fn at(self, number: u128) -> IpAddr {
        if self.is_ipv6() { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
    }

    /// The address with this number, where it is within.
    pub(crate) fn address(self, number: u128) -> Option<IpAddr> {
        let address = self.at(number);
        self.contains(address).then_some(address)
    }

    /// The network's mask, IPv4 only.
    pub(crate) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask_bits() as u32)
    }

    /// The first address: the bridge's, where nobody says otherwise.
    pub(crate) fn gateway(self) -> IpAddr {
        self.at(number(self.network) + 1)
    }

    fn last(self) -> u128 {
        let all = if self.is_ipv6() { u128::MAX } else { u32::MAX.into() };
        number(self.network) | (all & !self.mask_bits())
    }

    /// Its last address.
    pub(crate) fn last_address(self) -> IpAddr {
        self.at(self.last())
    }

    /// The address for all hosts, IPv4 only.
    pub(crate) fn broadcast(self) -> Option<Ipv4Addr> {
        (!self.is_ipv6()).then(|| Ipv4Addr::from(self.last() as u32))
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && number(address) & self.mask_bits() == number(self.network)
    }

    /// Whether an address is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// Whether every address of the other is within.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.contains(other.network) && self.prefix <= other.prefix
    }

    /// Numbers of the addresses that hosts can have: all but the network's and, with IPv4, the one for all hosts.
    pub(crate) fn hosts(self) -> std::ops::RangeInclusive<u128> {
        let last = if self.is_ipv6() { self.last() } else { self.last() - 1 };
        number(self.network) + 1..=last
    }

    /// Every address within, by its number.
    pub(crate) fn all(self) -> std::ops::RangeInclusive<u128> {
        number(self.network)..=self.last()
    }

    /// Its parts of this prefix length.
    pub(crate) fn parts(self, prefix: u8) -> impl Iterator<Item = Self> {
        let step = 1u128 << (self.width().saturating_sub(prefix)).min(127);
        let (first, last) = (number(self.network), self.last());
        let numbers = std::iter::successors(Some(first), move |number| number.checked_add(step));
        numbers.take_while(move |number| *number <= last).filter_map(move |number| Self::of(self.at(number), prefix))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl serde::Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no subnet")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_subnet() {
        let subnet = Subnet::parse("172.30.4.0/24").unwrap();
        assert_eq!(subnet.gateway(), IpAddr::from([172, 30, 4, 1]));
        assert_eq!(subnet.broadcast(), Some(Ipv4Addr::new(172, 30, 4, 255)));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(subnet.hosts().count(), 254);
        assert_eq!(subnet.to_string(), "172.30.4.0/24");
        let six = Subnet::parse("fd00:1::/64").unwrap();
        assert_eq!((six.gateway().to_string(), six.broadcast()), ("fd00:1::1".into(), None));
        assert!(six.contains("fd00:1::ffff".parse().unwrap()) && !six.contains("fd00:1:0:1::".parse().unwrap()));
    }

    #[test]
    fn parts_fill_a_subnet() {
        let all = Subnet::parse("10.0.0.0/8").unwrap();
        let parts: Vec<_> = all.parts(10).map(|part| part.to_string()).collect();
        assert_eq!(parts, ["10.0.0.0/10", "10.64.0.0/10", "10.128.0.0/10", "10.192.0.0/10"]);
        assert_eq!(Subnet::parse("fd00::/48").unwrap().parts(64).nth(3).unwrap().to_string(), "fd00:0:0:3::/64");
    }

    #[test]
    fn what_is_no_subnet() {
        for text in [
            "172.30.0.0",
            "172.30.0.1/16",
            "x/16",
            "172.30.0.0/33",
            "10.0.0.0/31",
            "127.0.0.0/8",
            "0.0.0.0/8",
            "fd00::1/64",
            "ff00::/16",
            "fd00::/127",
        ] {
            assert!(Subnet::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn overlaps_are_symmetric() {
        let of = |text| Subnet::parse(text).unwrap();
        assert!(of("10.0.0.0/8").overlaps(of("10.211.0.0/16")) && of("10.211.0.0/16").overlaps(of("10.0.0.0/8")));
        assert!(!of("172.30.0.0/16").overlaps(of("172.29.0.0/16")) && !of("fd00::/64").overlaps(of("10.0.0.0/8")));
        assert!(Subnet::of(Ipv4Addr::UNSPECIFIED, 0).unwrap().overlaps(of("172.29.0.0/16")));
    }
}

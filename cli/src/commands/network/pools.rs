//! Which subnet a range, a gateway and an address belong to: they are given side by side, and belong together by what is
//! within what.

use std::net::IpAddr;

use berth_proto::berth::runtime::v1::AddressPool;

/// What was given.
pub(super) struct Asked<'a> {
    pub(super) subnets: Vec<&'a str>,
    pub(super) ranges: Vec<&'a str>,
    pub(super) gateways: Vec<&'a str>,
    pub(super) others: Vec<&'a str>,
}

/// A pool for each subnet.
///
/// # Errors
/// Something belongs to no subnet, or two of a kind to one; the message is Docker's.
pub(super) fn pools(asked: &Asked<'_>) -> Result<Vec<AddressPool>, String> {
    if asked.subnets.len() < asked.ranges.len() || asked.subnets.len() < asked.gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut pools: Vec<(Cidr, AddressPool)> = Vec::new();
    for text in &asked.subnets {
        let subnet = Cidr::parse(text)?;
        if pools.iter().any(|(other, _)| other.contains(subnet.address) || subnet.contains(other.address)) {
            return Err("multiple overlapping subnet configuration is not supported".into());
        }
        pools.push((subnet, AddressPool { subnet: (*text).into(), ..AddressPool::default() }));
    }
    for range in &asked.ranges {
        let address = Cidr::parse(range)?.address;
        let pool = within(&mut pools, address).ok_or_else(|| format!("no matching subnet for range {range}"))?;
        if !pool.ip_range.is_empty() {
            let (subnet, other) = (&pool.subnet, &pool.ip_range);
            return Err(format!("cannot configure multiple ranges ({range}, {other}) on the same subnet ({subnet})"));
        }
        pool.ip_range = (*range).into();
    }
    for gateway in &asked.gateways {
        let address = gateway.parse().map_err(|_| format!("invalid gateway address: {gateway}"))?;
        let pool = within(&mut pools, address).ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
        if !pool.gateway.is_empty() {
            let (subnet, other) = (&pool.subnet, &pool.gateway);
            return Err(format!(
                "cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({subnet})"
            ));
        }
        pool.gateway = (*gateway).into();
    }
    for other in &asked.others {
        let (name, text) =
            other.split_once('=').ok_or_else(|| format!("invalid aux-address {other:?}: write NAME=address"))?;
        let address = text.parse().map_err(|_| format!("invalid aux-address: {text}"))?;
        let pool = within(&mut pools, address).ok_or_else(|| format!("no matching subnet for aux-address {text}"))?;
        pool.aux_addresses.insert(name.into(), text.into());
    }
    Ok(pools.into_iter().map(|(_, pool)| pool).collect())
}

fn within(pools: &mut [(Cidr, AddressPool)], address: IpAddr) -> Option<&mut AddressPool> {
    pools.iter_mut().find(|(subnet, _)| subnet.contains(address)).map(|(_, pool)| pool)
}

#[derive(Clone, Copy)]
struct Cidr {
    address: IpAddr,
    prefix: u32,
}

impl Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid CIDR address: {text}");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }

    fn contains(self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => address.into(),
        };
        let different = bits(self.address) ^ bits(address);
        self.address.is_ipv4() == address.is_ipv4() && different.leading_zeros() >= self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(subnets: &[&'a str], ranges: &[&'a str], gateways: &[&'a str], others: &[&'a str]) -> Asked<'a> {
        Asked { subnets: subnets.into(), ranges: ranges.into(), gateways: gateways.into(), others: others.into() }
    }

    #[test]
    fn what_belongs_together() {
        let pools = pools(&asked(
            &["10.1.0.0/16", "fd00::/64"],
            &["10.1.8.0/24"],
            &["fd00::9", "10.1.0.9"],
            &["router=10.1.0.7"],
        ))
        .unwrap();
        assert_eq!((pools[0].ip_range.as_str(), pools[0].gateway.as_str()), ("10.1.8.0/24", "10.1.0.9"));
        assert_eq!((pools[1].gateway.as_str(), pools[0].aux_addresses["router"].as_str()), ("fd00::9", "10.1.0.7"));
    }

    #[test]
    fn what_does_not() {
        for (wrong, why) in [
            (asked(&[], &["10.1.0.0/24"], &[], &[]), "must have a corresponding subnet"),
            (asked(&["10.1.0.0/16", "10.1.2.0/24"], &[], &[], &[]), "multiple overlapping"),
            (asked(&["10.1.0.0/16"], &["10.2.0.0/24"], &[], &[]), "no matching subnet for range"),
            (asked(&["10.1.0.0/16"], &[], &["10.2.0.1"], &[]), "no matching subnet for gateway"),
            (asked(&["10.1.0.0/16"], &[], &[], &["a=fd00::1"]), "no matching subnet for aux-address"),
            (asked(&["10.1.0.0/16", "10.2.0.0/16"], &[], &["10.1.0.1", "10.1.0.2"], &[]), "multiple gateways"),
            (asked(&["10.1.0.0"], &[], &[], &[]), "invalid CIDR address: 10.1.0.0"),
            (asked(&["10.1.0.0/33"], &[], &[], &[]), "invalid CIDR address"),
        ] {
            let error = pools(&wrong).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}

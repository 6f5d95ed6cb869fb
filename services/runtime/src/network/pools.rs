//! Subnets for networks that name none: the first part of the configured pools that neither a network nor a route of
//! the host has.

use crate::network::{Error, Settings, definition::Pool, host::Host, subnet::Subnet};

/// A free IPv4 subnet.
///
/// # Errors
/// Every one is taken; or a pool is none.
pub(crate) fn free_v4(settings: &Settings, host: &Host, taken: &[Subnet]) -> Result<Pool, Error> {
    // Only what is near can be in the way: with many networks, most are looked at once.
    for text in &settings.pools {
        let pool = Subnet::parse(text).map_err(|why| Error::BadPool { pool: text.clone(), why })?;
        let clashes = |subnet: &Subnet| subnet.overlaps(pool);
        let taken: Vec<_> = taken.iter().copied().filter(clashes).collect();
        let routes: Vec<_> =
            host.routes.iter().filter(|route| route.subnet.prefix() > 1 && clashes(&route.subnet)).collect();
        let free = pool.parts(settings.pool_prefix.clamp(8, 30).max(pool.prefix())).find(|part| {
            !taken.iter().any(|subnet| subnet.overlaps(*part)) && !routes.iter().any(|r| r.subnet.overlaps(*part))
        });
        if let Some(subnet) = free {
            return Ok(Pool::whole(subnet));
        }
    }
    Err(Error::PoolsFull { tried: settings.pools.join(", ") })
}

/// An IPv6 subnet that nobody else is likely ever to have (RFC 4193).
pub(crate) fn free_v6(host: &Host, taken: &[Subnet]) -> Pool {
    loop {
        let mut bytes = [0; 16];
        bytes[0] = 0xfd;
        bytes[1..6].copy_from_slice(&rand::random::<[u8; 5]>());
        let subnet = Subnet::of(std::net::Ipv6Addr::from(bytes), 64);
        if let Some(subnet) = subnet
            && host.overlapping(subnet, None).is_none()
            && !taken.iter().any(|other| other.overlaps(subnet))
        {
            return Pool::whole(subnet);
        }
    }
}

/// Whether a subnet that somebody names can be a network's. A route to more than the subnet (a VPN's) is no hindrance, for
/// the narrower one is followed; the user has chosen.
///
/// # Errors
/// Another network has some of its addresses, or a route of the host leads to some of them.
pub(crate) fn check(subnet: Subnet, host: &Host, taken: &[Subnet]) -> Result<(), Error> {
    if taken.iter().any(|other| other.overlaps(subnet)) {
        return Err(Error::PoolOverlap);
    }
    match host.routes.iter().find(|route| subnet.covers(route.subnet)) {
        Some(route) => Err(Error::RouteOverlap {
            subnet: subnet.to_string(),
            route: route.subnet.to_string(),
            link: host.name_of(route.link),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::host::Route;

    fn host(routes: &[&str]) -> Host {
        let routes = routes.iter().map(|text| Route { subnet: Subnet::read(text).unwrap(), link: 7 }).collect();
        Host { routes, ..Host::default() }
    }

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| Subnet::read(text).unwrap()).collect()
    }

    #[test]
    fn the_first_that_nobody_has() {
        let settings = Settings { pools: vec!["10.1.0.0/23".into(), "10.2.0.0/16".into()], ..Settings::default() };
        let free = |routes: &[&str], taken: &[&str]| {
            free_v4(&settings, &host(routes), &subnets(taken)).map(|pool| pool.subnet.to_string())
        };
        assert_eq!(free(&["0.0.0.0/0", "10.1.0.128/25"], &[]).unwrap(), "10.1.1.0/24");
        assert_eq!(free(&["10.1.0.0/16"], &["10.2.0.0/24"]).unwrap(), "10.2.1.0/24");
        assert!(free(&["10.0.0.0/8"], &[]).unwrap_err().to_string().contains("10.1.0.0/23, 10.2.0.0/16"));
    }

    #[test]
    fn a_thousand_networks_and_a_vpn() {
        let (settings, host) = (Settings::default(), host(&["172.16.0.0/12", "10.0.0.0/9"]));
        let mut taken = Vec::new();
        for _ in 0..1000 {
            let pool = free_v4(&settings, &host, &taken).unwrap();
            assert!(!taken.contains(&pool.subnet) && host.overlapping(pool.subnet, None).is_none());
            taken.push(pool.subnet);
        }
        assert!(free_v6(&host, &taken).subnet.to_string().starts_with("fd"));
    }

    #[test]
    fn what_is_asked_for_and_taken() {
        let subnet = Subnet::parse("10.5.0.0/24").unwrap();
        check(subnet, &host(&["10.0.0.0/8", "0.0.0.0/0"]), &[]).unwrap();
        assert!(matches!(check(subnet, &host(&[]), &subnets(&["10.5.0.0/16"])), Err(Error::PoolOverlap)));
        let refused = check(subnet, &host(&["10.5.0.7/32"]), &[]).unwrap_err().to_string();
        assert!(refused.contains("10.5.0.7/32"), "{refused}");
    }
}

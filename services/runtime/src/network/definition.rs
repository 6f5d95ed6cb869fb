//! What a network is, as it was asked for and as the store keeps it: nothing of it changes as long as it is there.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use berth_proto::berth::runtime::v1::{AddressPool, CreateNetworkRequest};
use serde::{Deserialize, Serialize};

use crate::network::{Error, subnet::Subnet};

/// Names that are networks of every node.
pub(crate) const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
/// Options that say, with one of these values, what is so anyway.
const IDLE: [(&str, &str); 5] = [
    ("com.docker.network.bridge.default_bridge", "false"),
    ("com.docker.network.bridge.inhibit_ipv4", "false"),
    ("com.docker.network.bridge.gateway_mode_ipv4", "nat"),
    ("com.docker.network.bridge.gateway_mode_ipv6", "nat"),
    ("com.docker.network.enable_ipv6", "false"),
];
/// `IFNAMSIZ` without the end.
const LINK_NAME: usize = 15;
/// The smallest and the largest MTU of a link that has IPv4.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;

/// A bridge network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Definition {
    /// 64 hex digits.
    pub(crate) id: String,
    pub(crate) name: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// The bridge's interface on the host.
    pub(crate) interface: String,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) ipam_options: BTreeMap<String, String>,
    pub(crate) v4: Option<Pool>,
    pub(crate) v6: Option<Pool>,
}

/// The addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) subnet: Subnet,
    /// The bridge's own.
    pub(crate) gateway: IpAddr,
    #[serde(default)]
    pub(crate) range: Option<Subnet>,
    /// Of others, by their names.
    #[serde(default)]
    pub(crate) reserved: BTreeMap<String, IpAddr>,
    /// The user named the subnet, so that addresses in it can be asked for.
    #[serde(default)]
    pub(crate) asked: bool,
}

impl Pool {
    /// All of a subnet, its first address for the bridge.
    pub(crate) fn whole(subnet: Subnet) -> Self {
        Self { subnet, gateway: subnet.gateway(), range: None, reserved: BTreeMap::new(), asked: false }
    }
}

/// What somebody asks a network to be; a subnet may be left to be chosen.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) definition: Definition,
    /// IPv4 is wanted, and no subnet was named.
    pub(crate) choose_v4: bool,
    /// The same of IPv6.
    pub(crate) choose_v6: bool,
}

impl Definition {
    /// Reads a request.
    ///
    /// # Errors
    /// Something in it cannot be meant.
    pub(crate) fn draft(asked: CreateNetworkRequest) -> Result<Draft, Error> {
        check_name(&asked.name)?;
        match asked.driver.as_str() {
            "" | "bridge" => {}
            "host" | "null" => return Err(Error::OnePredefined { driver: asked.driver }),
            _ => return Err(Error::NoDriver { driver: asked.driver }),
        }
        if !matches!(asked.ipam_driver.as_str(), "" | "default") {
            return Err(Error::Unmeant(format!("invalid IPAM driver {:?}: there is \"default\"", asked.ipam_driver)));
        }
        let id = hex::encode(rand::random::<[u8; 32]>());
        let mut definition = Self {
            interface: format!("br-{}", &id[..12]),
            id,
            name: asked.name,
            created: jiff::Timestamp::now().to_string(),
            internal: asked.internal,
            attachable: asked.attachable,
            labels: sorted(asked.labels),
            options: sorted(asked.options),
            ipam_options: sorted(asked.ipam_options),
            v4: None,
            v6: None,
        };
        let (ipv4, ipv6) = (asked.ipv4.unwrap_or(true), asked.ipv6);
        if !ipv4 && !ipv6 {
            return Err(Error::Unmeant("IPv4 or IPv6 must be enabled".into()));
        }
        for pool in asked.pools {
            definition.add(pool, ipv4, ipv6)?;
        }
        if let Some(name) = definition.check_options()? {
            definition.interface = name;
        }
        let choose_v4 = ipv4 && definition.v4.is_none();
        let choose_v6 = ipv6 && definition.v6.is_none();
        Ok(Draft { definition, choose_v4, choose_v6 })
    }

    fn add(&mut self, asked: AddressPool, ipv4: bool, ipv6: bool) -> Result<(), Error> {
        let pool = pool(asked)?;
        let six = pool.subnet.is_ipv6();
        if (six && !ipv6) || (!six && !ipv4) {
            // As in Docker, where a subnet alone does not enable its family.
            if six {
                return Err(Error::Unmeant(format!(
                    "the subnet {} is of IPv6, which --ipv6 enables for the network",
                    pool.subnet
                )));
            }
            return Err(Error::Unmeant(format!("the subnet {} is of IPv4, which is disabled", pool.subnet)));
        }
        let place = if six { &mut self.v6 } else { &mut self.v4 };
        if place.replace(pool).is_some() {
            return Err(Error::Unmeant("a bridge has one subnet of each family at most".into()));
        }
        Ok(())
    }

    /// Answers with the name that the user gave the bridge.
    fn check_options(&self) -> Result<Option<String>, Error> {
        for (key, value) in &self.options {
            let wrong = |why: &str| Err(Error::Unmeant(format!("option {key}={value}: {why}")));
            match key.as_str() {
                ICC | MASQUERADE if boolean(value).is_none() => return wrong("it is neither true nor false"),
                HOST_BINDING if value.parse::<std::net::Ipv4Addr>().is_err() => {
                    return wrong("that is no IPv4 address");
                }
                MTU if !value.parse::<u32>().is_ok_and(|mtu| mtu == 0 || MTUS.contains(&mtu)) => {
                    return wrong("an MTU is between 68 and 65535");
                }
                BRIDGE_NAME if !is_link_name(value) => {
                    return wrong("an interface has a name of up to 15 characters, without / and white space");
                }
                PREFIX if !is_link_name(&format!("{value}0")) || value.ends_with(|c: char| c.is_ascii_digit()) => {
                    return wrong("that is no beginning of an interface's name");
                }
                ICC | MASQUERADE | HOST_BINDING | MTU | BRIDGE_NAME | PREFIX => {}
                _ if IDLE.contains(&(key.as_str(), value.as_str())) => {}
                _ if key.starts_with("com.docker.network.") => return wrong("this version does not have it"),
                _ => {}
            }
        }
        Ok(self.options.get(BRIDGE_NAME).filter(|name| !name.is_empty()).cloned())
    }

    /// Containers on it reach one another.
    pub(crate) fn icc(&self) -> bool {
        self.flag(ICC)
    }

    /// What leaves it for the outside has the host's address.
    pub(crate) fn masquerade(&self) -> bool {
        self.flag(MASQUERADE) && !self.internal
    }

    fn flag(&self, key: &str) -> bool {
        self.options.get(key).and_then(|value| boolean(value)).unwrap_or(true)
    }

    /// Where ports are published that name no address.
    pub(crate) fn host_binding(&self) -> Option<IpAddr> {
        self.options.get(HOST_BINDING)?.parse().ok()
    }

    /// MTU of its links, where somebody chose one.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.options.get(MTU)?.parse().ok().filter(|mtu| *mtu != 0)
    }

    /// What the containers' interfaces are called, without number.
    pub(crate) fn inside(&self) -> &str {
        self.options.get(PREFIX).map_or("eth", String::as_str)
    }

    /// Its subnets, with the bridge's own addresses.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.v4.iter().chain(&self.v6)
    }
}

fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn is_link_name(name: &str) -> bool {
    (1..=LINK_NAME).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

/// Whether a network can be called this.
///
/// # Errors
/// It cannot.
fn check_name(name: &str) -> Result<(), Error> {
    if PREDEFINED.contains(&name) {
        return Err(Error::Predefined(format!("operation is not permitted on predefined {name} network")));
    }
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) && name != "default" {
        return Ok(());
    }
    Err(Error::BadName { name: name.into() })
}

fn pool(asked: AddressPool) -> Result<Pool, Error> {
    let AddressPool { subnet, ip_range, gateway, aux_addresses } = asked;
    let text = subnet;
    let subnet = Subnet::parse(&text).map_err(|why| Error::InvalidSubnet { subnet: text.clone(), why })?;
    let within = |what: &str, text: &str| -> Result<IpAddr, Error> {
        let address: IpAddr =
            text.parse().map_err(|_| Error::Unmeant(format!("invalid {what} address: {text:?} is no IP address")))?;
        if !subnet.contains(address) {
            return Err(Error::Unmeant(format!("invalid {what} address {address}: parent subnet is {subnet}")));
        }
        if !subnet.hosts().contains(&crate::network::subnet::number(address)) {
            return Err(Error::Unmeant(format!("invalid {what} address {address}: no host of {subnet} can have it")));
        }
        Ok(address)
    };
    let range = match ip_range.as_str() {
        "" => None,
        text => {
            let range =
                Subnet::read(text).ok_or_else(|| Error::Unmeant(format!("invalid ip-range {text}: no CIDR")))?;
            if !subnet.covers(range) {
                return Err(Error::Unmeant(format!("invalid ip-range {text}: parent subnet is {subnet}")));
            }
            Some(range)
        }
    };
    let gateway = if gateway.is_empty() { subnet.gateway() } else { within("gateway", &gateway)? };
    let reserved = aux_addresses.into_iter().map(|(name, text)| Ok((name, within("auxiliary", &text)?)));
    Ok(Pool { subnet, gateway, range, reserved: reserved.collect::<Result<_, Error>>()?, asked: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> CreateNetworkRequest {
        CreateNetworkRequest { name: name.into(), ..CreateNetworkRequest::default() }
    }

    fn with_pool(subnet: &str, ip_range: &str, gateway: &str) -> Result<Draft, Error> {
        let pool = AddressPool {
            subnet: subnet.into(),
            ip_range: ip_range.into(),
            gateway: gateway.into(),
            ..AddressPool::default()
        };
        Definition::draft(CreateNetworkRequest { pools: vec![pool], ipv6: subnet.contains(':'), ..asked("n") })
    }

    #[test]
    fn a_plain_one() {
        let Draft { definition, choose_v4, choose_v6 } = Definition::draft(asked("front")).unwrap();
        assert!(choose_v4 && !choose_v6 && definition.icc() && definition.masquerade());
        assert_eq!(definition.interface, format!("br-{}", &definition.id[..12]));
        assert_eq!((definition.inside(), definition.mtu()), ("eth", None));
        let text = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
    }

    #[test]
    fn pools() {
        let draft = with_pool("10.9.0.0/16", "10.9.8.0/24", "10.9.8.254").unwrap();
        let pool = draft.definition.v4.unwrap();
        assert_eq!((pool.gateway, pool.asked, draft.choose_v4), ([10, 9, 8, 254].into(), true, false));
        assert_eq!(with_pool("10.9.0.0/16", "", "").unwrap().definition.v4.unwrap().gateway.to_string(), "10.9.0.1");
        let six = with_pool("fd00:9::/64", "", "").unwrap();
        assert!(six.choose_v4 && !six.choose_v6);
        assert_eq!(six.definition.v6.unwrap().gateway.to_string(), "fd00:9::1");
        for (subnet, range, gateway) in [
            ("10.9.0.0/33", "", ""),
            ("10.9.0.1/16", "", ""),
            ("10.9.0.0/16", "10.8.0.0/24", ""),
            ("10.9.0.0/16", "x", ""),
            ("10.9.0.0/16", "", "10.8.0.1"),
            ("10.9.0.0/16", "", "10.9.255.255"),
            ("10.9.0.0/16", "", "fd00::1"),
        ] {
            assert!(with_pool(subnet, range, gateway).is_err(), "{subnet} {range} {gateway}");
        }
    }

    #[test]
    fn options_are_read_or_refused() {
        let with = |key: &str, value: &str| {
            let options = HashMap::from([(key.to_owned(), value.to_owned())]);
            Definition::draft(CreateNetworkRequest { options, ..asked("n") }).map(|draft| draft.definition)
        };
        assert_eq!(with(BRIDGE_NAME, "mine0").unwrap().interface, "mine0");
        assert!(!with(ICC, "false").unwrap().icc() && !with(MASQUERADE, "0").unwrap().masquerade());
        assert_eq!(with(MTU, "1400").unwrap().mtu(), Some(1400));
        assert_eq!(with(PREFIX, "net").unwrap().inside(), "net");
        with("my.own", "x").unwrap();
        with(IDLE[2].0, "nat").unwrap();
        for (key, value) in [
            (BRIDGE_NAME, "a/b"),
            (BRIDGE_NAME, "sixteen-letters-"),
            (ICC, "maybe"),
            (MTU, "7"),
            (HOST_BINDING, "x"),
            (IDLE[2].0, "routed"),
            ("com.docker.network.bridge.inhibit_ipv4", "true"),
        ] {
            assert!(with(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn names_and_drivers() {
        for name in ["", "-a", "a b", "a/b", "host", "none", "bridge", "default", "ü"] {
            assert!(Definition::draft(asked(name)).is_err(), "{name}");
        }
        let driver =
            |driver: &str| Definition::draft(CreateNetworkRequest { driver: driver.into(), ..asked("n") }).map(|_| ());
        driver("bridge").unwrap();
        assert_eq!(driver("host").unwrap_err().to_string(), "only one instance of \"host\" network is allowed");
        assert!(driver("overlay").is_err());
        let neither = CreateNetworkRequest { ipv4: Some(false), ..asked("n") };
        assert!(Definition::draft(neither).is_err());
    }
}

//! What is in the table. Chains and rules never change; a published port is an element of one of two maps.
//!
//! Another table's chain that drops forwarded packets cannot be overruled from here: in nf_tables a packet must be
//! accepted by every chain. A host with such a policy needs a rule of its own for the bridge.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::{
    expression::{Family, Rule, Verdict, link_name},
    message::{Attributes, Batch, Verb},
    rules::{Bridges, Redirects, Target, Traffic},
};
use crate::network::{ports::HostPort, subnet::Subnet};

/// All of our bridges.
const BRIDGES: &str = "bridges";
/// Those that nothing passes.
const INTERNAL: &str = "internal";
/// Those whose packets get the host's address.
const MASQUERADED: &str = "masqueraded";
/// Each bridge with itself.
const WITHIN: &str = "within";
/// Each bridge with its subnet, by family: who sends from there by the bridge sends to its own network. Where bridges pass
/// their packets through the firewall, what they redirect within never had a link that it arrived on.
const OWN: [(&str, Family); 2] = [("own", Family::V4), ("own6", Family::V6)];
/// Follows the maps.
const PUBLISH: &str = "publish";

/// `NFT_SET_MAP`
const MAP: u32 = 1 << 3;
/// `NFT_SET_INTERVAL`, `NFT_SET_CONCAT`
const INTERVALS: u32 = 1 << 2 | 1 << 7;
/// nft's numbers for types, of which six bits each make up a concatenation's: how `nft list` knows what is in it.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const IFNAME: u32 = 41;
/// A note for nft, that it may show names of links: the keys are in the host's byte order.
const HOST_ORDER: &[u8] = if cfg!(target_endian = "big") { &[0, 4, 0, 0, 0, 1] } else { &[0, 4, 1, 0, 0, 0] };
/// An attribute holds 64 KiB; an element is a tenth of a KiB.
const ELEMENTS: usize = 500;

/// A map of published ports: by family, and for one address of the host's or for all.
struct Published {
    name: &'static str,
    family: Family,
    by_address: bool,
}

/// protocol . port → address . port, for every address of the host's; and the same with the address in front.
const PUBLISHED: [Published; 4] = [
    Published { name: "published_on", family: Family::V4, by_address: true },
    Published { name: "published", family: Family::V4, by_address: false },
    Published { name: "published_on6", family: Family::V6, by_address: true },
    Published { name: "published6", family: Family::V6, by_address: false },
];

impl Published {
    fn is_for(&self, host: HostPort) -> bool {
        let family = if host.address.is_ipv4() { Family::V4 } else { Family::V6 };
        self.family == family && self.by_address != host.address.is_unspecified()
    }
}

/// Where a chain hangs (`NF_INET_*`), and when it comes.
struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

const ARRIVING_FIRST: Hook = Hook { kind: "filter", number: 0, priority: -300 };
const ARRIVING: Hook = Hook { kind: "nat", number: 0, priority: -100 };
const FORWARDED: Hook = Hook { kind: "filter", number: 2, priority: 0 };
const LOCAL: Hook = Hook { kind: "nat", number: 3, priority: -100 };
const LEAVING: Hook = Hook { kind: "nat", number: 4, priority: 100 };

/// Adds a bridge that is there already, which changes nothing; refused where the table is not there.
pub(super) fn touch(batch: &mut Batch<'_>, table: &str, bridge: &str) {
    add(batch, table, Verb::NewElements, BRIDGES, &[Attributes::default().value(1, &link_name(bridge))]);
}

/// Replaces the whole table, whatever was in it.
pub(super) fn replace(batch: &mut Batch<'_>, name: &str, bridges: &Bridges, redirects: &Redirects) {
    let table = Attributes::default().text(1, name);
    // Deleting one that is not there would be refused, making one that is there is not.
    batch.push(Verb::NewTable, NLM_F_CREATE, &table);
    batch.push(Verb::DeleteTable, 0, &table);
    batch.push(Verb::NewTable, NLM_F_CREATE, &table);
    set(batch, name, BRIDGES, 1, &[IFNAME], &[]);
    set(batch, name, INTERNAL, 2, &[IFNAME], &[]);
    set(batch, name, MASQUERADED, 3, &[IFNAME], &[]);
    set(batch, name, WITHIN, 4, &[IFNAME, IFNAME], &[]);
    for ((own, family), id) in OWN.into_iter().zip(9..) {
        set(batch, name, own, id, &[address_type(family), IFNAME], &[]);
    }
    for (map, id) in PUBLISHED.iter().zip(5..) {
        let address = address_type(map.family);
        let key = [address, INET_PROTO, INET_SERVICE];
        set(batch, name, map.name, id, if map.by_address { &key } else { &key[1..] }, &[address, INET_SERVICE]);
    }
    chain(batch, name, PUBLISH, None);
    for map in &PUBLISHED {
        rule(batch, name, PUBLISH, &Rule::new().redirect(map.name, map.family, map.by_address));
    }
    let loopback = Subnet::LOOPBACK;

    // The bridges let loopback addresses through (`route_localnet`); none may come from a container.
    chain(batch, name, "arriving_first", Some(&ARRIVING_FIRST));
    let martian = Rule::new().input(BRIDGES).destination(loopback).verdict(Verdict::Drop);
    rule(batch, name, "arriving_first", &martian);

    // A neighbour's packet to 127.0.0.1 must not be redirected before the kernel sees how wrong it is.
    chain(batch, name, "arriving", Some(&ARRIVING));
    let martian = Rule::new().not_by("lo").destination(loopback).verdict(Verdict::Return);
    rule(batch, name, "arriving", &martian);
    chain(batch, name, "local", Some(&LOCAL));
    for chain in ["arriving", "local"] {
        rule(batch, name, chain, &Rule::new().local_destination().verdict(Verdict::Jump(PUBLISH)));
    }

    chain(batch, name, "leaving", Some(&LEAVING));
    // What a container sends to another's published port must be answered by way of the host.
    for (own, family) in OWN {
        let hairpin = Rule::new().own(own, family).redirected().masquerade();
        rule(batch, name, "leaving", &hairpin);
    }
    let stays = Rule::new().between(WITHIN).verdict(Verdict::Return);
    let outward = Rule::new().input(MASQUERADED).masquerade();
    let from_loopback = Rule::new().source(loopback).output(BRIDGES).masquerade();
    for leaving in [stays, outward, from_loopback] {
        rule(batch, name, "leaving", &leaving);
    }

    // From elsewhere, another bridge too, only published ports are reached, also by those who route to a bridge's subnet.
    chain(batch, name, "forwarded", Some(&FORWARDED));
    let towards = || Rule::new().output(BRIDGES);
    for forwarded in [
        Rule::new().between(WITHIN).verdict(Verdict::Accept),
        Rule::new().input(INTERNAL).verdict(Verdict::Drop),
        Rule::new().output(INTERNAL).verdict(Verdict::Drop),
        towards().known().verdict(Verdict::Accept),
        towards().redirected().verdict(Verdict::Accept),
        towards().verdict(Verdict::Drop),
    ] {
        rule(batch, name, "forwarded", &forwarded);
    }

    for (bridge, traffic) in bridges {
        self::bridge(batch, name, Verb::NewElements, bridge, traffic);
    }
    let all: Vec<_> = redirects.iter().map(|(host, target)| (*host, Some(*target))).collect();
    elements(batch, name, Verb::NewElements, &all);
}

/// Adds a bridge to the sets that it belongs to, or takes it away.
pub(super) fn bridge(batch: &mut Batch<'_>, table: &str, verb: Verb, name: &str, traffic: &Traffic) {
    let link = link_name(name);
    let sets = [(BRIDGES, true), (INTERNAL, traffic.internal), (MASQUERADED, traffic.masquerade)];
    for (set, _) in sets.into_iter().filter(|(_, belongs)| *belongs) {
        add(batch, table, verb, set, &[Attributes::default().value(1, &link)]);
    }
    add(batch, table, verb, WITHIN, &[Attributes::default().value(1, &[link, link].concat())]);
    for (own, family) in OWN {
        for subnet in traffic.subnets.iter().filter(|subnet| subnet.is_ipv6() == (family == Family::V6)) {
            let key = |address| [octets(address), link.to_vec()].concat();
            let element = Attributes::default().value(1, &key(subnet.network())).value(10, &key(subnet.last_address()));
            add(batch, table, verb, own, &[element]);
        }
    }
}

/// Adds elements to the maps or, without targets, deletes them.
pub(super) fn elements(batch: &mut Batch<'_>, table: &str, verb: Verb, all: &[(HostPort, Option<Target>)]) {
    for map in &PUBLISHED {
        let of_map = all.iter().filter(|(host, _)| map.is_for(*host));
        let of_map: Vec<_> = of_map.map(|(host, target)| element(*host, *target)).collect();
        for some in of_map.chunks(ELEMENTS) {
            add(batch, table, verb, map.name, some);
        }
    }
}

fn add(batch: &mut Batch<'_>, table: &str, verb: Verb, set: &str, elements: &[Attributes]) {
    let list = elements.iter().fold(Attributes::default(), |list, element| list.element(element));
    let flags = if matches!(verb, Verb::NewElements) { NLM_F_CREATE } else { 0 };
    batch.push(verb, flags, &Attributes::default().text(1, table).text(2, set).nested(3, &list));
}

/// Each part of a key or value begins at a multiple of four bytes.
fn element(host: HostPort, target: Option<Target>) -> Attributes {
    let mut key = Vec::with_capacity(24);
    if !host.address.is_unspecified() {
        key.extend(octets(host.address));
    }
    key.extend([host.protocol.number(), 0, 0, 0]);
    key.extend(host.port.to_be_bytes());
    key.extend([0, 0]);
    let element = Attributes::default().value(1, &key);
    let Some(target) = target else { return element };
    let mut data = octets(target.address);
    data.extend(target.port.to_be_bytes());
    data.extend([0, 0]);
    element.value(2, &data)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn address_type(family: Family) -> u32 {
    if family == Family::V4 { IPV4_ADDR } else { IPV6_ADDR }
}

/// Bytes of a type within a key.
fn width(kind: u32) -> u32 {
    if matches!(kind, IFNAME | IPV6_ADDR) { 16 } else { 4 }
}

/// A set or, with data, a map. One of addresses and links has ranges in it.
fn set(batch: &mut Batch<'_>, table: &str, name: &str, id: u32, key: &[u32], data: &[u32]) {
    let concatenated = |types: &[u32]| types.iter().fold(0, |all, one| all << 6 | one);
    let bytes = |types: &[u32]| types.iter().map(|one| width(*one)).sum();
    let ranges = key.len() == 2 && key[0] != key[1] && key[1] == IFNAME;
    let flags = match (ranges, data) {
        (true, _) => INTERVALS,
        (false, []) => 0,
        (false, _) => MAP,
    };
    let mut attributes = Attributes::default()
        .text(1, table)
        .text(2, name)
        .number(3, flags)
        .number(4, concatenated(key))
        .number(5, bytes(key));
    if ranges {
        let field = |one: &u32| Attributes::default().number(1, width(*one));
        let fields = key.iter().fold(Attributes::default(), |list, one| list.element(&field(one)));
        attributes = attributes.nested(9, &Attributes::default().nested(2, &fields));
    }
    if key == [IFNAME] {
        attributes = attributes.bytes(13, HOST_ORDER);
    }
    if !data.is_empty() {
        attributes = attributes.number(6, concatenated(data)).number(7, bytes(data));
    }
    batch.push(Verb::NewSet, NLM_F_CREATE, &attributes.number(10, id));
}

fn chain(batch: &mut Batch<'_>, table: &str, name: &str, hook: Option<&Hook>) {
    let mut attributes = Attributes::default().text(1, table).text(3, name);
    if let Some(Hook { kind, number, priority }) = hook {
        let hook = Attributes::default().number(1, *number).number(2, *priority as u32);
        let accept = 1;
        attributes = attributes.nested(4, &hook).number(5, accept).text(7, kind);
    }
    batch.push(Verb::NewChain, NLM_F_CREATE, &attributes);
}

fn rule(batch: &mut Batch<'_>, table: &str, chain: &str, rule: &Rule) {
    let attributes = Attributes::default().text(1, table).text(2, chain).nested(4, rule.expressions());
    batch.push(Verb::NewRule, NLM_F_CREATE | NLM_F_APPEND, &attributes);
}

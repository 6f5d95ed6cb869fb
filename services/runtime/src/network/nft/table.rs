//! What is in the table. Chains and rules never change; a published port is an element of one of two maps.
//!
//! Another table's chain that drops forwarded packets cannot be overruled from here: in nf_tables a packet must be
//! accepted by every chain. A host with such a policy needs a rule of its own for the bridge.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::{
    expression::{Rule, Verdict},
    message::{Attributes, Batch, Verb},
    rules::{Redirects, Target},
};
use crate::network::{ports::HostPort, subnet::Subnet};

/// protocol . port → address . port, for every address of the host's.
const PUBLISHED: &str = "published";
/// address . protocol . port → address . port
const PUBLISHED_ON: &str = "published_on";
/// Follows both maps.
const PUBLISH: &str = "publish";

/// `NFT_SET_MAP`
const MAP: u32 = 1 << 3;
/// nft's numbers for types, of which six bits each make up a concatenation's: how `nft list` knows what is in it.
const IPV4_ADDR: u32 = 7;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
/// An attribute holds 64 KiB; an element is a tenth of a KiB.
const ELEMENTS: usize = 500;

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

/// Replaces the whole table, whatever was in it.
pub(super) fn replace(batch: &mut Batch<'_>, bridge: &str, subnet: Subnet, redirects: &Redirects) {
    let table = Attributes::default().text(1, bridge);
    // Deleting one that is not there would be refused, making one that is there is not.
    batch.push(Verb::NewTable, NLM_F_CREATE, &table);
    batch.push(Verb::DeleteTable, 0, &table);
    batch.push(Verb::NewTable, NLM_F_CREATE, &table);
    map(batch, bridge, PUBLISHED, 1, &[INET_PROTO, INET_SERVICE]);
    map(batch, bridge, PUBLISHED_ON, 2, &[IPV4_ADDR, INET_PROTO, INET_SERVICE]);
    chain(batch, bridge, PUBLISH, None);
    rule(batch, bridge, PUBLISH, &Rule::new().redirect(PUBLISHED_ON, true));
    rule(batch, bridge, PUBLISH, &Rule::new().redirect(PUBLISHED, false));
    let loopback = Subnet::LOOPBACK;

    // The bridge lets loopback addresses through (`route_localnet`); none may come from a container.
    chain(batch, bridge, "arriving_first", Some(&ARRIVING_FIRST));
    let martian = Rule::new().input(bridge, true).destination(loopback).verdict(Verdict::Drop);
    rule(batch, bridge, "arriving_first", &martian);

    // A neighbour's packet to 127.0.0.1 must not be redirected before the kernel sees how wrong it is.
    chain(batch, bridge, "arriving", Some(&ARRIVING));
    let martian = Rule::new().input("lo", false).destination(loopback).verdict(Verdict::Return);
    rule(batch, bridge, "arriving", &martian);
    for (name, hook) in [("arriving", None), ("local", Some(&LOCAL))] {
        if hook.is_some() {
            chain(batch, bridge, name, hook);
        }
        rule(batch, bridge, name, &Rule::new().local_destination().verdict(Verdict::Jump(PUBLISH)));
    }

    chain(batch, bridge, "leaving", Some(&LEAVING));
    let outward = Rule::new().source(subnet).output(bridge, false);
    // What a container sends to another's published port must be answered by way of the host.
    let hairpin = Rule::new().source(subnet).output(bridge, true).redirected();
    let from_loopback = Rule::new().source(loopback).output(bridge, true);
    for masqueraded in [outward, hairpin, from_loopback] {
        rule(batch, bridge, "leaving", &masqueraded.masquerade());
    }

    // From outside only published ports are reached, also by those who route to the bridge's subnet.
    chain(batch, bridge, "forwarded", Some(&FORWARDED));
    let towards = || Rule::new().output(bridge, true);
    rule(batch, bridge, "forwarded", &Rule::new().input(bridge, true).verdict(Verdict::Accept));
    rule(batch, bridge, "forwarded", &towards().known().verdict(Verdict::Accept));
    rule(batch, bridge, "forwarded", &towards().redirected().verdict(Verdict::Accept));
    rule(batch, bridge, "forwarded", &towards().verdict(Verdict::Drop));

    let all: Vec<_> = redirects.iter().map(|(host, target)| (*host, Some(*target))).collect();
    elements(batch, bridge, Verb::NewElements, &all);
}

/// Adds elements to the maps or, without targets, deletes them.
pub(super) fn elements(batch: &mut Batch<'_>, bridge: &str, verb: Verb, all: &[(HostPort, Option<Target>)]) {
    for (map, any) in [(PUBLISHED, true), (PUBLISHED_ON, false)] {
        let of_map: Vec<_> = all.iter().filter(|(host, _)| host.address.is_unspecified() == any).collect();
        for some in of_map.chunks(ELEMENTS) {
            let list =
                some.iter().fold(Attributes::default(), |list, (host, target)| list.element(&element(*host, *target)));
            let flags = if matches!(verb, Verb::NewElements) { NLM_F_CREATE } else { 0 };
            batch.push(verb, flags, &Attributes::default().text(1, bridge).text(2, map).nested(3, &list));
        }
    }
}

/// Each part of a key or value begins at a multiple of four bytes.
fn element(host: HostPort, target: Option<Target>) -> Attributes {
    let mut key = Vec::with_capacity(12);
    if !host.address.is_unspecified() {
        key.extend(host.address.octets());
    }
    key.extend([host.protocol.number(), 0, 0, 0]);
    key.extend(host.port.to_be_bytes());
    key.extend([0, 0]);
    let element = Attributes::default().value(1, &key);
    let Some(target) = target else { return element };
    let mut data = target.address.octets().to_vec();
    data.extend(target.port.to_be_bytes());
    data.extend([0, 0]);
    element.value(2, &data)
}

fn map(batch: &mut Batch<'_>, table: &str, name: &str, id: u32, key: &[u32]) {
    let concatenated = |types: &[u32]| types.iter().fold(0, |all, one| all << 6 | one);
    let data = [IPV4_ADDR, INET_SERVICE];
    let attributes = Attributes::default()
        .text(1, table)
        .text(2, name)
        .number(3, MAP)
        .number(4, concatenated(key))
        .number(5, 4 * key.len() as u32)
        .number(6, concatenated(&data))
        .number(7, 4 * data.len() as u32)
        .number(10, id);
    batch.push(Verb::NewSet, NLM_F_CREATE, &attributes);
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

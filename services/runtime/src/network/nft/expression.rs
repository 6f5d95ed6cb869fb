//! What a rule consists of: expressions that load something into registers, compare it, and decide.
//!
//! Registers: 1 is the first for a value of up to 16 bytes; the same space is numbered from 8 in steps of four bytes,
//! where the parts of a concatenated key lie one after the other.

use std::net::Ipv4Addr;

use super::message::Attributes;
use crate::network::subnet::Subnet;

/// A family of addresses that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// The registers after that of a value that begins with an address.
    fn after(self) -> (u32, u32) {
        match self {
            Self::V4 => (SECOND, THIRD),
            Self::V6 => (FIFTH, SIXTH),
        }
    }
}

/// The register that most things pass through.
const VALUE: u32 = 1;
/// Its second and third four bytes.
const SECOND: u32 = 9;
const THIRD: u32 = 10;
/// What comes after sixteen bytes.
const FIFTH: u32 = 12;
const SIXTH: u32 = 13;
/// The register that holds a verdict.
const VERDICT: u32 = 0;
/// `RTN_LOCAL`: an address of the host's.
const LOCAL: u32 = 2;
/// `IFNAMSIZ`
const NAME: usize = 16;

/// `IPS_DST_NAT` of a connection's status.
const REDIRECTED: u32 = 1 << 5;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and that of related ones.
const ESTABLISHED_RELATED: u32 = 1 << 1 | 1 << 2;

/// What happens to a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(&'static str),
}

/// A rule's expressions, in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule(Attributes);

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The list for `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn expressions(&self) -> &Attributes {
        &self.0
    }

    /// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
    fn expression(self, name: &str, data: &Attributes) -> Self {
        Self(self.0.element(&Attributes::default().text(1, name).nested(2, data)))
    }

    /// `meta`: 6 input name, 7 output name, 15 address family, 16 transport protocol.
    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", &Attributes::default().number(1, register).number(2, key))
    }

    fn compare(self, equal: bool, value: &[u8]) -> Self {
        let data = Attributes::default().number(1, VALUE).number(2, u32::from(!equal)).value(3, value);
        self.expression("cmp", &data)
    }

    /// Base 1 is the network header, 2 the transport header.
    fn payload(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        let data = Attributes::default().number(1, register).number(2, base).number(3, offset).number(4, length);
        self.expression("payload", &data)
    }

    fn ct(self, key: u32, any_of: u32) -> Self {
        let length = 4;
        let bits = Attributes::default().number(1, VALUE).number(2, VALUE).number(3, length);
        let bits = bits.value(4, &any_of.to_ne_bytes()).value(5, &0u32.to_ne_bytes());
        self.expression("ct", &Attributes::default().number(1, VALUE).number(2, key))
            .expression("bitwise", &bits)
            .compare(false, &0u32.to_ne_bytes())
    }

    /// Arriving on a link that is not this one.
    pub(super) fn not_by(self, name: &str) -> Self {
        self.meta(6, VALUE).compare(false, &link_name(name))
    }

    /// Arriving on a link of a set.
    pub(super) fn input(self, set: &str) -> Self {
        self.meta(6, VALUE).among(set)
    }

    /// Leaving by a link of a set.
    pub(super) fn output(self, set: &str) -> Self {
        self.meta(7, VALUE).among(set)
    }

    /// Arriving on one link and leaving by another (or the same), a pair that is in a set.
    pub(super) fn between(self, set: &str) -> Self {
        self.meta(6, VALUE).meta(7, FIFTH).among(set)
    }

    /// A source and the link that it leaves by, a pair that is in a set.
    pub(super) fn own(self, set: &str, family: Family) -> Self {
        let (offset, length) = if family == Family::V4 { (12, 4) } else { (8, 16) };
        self.family(family).payload(VALUE, 1, offset, length).meta(7, family.after().0).among(set)
    }

    fn among(self, set: &str) -> Self {
        self.expression("lookup", &Attributes::default().text(1, set).number(2, VALUE))
    }

    pub(super) fn family(self, family: Family) -> Self {
        self.meta(15, VALUE).compare(true, &[family.number()])
    }

    /// An IPv4 source within a subnet.
    pub(super) fn source(self, subnet: Subnet) -> Self {
        self.family(Family::V4).within(12, subnet)
    }

    /// An IPv4 destination within a subnet.
    pub(super) fn destination(self, subnet: Subnet) -> Self {
        self.family(Family::V4).within(16, subnet)
    }

    fn within(self, offset: u32, subnet: Subnet) -> Self {
        let bits = Attributes::default().number(1, VALUE).number(2, VALUE).number(3, 4);
        let bits = bits.value(4, &subnet.mask().octets()).value(5, &Ipv4Addr::UNSPECIFIED.octets());
        let network = crate::network::subnet::number(subnet.network()) as u32;
        self.payload(VALUE, 1, offset, 4).expression("bitwise", &bits).compare(true, &network.to_be_bytes())
    }

    /// To an address of the host's own, as its routes say (`fib daddr type local`).
    pub(super) fn local_destination(self) -> Self {
        let data = Attributes::default().number(1, VALUE).number(2, 3).number(3, 1 << 1);
        self.expression("fib", &data).compare(true, &LOCAL.to_ne_bytes())
    }

    /// Of a connection that was seen in both directions, or that belongs to one.
    pub(super) fn known(self) -> Self {
        self.ct(0, ESTABLISHED_RELATED)
    }

    /// Of a connection whose destination was changed.
    pub(super) fn redirected(self) -> Self {
        self.ct(2, REDIRECTED)
    }

    /// Sends it to the address and port that a map has for protocol and destination port, or, `by_address`, for
    /// destination address, protocol and destination port. Without an entry the rule ends.
    pub(super) fn redirect(self, map: &str, family: Family, by_address: bool) -> Self {
        let (second, third) = family.after();
        let loaded = if by_address {
            let (offset, length) = if family == Family::V4 { (16, 4) } else { (24, 16) };
            self.family(family).payload(VALUE, 1, offset, length).meta(16, second).payload(third, 2, 2, 2)
        } else {
            self.family(family).meta(16, VALUE).payload(SECOND, 2, 2, 2)
        };
        let lookup = Attributes::default().text(1, map).number(2, VALUE).number(3, VALUE);
        let number = family.number().into();
        let nat = Attributes::default().number(1, 1).number(2, number).number(3, VALUE).number(5, second);
        loaded.expression("lookup", &lookup).expression("nat", &nat)
    }

    /// Gives it the address of the link it leaves by.
    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", &Attributes::default())
    }

    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        let code = match verdict {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Jump(_) => -3_i32,
            Verdict::Return => -5,
        };
        let mut data = Attributes::default().number(1, code as u32);
        if let Verdict::Jump(chain) = verdict {
            data = data.text(2, chain);
        }
        let data = Attributes::default().number(1, VERDICT).nested(2, &Attributes::default().nested(2, &data));
        self.expression("immediate", &data)
    }
}

/// A link's name as sets and rules have it.
pub(super) fn link_name(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

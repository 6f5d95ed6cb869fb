//! nf_tables' messages: netlink attributes and the batch that makes several changes one transaction
//! (`linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`). Numbers in attributes are big-endian.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};

use crate::network::netlink::{Conversation, HEADER, Refused};

/// `NFNL_SUBSYS_NFTABLES`
const SUBSYSTEM: u16 = 10;
/// A table was deleted (`NFT_MSG_DELTABLE`).
pub(super) const DELETED_TABLE: u16 = SUBSYSTEM << 8 | 2;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NESTED: u16 = 1 << 15;
/// `NFPROTO_INET`: a table for IPv4 and IPv6 alike.
const FAMILY: u8 = 1;
/// `NFTA_LIST_ELEM`
const LIST_ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`
const VALUE: u16 = 1;

/// What a message does (`enum nf_tables_msg_types`).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Verb {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    NewRule = 6,
    NewSet = 9,
    NewElements = 12,
    DeleteElements = 14,
}

/// Attributes one after the other, each padded to four bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Names are bounded by the kernel, lists by `rules`; a longer value would be refused, not cut.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text with its end.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut value = value.as_bytes().to_vec();
        value.push(0);
        self.bytes(kind, &value)
    }

    pub(super) fn nested(self, kind: u16, value: &Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }

    /// `NFTA_DATA_VALUE` within an attribute.
    pub(super) fn value(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, &Self::default().bytes(VALUE, value))
    }

    pub(super) fn element(self, value: &Self) -> Self {
        self.nested(LIST_ELEMENT, value)
    }
}

/// Changes that the kernel makes all together or not at all.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    kernel: &'a mut Conversation,
    bytes: Vec<u8>,
    /// Where the last change begins.
    last: usize,
    sequence: u32,
}

impl<'a> Batch<'a> {
    pub(super) fn new(kernel: &'a mut Conversation) -> Self {
        let mut batch = Self { kernel, bytes: Vec::new(), last: 0, sequence: 0 };
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM, &Attributes::default());
        batch
    }

    /// Adds a change; `flags` besides REQUEST.
    pub(super) fn push(&mut self, verb: Verb, flags: u16, attributes: &Attributes) {
        self.last = self.bytes.len();
        self.message(SUBSYSTEM << 8 | verb as u16, flags, FAMILY, 0, attributes);
    }

    /// `struct nlmsghdr`, `struct nfgenmsg`, attributes.
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &Attributes) {
        self.sequence = self.kernel.next();
        // Four times smaller than 2^32: a batch is some thousand changes at most.
        let length = (HEADER + 4 + attributes.0.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(&attributes.0);
    }

    /// Makes the changes. The kernel answers for every one that it refuses, and for the last.
    pub(super) fn commit(mut self) -> Result<(), Refused> {
        let flags = self.last + 6;
        let asked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | NLM_F_ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        let last = self.sequence;
        self.message(BATCH_END, 0, 0, SUBSYSTEM, &Attributes::default());
        self.kernel.transact(&self.bytes, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nest() {
        let attributes = Attributes::default().text(1, "ab").value(3, &[7]);
        let expected: &[&[u8]] = &[
            &7u16.to_ne_bytes(),
            &1u16.to_ne_bytes(),
            b"ab\0\0",
            &12u16.to_ne_bytes(),
            &(3 | NESTED).to_ne_bytes(),
            &5u16.to_ne_bytes(),
            &VALUE.to_ne_bytes(),
            &[7, 0, 0, 0],
        ];
        assert_eq!(attributes.0, expected.concat());
    }
}

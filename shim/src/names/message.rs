//! Messages of the domain name system, as far as a container's name server must understand them: the question of a query,
//! and answers made of addresses and names. RFC 1035 section 4, RFC 3596, RFC 6891.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before the question.
pub(super) const HEADER: usize = 12;
/// What fits into a datagram where the client says nothing else.
const PLAIN: usize = 512;
/// What we tell clients that we take, and the most we send in one piece: no fragments.
const EDNS: u16 = 1232;
/// Seconds for which an answer may be kept: containers come and go.
const TTL: u32 = 10;

pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
pub(super) const ANY: u16 = 255;
const OPT: u16 = 41;
const INTERNET: u16 = 1;

/// Response codes.
pub(super) const FINE: u8 = 0;
pub(super) const MALFORMED: u8 = 1;
pub(super) const FAILURE: u8 = 2;
pub(super) const NOT_IMPLEMENTED: u8 = 4;
pub(super) const REFUSED: u8 = 5;

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// In lower case, with dots between the labels and none at the end. Bytes that no host's name has are escaped.
    pub(super) name: String,
    /// The record's type.
    pub(super) kind: u16,
    /// It is about the internet.
    pub(super) internet: bool,
    /// Where the question ends in the query.
    end: usize,
    /// Bytes that an answer may have in a datagram.
    pub(super) limit: usize,
    /// The client speaks EDNS.
    edns: bool,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// A question.
    Question(Question),
    /// To be answered with this code.
    Wrong(u8),
    /// To be answered with nothing: whoever answers answers starts a ring.
    Nothing,
}

/// Something to say in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
}

fn two(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// Reads a query.
pub(super) fn read(message: &[u8]) -> Query {
    if message.len() < HEADER || message[2] & 0x80 != 0 {
        return Query::Nothing;
    }
    if message[2] & 0x78 != 0 {
        return Query::Wrong(NOT_IMPLEMENTED);
    }
    question(message).map_or(Query::Wrong(MALFORMED), Query::Question)
}

fn question(message: &[u8]) -> Option<Question> {
    if two(message, 4)? != 1 {
        return None;
    }
    let (name, at) = name(message, HEADER)?;
    let (kind, class, end) = (two(message, at)?, two(message, at + 2)?, at + 4);
    let edns = (two(message, 6)?, two(message, 8)?) == (0, 0);
    let size = if edns { edns_size(message, end, two(message, 10)?) } else { None };
    let limit = size.map_or(PLAIN, |size| usize::from(size.min(EDNS)).max(PLAIN));
    Some(Question { name, kind, internet: class == INTERNET, end, limit, edns: size.is_some() })
}

/// A name that is not compressed: nothing before it could be pointed to.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (begin, mut name) = (at, String::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return (at - begin <= 255).then_some((name, at));
        }
        if length > 63 || at - begin > 255 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in message.get(at..at + length)? {
            match byte {
                b'.' | b'\\' => name.push_str(&format!("\\{byte:03}")),
                0x21..=0x7e => name.push(byte.to_ascii_lowercase().into()),
                _ => name.push_str(&format!("\\{byte:03}")),
            }
        }
        at += length;
    }
}

/// What the client can take, from the additional records.
fn edns_size(message: &[u8], mut at: usize, count: u16) -> Option<u16> {
    for _ in 0..count {
        at = match *message.get(at)? {
            0xc0.. => at + 2,
            _ => name(message, at)?.1,
        };
        if two(message, at)? == OPT {
            return two(message, at + 2);
        }
        at += 10 + usize::from(two(message, at + 8)?);
    }
    None
}

/// An answer without a question.
pub(super) fn refusal(query: &[u8], code: u8) -> Vec<u8> {
    let mut answer = query[..HEADER].to_vec();
    flag(&mut answer, code);
    answer[4..HEADER].fill(0);
    answer
}

fn flag(answer: &mut [u8], code: u8) {
    // A response with the query's operation and its wish for recursion, which is available.
    answer[2] = 0x80 | answer[2] & 0x79;
    answer[3] = 0x80 | code;
}

/// An answer of at most `limit` bytes; where more would have to be said, it says so.
pub(super) fn answer(query: &[u8], question: &Question, code: u8, records: &[Record], limit: usize) -> Vec<u8> {
    let mut answer = query[..question.end].to_vec();
    flag(&mut answer, code);
    answer[6..HEADER].fill(0);
    let room = limit.saturating_sub(if question.edns { 11 } else { 0 });
    let mut count: u16 = 0;
    for record in records {
        let (kind, data) = match record {
            Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Record::Name(name) => match labels(name) {
                Some(labels) => (PTR, labels),
                None => continue,
            },
        };
        if answer.len() + HEADER + data.len() > room || count == u16::MAX {
            // Truncated.
            answer[2] |= 0x02;
            break;
        }
        // The name is the question's.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(kind.to_be_bytes());
        answer.extend(INTERNET.to_be_bytes());
        answer.extend(TTL.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
        count += 1;
    }
    if code == FINE {
        // Authoritative.
        answer[2] |= 0x04;
    }
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    if question.edns {
        answer[11] = 1;
        answer.push(0);
        answer.extend(OPT.to_be_bytes());
        answer.extend(EDNS.to_be_bytes());
        answer.extend([0; 6]);
    }
    answer
}

fn labels(name: &str) -> Option<Vec<u8>> {
    let mut labels = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        labels.push(label.len() as u8);
        labels.extend(label.as_bytes());
    }
    labels.push(0);
    (labels.len() <= 255).then_some(labels)
}

/// The address that a reverse query is about.
pub(super) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(text) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0u8; 4];
        let mut parts = text.split('.');
        for byte in bytes.iter_mut().rev() {
            *byte = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then_some(Ipv4Addr::from(bytes).into());
    }
    let text = name.strip_suffix(".ip6.arpa")?;
    let (mut number, mut count) = (0u128, 0);
    for digit in text.rsplit('.') {
        if digit.len() != 1 || count == 32 {
            return None;
        }
        number = number << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
        count += 1;
    }
    (count == 32).then_some(Ipv6Addr::from(number).into())
}

/// Is this the answer to that query? Another one is somebody's attempt to lead us astray, or too late.
pub(super) fn answers(query: &[u8], question: &Question, answer: &[u8]) -> bool {
    answer.len() >= HEADER
        && answer[2] & 0x80 != 0
        && answer[..2] == query[..2]
        && (answer.get(HEADER..question.end).is_some_and(|a| a.eq_ignore_ascii_case(&query[HEADER..question.end]))
            // Who could not read the question cannot repeat it.
            || code(answer) != FINE && answer[4..6] == [0, 0])
}

/// The response code.
pub(super) fn code(answer: &[u8]) -> u8 {
    answer.get(3).map_or(FAILURE, |byte| byte & 0x0f)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query as resolvers send it.
    pub(in crate::names) fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(labels(name).unwrap());
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        query
    }

    fn asked(query: &[u8]) -> Question {
        match read(query) {
            Query::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_and_its_answer() {
        let query = query("Web.Example", A);
        let question = asked(&query);
        assert_eq!((question.name.as_str(), question.kind, question.limit), ("web.example", A, PLAIN));
        let records = [Record::Address("10.0.0.2".parse().unwrap()), Record::Address("fd00::2".parse().unwrap())];
        let answer = answer(&query, &question, FINE, &records, PLAIN);
        assert!(answers(&query, &question, &answer));
        assert_eq!(answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
        let first = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 10, 0, 0, 2];
        assert_eq!(answer[question.end..question.end + 16], first);
        assert_eq!(answer.len(), question.end + 16 + 28);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said() {
        let mut query = query("web", A);
        let records: Vec<_> = (0..100).map(|n| Record::Address(Ipv4Addr::new(10, 0, 0, n).into())).collect();
        let question = asked(&query);
        let short = answer(&query, &question, FINE, &records, question.limit);
        assert!(short.len() <= 512 && short[2] & 2 != 0);
        assert_eq!(two(&short, 6), Some(30));
        // With EDNS more fits, and the answer has it too.
        query[11] = 1;
        query.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let question = asked(&query);
        assert_eq!(question.limit, 1232);
        let long = answer(&query, &question, FINE, &records, question.limit);
        assert!(long.len() <= 1232 && long[11] == 1 && long[long.len() - 11..][..3] == [0, 0, 41]);
        let whole = answer(&query, &question, FINE, &records, 65535);
        assert!(whole[2] & 2 == 0 && two(&whole, 6) == Some(100));
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("2.0.0.10.in-addr.arpa"), Some("10.0.0.2".parse().unwrap()));
        let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse(six), Some("fd00::2".parse().unwrap()));
        for not in ["0.0.10.in-addr.arpa", "1.2.0.0.10.in-addr.arpa", "x.ip6.arpa", "in-addr.arpa", &six[2..]] {
            assert_eq!(reverse(not), None, "{not}");
        }
        let query = query("2.0.0.10.in-addr.arpa", PTR);
        let answer = answer(&query, &asked(&query), FINE, &[Record::Name("web.net".into())], PLAIN);
        assert!(answer.ends_with(b"\x03web\x03net\0"));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        assert_eq!(read(b"short"), Query::Nothing);
        let mut answer = query("a", A);
        answer[2] |= 0x80;
        assert_eq!(read(&answer), Query::Nothing);
        let mut notify = query("a", A);
        notify[2] = 0x20;
        assert_eq!(read(&notify), Query::Wrong(NOT_IMPLEMENTED));
        let mut none = query("a", A);
        none[5] = 0;
        assert_eq!(read(&none), Query::Wrong(MALFORMED));
        let whole = query("web.example", A);
        for length in HEADER..whole.len() {
            assert_eq!(read(&whole[..length]), Query::Wrong(MALFORMED), "{length}");
        }
        let mut pointer = query("a", A);
        pointer[HEADER] = 0xc0;
        assert_eq!(read(&pointer), Query::Wrong(MALFORMED));
        assert_eq!(refusal(&none, MALFORMED)[..], [0x12, 0x34, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn names_with_odd_bytes_are_nobodys() {
        let mut odd = query("a-b", A);
        odd[HEADER + 2] = b'.';
        assert_eq!(asked(&odd).name, "a\\046b");
    }

    proptest! {
        #[test]
        fn no_packet_does_harm(mut packet in proptest::collection::vec(any::<u8>(), 0..600), real in any::<bool>()) {
            // Half of them have a header that is looked behind.
            if real && packet.len() >= HEADER {
                packet[2..HEADER].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 3]);
            }
            match read(&packet) {
                Query::Question(question) => {
                    let records = [Record::Address(Ipv4Addr::LOCALHOST.into()), Record::Name(question.name.clone())];
                    let answer = answer(&packet, &question, FINE, &records, question.limit);
                    prop_assert!(answers(&packet, &question, &answer));
                    reverse(&question.name);
                }
                Query::Wrong(code) => prop_assert_eq!(refusal(&packet, code).len(), HEADER),
                Query::Nothing => {}
            }
        }

        #[test]
        fn a_changed_query_does_no_harm(at in 0usize..40, byte in any::<u8>(), cut in 0usize..41) {
            let mut packet = query("web.example.org", A);
            packet[11] = 1;
            packet.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
            packet.truncate(packet.len().saturating_sub(cut));
            if let Query::Question(question) = read(&packet) {
                let answer = answer(&packet, &question, FAILURE, &[], question.limit);
                prop_assert!(answer.len() <= question.limit);
            }
        }
    }
}

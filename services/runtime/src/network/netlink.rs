//! A conversation with the kernel over netlink: requests go out in one piece, and what the kernel says to each comes
//! back before the next is asked.
//!
//! The kernel handles a request within `sendmsg`, so every acknowledgement is waiting when that returns: nothing here
//! waits for an answer that may not come.

use std::{fmt, io};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// One datagram of a dump or of acknowledgements; the kernel makes none larger than 32 KiB.
const BUFFER: usize = 64 * 1024;

/// What the kernel did not do, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    /// `errno`
    pub(crate) code: i32,
    /// The kernel's own words, where it has some.
    text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.code);
        if self.text.is_empty() { write!(f, "{error}") } else { write!(f, "{error}: {}", self.text) }
    }
}

impl std::error::Error for Refused {}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self { code, text: String::new() },
            None => Self { code: libc::EPROTO, text: error.to_string() },
        }
    }
}

/// An open conversation, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    /// Begins to talk to one of the kernel's families (`NETLINK_ROUTE`, …).
    pub(crate) fn open(protocol: isize) -> Result<Self, Refused> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Begins to talk about links, addresses and routes.
    pub(crate) fn route() -> Result<Self, Refused> {
        Self::open(NETLINK_ROUTE)
    }

    /// The number for the next request.
    pub(crate) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends serialised requests, of which the one with the number `last` asks for an acknowledgement, and reads what
    /// the kernel says. The first refusal is the answer.
    pub(crate) fn transact(&mut self, requests: &[u8], last: u32) -> Result<(), Refused> {
        self.socket.send(requests, 0)?;
        let mut done = false;
        let mut refused = None;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            for message in Messages(&buffer) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                match refusal(message.payload) {
                    Some(no) => refused = refused.or(Some(no)),
                    None => done |= message.sequence == last,
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if done => Ok(()),
            None => Err(Refused { code: libc::EPROTO, text: "the kernel did not answer".into() }),
        }
    }

    /// Asks for several things about links, addresses and routes, in this order; `flags` besides REQUEST and ACK.
    pub(crate) fn ask(
        &mut self,
        requests: impl IntoIterator<Item = (RouteNetlinkMessage, u16)>,
    ) -> Result<(), Refused> {
        let mut bytes = Vec::new();
        for (request, flags) in requests {
            let sequence = self.next();
            bytes.extend(serialised(request, NLM_F_REQUEST | NLM_F_ACK | flags, sequence));
        }
        self.transact(&bytes, self.sequence)
    }

    /// Asks for a list.
    pub(crate) fn dump(&mut self, request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refused> {
        let sequence = self.next();
        self.socket.send(&serialised(request, NLM_F_REQUEST | NLM_F_DUMP, sequence), 0)?;
        let mut list = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            for message in Messages(&buffer) {
                let malformed = |error| Refused { code: libc::EPROTO, text: format!("{error}") };
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.whole).map_err(malformed)?.payload {
                    NetlinkPayload::InnerMessage(inner) => list.push(inner),
                    NetlinkPayload::Done(_) => return Ok(list),
                    NetlinkPayload::Error(_) => return Err(refusal(message.payload).unwrap_or_else(silent)),
                    _ => {}
                }
            }
        }
    }
}

/// Hears what the kernel tells everybody who listens, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Listens to a group of one of the kernel's families.
    pub(crate) fn open(protocol: isize, group: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.add_membership(group)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Waits until something is told; answers whether a message of this kind was among it, or may have been: what came
    /// faster than it was read is lost.
    pub(crate) fn hears(&mut self, kind: u16) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(Messages(&self.buffer).any(|message| message.kind == kind)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn silent() -> Refused {
    Refused { code: libc::EPROTO, text: "an acknowledgement where a list was asked for".into() }
}

fn serialised(request: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

/// The messages in one datagram; malformed bytes end them.
struct Messages<'a>(&'a [u8]);

struct Raw<'a> {
    kind: u16,
    sequence: u32,
    whole: &'a [u8],
    payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Iterator for Messages<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let whole = self.0.get(..length)?;
        let payload = whole.get(HEADER..)?;
        let raw = Raw { kind: u16_at(whole, 4)?, sequence: u32_at(whole, 8)?, whole, payload };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(raw)
    }
}

/// What an acknowledgement refuses; `None` for one that grants (`struct nlmsgerr` and its attributes).
fn refusal(payload: &[u8]) -> Option<Refused> {
    let code = u32_at(payload, 0).map_or(libc::EPROTO, |code| (code as i32).saturating_neg());
    if code == 0 {
        return None;
    }
    let mut attributes = payload.get(4 + HEADER..).unwrap_or_default();
    let mut text = String::new();
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let Some(value) = attributes.get(4..usize::from(length)) else { break };
        if kind == NLMSGERR_ATTR_MSG {
            text = String::from_utf8_lossy(value).trim_end_matches('\0').into();
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Refused { code, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_why() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend([8, 0, 1, 0]);
        payload.extend(b"no!\0");
        let refused = refusal(&payload).unwrap();
        assert_eq!((refused.code, refused.text.as_str()), (libc::EEXIST, "no!"));
        assert!(refusal(&[0; 20]).is_none());
    }

    #[test]
    fn malformed_datagrams_end() {
        assert_eq!(Messages(&[255; 40]).count(), 0);
        assert_eq!(Messages(&[0; 40]).count(), 0);
        assert_eq!(Messages(b"abc").count(), 0);
    }
}

//! The protocol of a bundle's attach socket: frames that carry a process's streams between the shim and the runtime
//! service.
//!
//! A frame is one byte that says what it is, four bytes of payload length (little endian, at most [`MAX_PAYLOAD`]), and
//! the payload. The client's first frame is [`Kind::Hello`]; the shim answers [`Kind::Attached`] and from then on sends
//! every byte the process prints, until both streams have ended ([`Kind::End`]). Each side may close at any time; the
//! process goes on.

use serde::{Deserialize, Serialize};

/// Payloads are no longer than this, so that either side can have one buffer for all.
pub const MAX_PAYLOAD: usize = 128 * 1024;
/// Bytes before the payload.
pub const HEADER: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: [`Hello`] as JSON.
    Hello = 1,
    /// Shim: [`Attached`] as JSON.
    Attached = 2,
    /// Client: bytes for standard input.
    Stdin = 3,
    /// Client: standard input ends.
    CloseStdin = 4,
    /// Client: columns and rows, two bytes each, little endian.
    Resize = 5,
    /// Shim: bytes from standard output (or the terminal).
    Stdout = 6,
    /// Shim: bytes from standard error.
    Stderr = 7,
    /// Shim: no more output will come.
    End = 8,
    /// Shim: why the client cannot attach, as text; the last frame.
    Refused = 9,
    /// Shim: this client was too slow and lost that many bytes (eight bytes, little endian).
    Lost = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Hello, Attached, Stdin, CloseStdin, Resize, Stdout, Stderr, End, Refused, Lost]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Which process's streams a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Exec ID; empty for the container's first process.
    pub exec_id: String,
    /// The client will send standard input.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error.
    pub stderr: bool,
}

/// What the client is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// The process has a terminal: everything comes as standard output.
    pub tty: bool,
}

/// The header of a frame with a payload of `len` bytes.
///
/// # Panics
/// `len` exceeds [`MAX_PAYLOAD`]; callers split what they send.
pub fn header(kind: Kind, len: usize) -> [u8; HEADER] {
    assert!(len <= MAX_PAYLOAD, "a frame's payload is split by its sender");
    let [a, b, c, d] = (len as u32).to_le_bytes();
    [kind as u8, a, b, c, d]
}

/// What a frame's header says.
///
/// # Errors
/// No such kind, or a payload that is too long: the peer speaks something else and the connection is to be closed.
pub fn parse(header: [u8; HEADER]) -> Result<(Kind, usize), Malformed> {
    let [kind, a, b, c, d] = header;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    match Kind::from_byte(kind) {
        Some(kind) if len <= MAX_PAYLOAD => Ok((kind, len)),
        _ => Err(Malformed { kind, len }),
    }
}

/// A header that no peer of ours sends.
#[derive(Debug, thiserror::Error)]
#[error("malformed frame on an attach socket: kind {kind}, {len} bytes")]
pub struct Malformed {
    kind: u8,
    len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back() {
        for (kind, len) in [(Kind::Hello, 0), (Kind::Stdout, MAX_PAYLOAD), (Kind::Lost, 8)] {
            assert_eq!(parse(header(kind, len)).unwrap(), (kind, len));
        }
    }

    #[test]
    fn refuses_other_protocols() {
        assert!(parse(*b"GET /").is_err());
        assert!(parse([6, 1, 0, 2, 0]).is_err(), "longer than a payload may be");
    }
}

//! A tar's header block (POSIX.1-1988 ustar, POSIX pax interchange format, and what GNU tar makes of it).

use std::io;

use rustix::fs::Timespec;

use super::{Segment, malformed};
use crate::layer::attributes::Attributes;

/// Headers and data come in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// A header whose sum is right.
#[derive(Debug)]
pub(super) struct Block([u8; BLOCK]);

impl Block {
    pub(super) fn new(bytes: [u8; BLOCK]) -> io::Result<Self> {
        let block = Self(bytes);
        let told = number(block.field(148, 8))?;
        // Old tars summed signed bytes.
        let (mut sum, mut signed) = (0_i64, 0_i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            sum += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        if told != sum && told != signed {
            return Err(malformed("a header's sum is wrong"));
        }
        Ok(block)
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        &self.0[at..at + length]
    }

    fn text(&self, at: usize, length: usize) -> &[u8] {
        let field = self.field(at, length);
        &field[..field.iter().position(|b| *b == 0).unwrap_or(length)]
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        let size = number(self.field(124, 12))?;
        // Room for the padding, so that no sum with it overflows.
        u64::try_from(size).map_err(|_| malformed("a size is negative"))
    }

    /// The name, with its beginning from the ustar header's second field for it.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let ustar = self.field(257, 6) == b"ustar\0";
        let prefix = self.text(345, 155);
        if !ustar || prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn attributes(&self) -> io::Result<Attributes> {
        let narrow = |at| u32::try_from(number(self.field(at, 8))?).map_err(|_| malformed("an owner is out of range"));
        Ok(Attributes {
            uid: narrow(108)?,
            gid: narrow(116)?,
            mode: (number(self.field(100, 8))? & 0o7777) as u32,
            modified: Timespec { tv_sec: number(self.field(136, 12))?, tv_nsec: 0 },
            xattrs: Vec::new(),
        })
    }

    pub(super) fn device(&self) -> io::Result<(u32, u32)> {
        if !matches!(self.kind(), b'3' | b'4') {
            return Ok((0, 0));
        }
        let part =
            |at| u32::try_from(number(self.field(at, 8))?).map_err(|_| malformed("a device's number is out of range"));
        Ok((part(329)?, part(337)?))
    }

    /// Reads the old GNU map's four places in the header; true where a block of more follows.
    pub(super) fn segments(&self, map: &mut Vec<Segment>) -> io::Result<bool> {
        segments(self.field(386, 96), map)?;
        Ok(self.0[482] != 0)
    }

    /// Bytes of an old GNU sparse file, holes included.
    pub(super) fn real_size(&self) -> io::Result<u64> {
        u64::try_from(number(self.field(483, 12))?).map_err(|_| malformed("a size is negative"))
    }
}

/// Reads a block of an old GNU map; true where one more follows.
pub(super) fn more_segments(block: &[u8; BLOCK], map: &mut Vec<Segment>) -> io::Result<bool> {
    segments(&block[..504], map)?;
    Ok(block[504] != 0)
}

fn segments(bytes: &[u8], map: &mut Vec<Segment>) -> io::Result<()> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let part = |field| u64::try_from(number(field)?).map_err(|_| malformed("a hole's place is negative"));
        map.push(Segment { offset: part(&pair[..12])?, size: part(&pair[12..])? });
    }
    Ok(())
}

/// Octal digits, or GNU's base 256, which a set highest bit announces. An empty field is zero.
fn number(field: &[u8]) -> io::Result<i64> {
    let fail = || malformed("a header's number is malformed");
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        // The second-highest bit is the sign.
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && !negative { byte & 0x3f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| fail());
    }
    let digits = field.split(|b| matches!(b, 0 | b' ')).find(|part| !part.is_empty()).unwrap_or(b"");
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + i64::from(digit - b'0')).ok_or_else(fail),
        _ => Err(fail()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_kinds() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(number(b"777777777777").unwrap(), (1 << 36) - 1);
        assert!(number(b"12x4").is_err());
        assert!(number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}

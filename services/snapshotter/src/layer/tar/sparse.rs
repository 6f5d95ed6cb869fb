//! Files with holes: a tar stores only what lies between them, and a map.

use std::io;

use super::{malformed, pax::decimal};

/// Data between two holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// What pax records say of a file with holes.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// The true name; the entry's own names a place for tars that know nothing of holes.
    pub(super) name: Option<Vec<u8>>,
    /// Bytes with the holes.
    pub(super) size: u64,
    /// The map; `None` where it is at the head of the data.
    pub(super) map: Option<Vec<Segment>>,
}

/// The segments follow each other, lie in the file, and are exactly the stored bytes.
pub(super) fn check(segments: &[Segment], stored: u64, size: u64) -> io::Result<()> {
    let (mut end, mut total) = (0, 0_u64);
    for segment in segments {
        let next = segment.offset.checked_add(segment.size);
        if segment.offset < end || next.is_none_or(|next| next > size) {
            return Err(malformed("the map of a file's holes contradicts itself"));
        }
        end = segment.offset + segment.size;
        total += segment.size;
    }
    if total != stored {
        return Err(malformed("the map of a file's holes does not fit its data"));
    }
    Ok(())
}

/// A map as lines of decimal numbers: how many segments, then offset and size of each.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    lines: usize,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.lines += bytes.iter().filter(|b| **b == b'\n').count();
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all lines that the first one promises are here.
    pub(super) fn complete(&self) -> io::Result<bool> {
        if self.lines == 0 {
            return Ok(false);
        }
        let count = self.numbers().next().flatten().and_then(|count| usize::try_from(count).ok());
        let lines = count.and_then(|count| count.checked_mul(2)).and_then(|lines| lines.checked_add(1));
        lines.map(|lines| self.lines >= lines).ok_or_else(|| malformed("the map of a file's holes is malformed"))
    }

    /// Call it when complete.
    pub(super) fn segments(&self) -> io::Result<Vec<Segment>> {
        let fail = || malformed("the map of a file's holes is malformed");
        let mut numbers = self.numbers();
        let count = numbers.next().flatten().ok_or_else(fail)?;
        let mut segments = Vec::new();
        for _ in 0..count {
            let mut next = || numbers.next().flatten().ok_or_else(fail);
            segments.push(Segment { offset: next()?, size: next()? });
        }
        Ok(segments)
    }

    fn numbers(&self) -> impl Iterator<Item = Option<u64>> {
        self.bytes.split(|b| *b == b'\n').map(decimal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_fit() {
        let segment = |offset, size| Segment { offset, size };
        assert!(check(&[segment(0, 5), segment(10, 5)], 10, 20).is_ok());
        assert!(check(&[segment(0, 5), segment(4, 5)], 10, 20).is_err());
        assert!(check(&[segment(18, 5)], 5, 20).is_err());
        assert!(check(&[segment(u64::MAX, 5)], 5, 20).is_err());
        assert!(check(&[segment(0, 5)], 6, 20).is_err());
    }

    #[test]
    fn lines_are_complete_when_the_first_says_so() {
        let mut lines = Lines::default();
        lines.push(b"2\n0\n5\n");
        assert!(!lines.complete().unwrap());
        lines.push(b"10\n7\n\0\0");
        assert!(lines.complete().unwrap());
        assert_eq!(lines.segments().unwrap()[1], Segment { offset: 10, size: 7 });
        let mut huge = Lines::default();
        huge.push(b"18446744073709551615\n");
        assert!(huge.complete().is_err());
    }
}

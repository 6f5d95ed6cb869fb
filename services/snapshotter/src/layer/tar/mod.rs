//! Reading a tar, entry by entry, as it streams by: v7, ustar, GNU (long names, sparse files) and POSIX pax; and writing
//! one.
//!
//! A tar is hostile input. Whatever it says, no more memory is used than [`EXTENSION`] allows for what describes one
//! entry, a file's data is handed on in the buffers it came in, and every number is checked before it is used.

mod header;
mod pax;
mod sparse;
pub(crate) mod write;

use std::io::{self, BufRead};

use header::{BLOCK, Block};
use pax::Records;
pub(crate) use sparse::Segment;

use super::attributes::Attributes;

/// Bytes that may describe one entry (long names, pax records, maps of holes).
const EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Directory,
    Character,
    Block,
    Fifo,
    /// Something that layers do not have; the byte that the header has for it.
    Other(u8),
}

/// One entry, before its data.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) attributes: Attributes,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Bytes of the file, holes included.
    pub(crate) size: u64,
    /// Where the data of a file with holes belongs; `None` for a file without.
    pub(crate) segments: Option<Vec<Segment>>,
}

/// A tar that is being read.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    source: R,
    /// Bytes of the current entry's data that are still to come, and of the padding after them.
    data: u64,
    padding: u64,
}

/// What cannot be read as a tar.
fn malformed(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, data: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive. What is left of the last one's data is passed over.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut name, mut link, mut records) = (None, None, Records::default());
        let mut described = false;
        loop {
            self.pass_over()?;
            let Some(block) = self.block()? else {
                return if described { Err(malformed("it ends before the entry that it describes")) } else { Ok(None) };
            };
            let size = block.size()?;
            match block.kind() {
                b'L' => name = Some(self.text(size)?),
                b'K' => link = Some(self.text(size)?),
                b'x' | b'X' => records = Records::parse(&self.extension(size)?)?,
                // Defaults for all that follows: no image tool writes them, and none obeys them.
                b'g' => {
                    self.expect(size)?;
                    continue;
                }
                _ => return self.entry(&block, name, link, records).map(Some),
            }
            described = true;
        }
    }

    fn entry(
        &mut self,
        block: &Block,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
        mut records: Records,
    ) -> io::Result<Entry> {
        let mut attributes = block.attributes()?;
        records.overrule(&mut attributes)?;
        let name = records.path.take().or(name).unwrap_or_else(|| block.name());
        let link = records.link.take().or(link).unwrap_or_else(|| block.link());
        let stored = records.size.unwrap_or(block.size()?);
        let kind = match block.kind() {
            b'0' | 0 | b'7' | b'S' if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let mut entry = Entry { name, kind, link, attributes, device: block.device()?, size: stored, segments: None };
        // Only files have data; what the size of another entry means, each tar knows differently.
        self.expect(if matches!(kind, Kind::File | Kind::Other(_)) { stored } else { 0 })?;
        if kind == Kind::File {
            if block.kind() == b'S' {
                let (map, size) = self.old_map(block)?;
                (entry.segments, entry.size) = (Some(map), size);
            } else if let Some(holes) = records.sparse.take() {
                entry.size = holes.size;
                if let Some(name) = holes.name {
                    entry.name = name;
                }
                entry.segments = Some(match holes.map {
                    Some(map) => map,
                    None => self.map_before_data()?,
                });
            }
            if let Some(segments) = &entry.segments {
                sparse::check(segments, self.data, entry.size)?;
            }
        }
        Ok(entry)
    }

    /// The current entry's data, handed on piece by piece as it lies in the source's buffers.
    pub(crate) fn data(&mut self, limit: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut left = limit.min(self.data);
        while left > 0 {
            let buffer = self.source.fill_buf()?;
            if buffer.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a file"));
            }
            let size = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            take(&buffer[..size])?;
            self.source.consume(size);
            left -= size as u64;
            self.data -= size as u64;
        }
        Ok(())
    }

    fn expect(&mut self, size: u64) -> io::Result<()> {
        if i64::try_from(size).is_err() {
            return Err(malformed("a size is out of range"));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn pass_over(&mut self) -> io::Result<()> {
        self.data(u64::MAX, |_| Ok(()))?;
        self.data = std::mem::take(&mut self.padding);
        // Some tools (umoci) leave out what follows the last file: its padding, and the end of the archive.
        if self.data > 0 && self.source.fill_buf()?.is_empty() {
            self.data = 0;
        }
        self.data(u64::MAX, |_| Ok(()))
    }

    /// The next header; `None` at the end, which is a block of zeros, or the end of the input between two entries.
    fn block(&mut self) -> io::Result<Option<Block>> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let bytes = self.bytes()?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        Block::new(bytes).map(Some)
    }

    fn bytes(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut bytes = [0; BLOCK];
        self.source.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it ends in the middle of a header"),
            _ => error,
        })?;
        Ok(bytes)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION {
            return Err(malformed(format!("{size} bytes describe one entry, more than {EXTENSION}")));
        }
        self.expect(size)?;
        let mut bytes = Vec::new();
        self.data(size, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// A GNU long name, which ends at its NUL.
    fn text(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.extension(size)?;
        bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
        Ok(bytes)
    }

    /// GNU's map of holes in the header, and in the blocks that may follow it.
    fn old_map(&mut self, block: &Block) -> io::Result<(Vec<Segment>, u64)> {
        let mut map = Vec::new();
        let mut more = block.segments(&mut map)?;
        while more {
            if map.len() as u64 * 24 > EXTENSION {
                return Err(malformed("the map of a file's holes is too large"));
            }
            more = header::more_segments(&self.bytes()?, &mut map)?;
        }
        Ok((map, block.real_size()?))
    }

    /// pax's map of holes (version 1.0): decimal numbers, a line each, at the head of the data, padded to a block.
    fn map_before_data(&mut self) -> io::Result<Vec<Segment>> {
        let mut map = sparse::Lines::default();
        while !map.complete()? {
            if self.data < BLOCK as u64 {
                return Err(malformed("the map of a file's holes is cut off"));
            }
            if map.bytes() as u64 > EXTENSION {
                return Err(malformed("the map of a file's holes is too large"));
            }
            let bytes = self.bytes()?;
            self.data -= BLOCK as u64;
            map.push(&bytes);
        }
        map.segments()
    }
}

#[cfg(test)]
mod tests;

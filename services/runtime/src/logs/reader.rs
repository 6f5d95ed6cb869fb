//! Reading a log from its beginning to wherever its writer is, through rotations.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use bytes::Bytes;

use super::{
    Lines, Query,
    files::{self, Opened},
    line::Line,
    seek::{self, LONGEST_LINE},
};
use crate::{
    container::record::Time,
    error::{Error, Result},
};

/// Bytes read at once.
const BLOCK: usize = 256 * 1024;
/// Messages are not larger, unless one line alone is.
const MESSAGE: usize = 64 * 1024;
/// Bytes of a time and what separates it.
const PREFIX: usize = 32;

/// What came of reading.
#[derive(Debug)]
pub(super) enum Batch {
    /// Each with the time of its last line.
    Lines(Vec<(Lines, Time)>),
    /// There is no more at the moment.
    AtTheEnd,
    /// Everything later is unwanted.
    Done,
}

/// See the module. Every call blocks for as long as the disk does.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    query: Query,
    current: Option<Opened>,
    offset: u64,
    /// Read and not yet taken apart: less than a line between calls.
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn open(path: PathBuf, query: Query) -> Result<Self> {
        let mut reader = Self { path, query, current: None, offset: 0, buffer: Vec::new() };
        if let Some(beginning) = seek::beginning(&reader.path, reader.query.tail, reader.query.since)? {
            reader.enter(beginning.file, beginning.offset)?;
        }
        Ok(reader)
    }

    fn enter(&mut self, mut opened: Opened, offset: u64) -> Result<()> {
        opened.file.seek(SeekFrom::Start(offset)).map_err(|source| self.failed(source))?;
        (self.current, self.offset) = (Some(opened), offset);
        self.buffer.clear();
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Io { what: "cannot read the log", path: self.path.clone(), source }
    }

    /// The next lines.
    pub(super) fn next(&mut self) -> Result<Batch> {
        loop {
            if self.current.is_none() {
                match files::open(&self.path, 0)? {
                    Some(opened) => self.enter(opened, 0)?,
                    None => return Ok(Batch::AtTheEnd),
                }
            }
            if self.fill()? == 0 {
                if self.go_on_to_the_next_file()? {
                    continue;
                }
                return Ok(Batch::AtTheEnd);
            }
            let mut lines = Composer::default();
            let done = self.take_lines(&mut lines);
            let lines = lines.finish();
            match (lines.is_empty(), done) {
                (false, _) => return Ok(Batch::Lines(lines)),
                (true, true) => return Ok(Batch::Done),
                (true, false) => {}
            }
        }
    }

    /// Reads a block; how many bytes came.
    fn fill(&mut self) -> Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        let before = self.buffer.len();
        self.buffer.resize(before + BLOCK, 0);
        let read = current.file.read(&mut self.buffer[before..]);
        self.buffer.truncate(before + read.as_ref().copied().unwrap_or(0));
        let read = read.map_err(|source| self.failed(source))?;
        self.offset += read as u64;
        Ok(read)
    }

    /// At the end of a file: whether there is more to read in it by now, or in a younger one.
    fn go_on_to_the_next_file(&mut self) -> Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        // In this order: once a file is no longer the youngest, nothing is added to it.
        let age = current.age(&self.path)?;
        let size = current.file.metadata().map_err(|source| self.failed(source))?.len();
        if size > self.offset {
            return Ok(true);
        }
        if age == Some(0) {
            // Shorter than what was read: it was begun anew.
            let anew = size < self.offset;
            if anew {
                self.current = None;
            }
            return Ok(anew);
        }
        let ages = files::ages(&self.path)?;
        let next = match age {
            Some(age) => ages.into_iter().rfind(|younger| *younger < age),
            // It was removed, and so may be others that were never read: the oldest that is there.
            None => ages.last().copied(),
        };
        let Some(next) = next else { return Ok(false) };
        let Some(opened) = files::open(&self.path, next)? else { return Ok(true) };
        // A rotation since it was looked for: look again, or a whole file would be passed over.
        if current.age(&self.path)? == age {
            self.enter(opened, 0)?;
        }
        Ok(true)
    }

    /// Takes whole lines out of the buffer. True where a line is later than everything that is wanted.
    fn take_lines(&mut self, lines: &mut Composer) -> bool {
        let mut start = 0;
        let mut done = false;
        while let Some(length) = self.buffer[start..].iter().position(|b| *b == b'\n') {
            let line = Line::parse(&self.buffer[start..start + length]);
            start += length + 1;
            let Some(line) = line else { continue };
            if self.query.until.is_some_and(|until| line.time > until) {
                done = true;
                break;
            }
            if self.query.since.is_some_and(|since| line.time < since) {
                continue;
            }
            lines.add(&line, &self.query);
        }
        self.buffer.drain(..start);
        if done {
            // The next call says so.
            self.query.stdout = false;
            self.query.stderr = false;
        } else if self.buffer.len() > LONGEST_LINE {
            // No line is that long: the file is damaged here, and memory is not to grow for it.
            self.buffer.clear();
        }
        done
    }
}

/// Puts neighbouring lines of one stream into one message.
#[derive(Debug, Default)]
struct Composer {
    done: Vec<(Lines, Time)>,
    open: Vec<u8>,
    last: Time,
    is_stderr: bool,
}

impl Composer {
    fn add(&mut self, line: &Line<'_>, query: &Query) {
        let is_stderr = line.parts.stream == "stderr";
        if !(if is_stderr { query.stderr } else { query.stdout }) {
            return;
        }
        if is_stderr != self.is_stderr || self.open.len() + line.parts.log.len() + PREFIX > MESSAGE {
            self.close();
            self.is_stderr = is_stderr;
        }
        if query.timestamps {
            line.write_time(&mut self.open);
            self.open.push(b' ');
        }
        if query.details {
            line.write_attributes(&mut self.open);
            self.open.push(b' ');
        }
        self.last = line.time;
        self.open.extend_from_slice(line.parts.log.as_bytes());
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.open));
            let lines = if self.is_stderr { Lines::Stderr(bytes) } else { Lines::Stdout(bytes) };
            self.done.push((lines, self.last));
        }
    }

    fn finish(mut self) -> Vec<(Lines, Time)> {
        self.close();
        self.done
    }
}

//! Where in a log to begin, without reading what comes before.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use super::{
    files::{self, Opened},
    line::Line,
};
use crate::{
    container::record::Time,
    error::{Error, Result},
};

const BLOCK: usize = 64 * 1024;
/// No line is longer: 16 KiB of output, each byte escaped in six, and the rest of the line.
pub(super) const LONGEST_LINE: usize = 256 * 1024;

/// A file and the offset of the first line to read in it.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) file: Opened,
    pub(super) offset: u64,
}

/// Where the oldest line that is wanted begins; `None` where there is no log at all.
pub(super) fn beginning(path: &Path, tail: Option<u64>, since: Option<Time>) -> Result<Option<Beginning>> {
    loop {
        let found = scan(path, tail, since)?;
        // A rotation meanwhile: files may have been looked at twice, or not at all.
        match found {
            Some((_, youngest)) if youngest.0.age(path)? != Some(youngest.1) => {}
            found => return Ok(found.map(|(beginning, _)| beginning)),
        }
    }
}

/// The beginning, and the youngest file with the age it had.
type Found = (Beginning, (Opened, usize));

fn scan(path: &Path, tail: Option<u64>, since: Option<Time>) -> Result<Option<Found>> {
    let failed = |source| Error::Io { what: "cannot read", path: path.into(), source };
    let mut missing = tail;
    let mut found = None;
    let mut youngest = None;
    for age in files::ages(path)? {
        let Some(opened) = files::open(path, age)? else { continue };
        if youngest.is_none() {
            youngest = Some((opened.again().map_err(failed)?, age));
        }
        let size = opened.file.metadata().map_err(failed)?.len();
        let by_tail = match &mut missing {
            None => 0,
            Some(lines) => {
                let (offset, left) = last_lines(&opened.file, size, *lines).map_err(failed)?;
                *lines = left;
                offset
            }
        };
        let by_time = match since {
            None => 0,
            Some(since) => first_since(&opened.file, size, since).map_err(failed)?,
        };
        let offset = by_tail.max(by_time);
        found = Some(Beginning { file: opened, offset });
        // Everything older is unwanted.
        if offset > 0 || missing == Some(0) {
            break;
        }
    }
    Ok(found.zip(youngest))
}

/// Offset of the last `lines` lines, and how many of them are in older files.
fn last_lines(file: &File, size: u64, lines: u64) -> io::Result<(u64, u64)> {
    if lines == 0 || size == 0 {
        return Ok((size, lines));
    }
    let mut block = vec![0; BLOCK];
    // What comes after the last line feed is a line that is not whole yet, or never will be.
    let (mut end, mut found, mut whole) = (size, 0, false);
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The last line's own line feed begins nothing.
            if !std::mem::replace(&mut whole, true) {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok((start + at as u64 + 1, 0));
            }
        }
        end = start;
    }
    Ok((0, lines - found - u64::from(whole)))
}

/// Offset of the first line that is not earlier, by halving: a log's lines are in the order of their times.
fn first_since(file: &File, size: u64, since: Time) -> io::Result<u64> {
    let (mut low, mut high) = (0, size);
    // Below this, reading through costs no more than looking for it.
    while high - low > LONGEST_LINE as u64 {
        let middle = low + (high - low) / 2;
        match line_after(file, middle, high)? {
            Some((start, time)) if time < since => low = start,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first whole line that begins after an offset, and its time.
fn line_after(file: &File, offset: u64, end: u64) -> io::Result<Option<(u64, Time)>> {
    let mut block = vec![0; LONGEST_LINE.min((end - offset) as usize)];
    file.read_exact_at(&mut block, offset)?;
    let mut at = match block.iter().position(|b| *b == b'\n') {
        Some(at) => at + 1,
        None => return Ok(None),
    };
    while let Some(length) = block[at..].iter().position(|b| *b == b'\n') {
        if let Some(line) = Line::parse(&block[at..at + length]) {
            return Ok(Some((offset + at as u64, line.time)));
        }
        at += length + 1;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn counts_lines_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        let last = |lines| last_lines(&file(text), text.len() as u64, lines).unwrap();
        assert_eq!(last(0), (14, 0));
        assert_eq!(last(1), (8, 0));
        assert_eq!(last(2), (4, 0));
        assert_eq!(last(3), (0, 0));
        assert_eq!(last(5), (0, 2), "two more are in older files");
        assert_eq!(last_lines(&file(b""), 0, 2).unwrap(), (0, 2));
        assert_eq!(last_lines(&file(b"one\ntwo\nto"), 10, 1).unwrap(), (4, 0), "a torn line is none");
        assert_eq!(last_lines(&file(b"to"), 2, 1).unwrap(), (0, 1));
        let long = b"x\n".repeat(BLOCK);
        assert_eq!(last_lines(&file(&long), long.len() as u64, 40_000).unwrap().0, long.len() as u64 - 80_000);
    }

    #[test]
    fn finds_a_moment_by_halving() {
        let mut text = Vec::new();
        let mut starts = Vec::new();
        for n in 0..30_000u64 {
            starts.push(text.len() as u64);
            let time = Time(n * 1_000_000_000).rfc3339();
            writeln!(text, r#"{{"log":"{n}\n","stream":"stdout","time":"{time}"}}"#).unwrap();
        }
        let log = file(&text);
        for n in [0, 1, 777, 15_000, 29_999] {
            let found = first_since(&log, text.len() as u64, Time(n * 1_000_000_000)).unwrap();
            let wanted = starts[n as usize];
            assert!(found <= wanted && wanted - found <= 2 * LONGEST_LINE as u64, "{n}: {found} {wanted}");
            assert!(starts.binary_search(&found).is_ok(), "a line begins there");
        }
    }
}

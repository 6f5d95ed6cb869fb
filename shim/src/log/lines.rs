//! From what a process prints to lines of the log.

use std::collections::BTreeMap;

use super::{
    Target,
    escape::{character, escape},
    stamp::{Stamp, now_ns},
};

/// Bytes of output after which a line is split, as Docker does.
const SPLIT: usize = 16 * 1024;
/// Bytes gathered before they are written.
const BATCH: usize = 64 * 1024;
/// Nanoseconds; a clock that goes back by more was set.
const SET_BACK: u64 = 1_000_000_000;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The log of a container.
#[derive(Debug)]
pub(crate) struct JsonLog {
    target: Target,
    stamp: Stamp,
    /// What comes between the text and the time of a line, for each stream.
    middles: [Vec<u8>; 2],
    /// The time of the last line.
    last_ns: u64,
    batch: Vec<u8>,
    /// The beginnings of lines that have not ended yet.
    begun: [Vec<u8>; 2],
}

impl JsonLog {
    /// An empty one, or the continuation of what is there.
    pub(crate) fn new(target: Target, attributes: &BTreeMap<String, String>) -> Self {
        let attributes = match attributes.is_empty() {
            true => String::new(),
            false => format!(",\"attrs\":{}", serde_json::json!(attributes)),
        };
        let middle = |stream| format!("\",\"stream\":\"{stream}\"{attributes},\"time\":\"").into_bytes();
        Self {
            target,
            stamp: Stamp::default(),
            middles: [middle("stdout"), middle("stderr")],
            last_ns: 0,
            batch: Vec::new(),
            begun: [Vec::new(), Vec::new()],
        }
    }

    /// Takes what was printed. Lines that ended are in the file when this returns.
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let mut begun = std::mem::take(&mut self.begun[stream as usize]);
        while !bytes.is_empty() {
            let room = SPLIT - begun.len();
            let window = &bytes[..bytes.len().min(room)];
            match memchr(window) {
                Some(end) => {
                    self.line(stream, &begun, &bytes[..=end]);
                    begun.clear();
                    bytes = &bytes[end + 1..];
                }
                None if window.len() < room => {
                    begun.extend_from_slice(window);
                    bytes = &[];
                }
                None => {
                    begun.extend_from_slice(window);
                    bytes = &bytes[room..];
                    // A character is not cut in two.
                    let cut = begun.len() - unfinished(&begun);
                    self.line(stream, &begun[..cut], &[]);
                    begun.drain(..cut);
                }
            }
        }
        if begun.is_empty() && begun.capacity() > 1024 {
            begun = Vec::new();
        }
        self.begun[stream as usize] = begun;
        self.flush();
    }

    /// The stream has ended: what is left of a line without its end is one too.
    pub(crate) fn end(&mut self, stream: Stream) {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if !begun.is_empty() {
            self.line(stream, &begun, &[]);
            self.flush();
        }
        self.batch = Vec::new();
    }

    fn line(&mut self, stream: Stream, begun: &[u8], rest: &[u8]) {
        if self.batch.len() as u64 >= self.target.room() || self.batch.len() >= BATCH {
            self.flush();
        }
        let out = &mut self.batch;
        out.extend_from_slice(b"{\"log\":\"");
        if rest.is_empty() || begun.is_empty() {
            escape(begun, out);
            escape(rest, out);
        } else {
            // A character may lie across the two.
            escape(&[begun, rest].concat(), out);
        }
        out.extend_from_slice(&self.middles[stream as usize]);
        // Each line has a time of its own, so that one can ask for what came since a line. A clock that is set back is
        // followed, all the same.
        let now = now_ns();
        self.last_ns = if now <= self.last_ns && self.last_ns - now < SET_BACK { self.last_ns + 1 } else { now };
        out.extend_from_slice(self.stamp.format(self.last_ns));
        out.extend_from_slice(b"\"}\n");
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.target.rotate_if_full();
        self.target.write(&self.batch);
        self.batch.clear();
        // Control characters grow sixfold; what they needed is not kept.
        self.batch.shrink_to(2 * BATCH);
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    // SAFETY: the slice is valid for its length, which is all that the call reads.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), libc::c_int::from(b'\n'), bytes.len()) };
    if found.is_null() { None } else { Some(found.addr() - bytes.as_ptr().addr()) }
}

/// How many bytes at the end may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let tail = &bytes[bytes.len() - back..];
        if tail[0] >= 0xc0 {
            return if character(tail) == 0 { back } else { 0 };
        }
        if tail[0] < 0x80 {
            return 0;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use berth_core::bundle::LogLine;

    use super::*;

    struct Written {
        directory: tempfile::TempDir,
        log: JsonLog,
    }

    fn log(max_size: u64) -> Written {
        let directory = tempfile::tempdir().unwrap();
        let log = JsonLog::new(Target::new(&directory.path().join("log"), max_size, 2), &BTreeMap::new());
        Written { directory, log }
    }

    impl Written {
        fn lines(&self) -> Vec<(String, String)> {
            let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            let line = |line: &str| {
                let line: LogLine<'_> = serde_json::from_str(line).unwrap();
                (line.log.into_owned(), line.stream.into_owned())
            };
            text.lines().map(line).collect()
        }
    }

    #[test]
    fn a_line_is_written_when_it_ends() {
        let mut written = log(0);
        written.log.write(Stream::Stdout, b"one\ntw");
        written.log.write(Stream::Stderr, b"err\n");
        assert_eq!(written.lines(), [("one\n".into(), "stdout".into()), ("err\n".into(), "stderr".into())]);
        written.log.write(Stream::Stdout, b"o\nthree");
        written.log.end(Stream::Stdout);
        let lines: Vec<_> = written.lines().into_iter().map(|line| line.0).collect();
        assert_eq!(lines, ["one\n", "err\n", "two\n", "three"]);
    }

    #[test]
    fn long_lines_are_split_and_no_character_is() {
        let mut written = log(0);
        let long = format!("{}é{}\n", "x".repeat(SPLIT - 1), "y".repeat(SPLIT));
        for piece in long.as_bytes().chunks(1000) {
            written.log.write(Stream::Stdout, piece);
        }
        let lines: Vec<_> = written.lines().into_iter().map(|line| line.0).collect();
        assert_eq!(lines.concat(), long);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [SPLIT - 1, SPLIT, 3]);
        let mut written = log(0);
        written.log.write(Stream::Stdout, &[&vec![b'x'; SPLIT][..], b"\n"].concat());
        assert_eq!(written.lines().len(), 2);
    }

    #[test]
    fn every_line_has_its_attributes_and_a_time_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let attributes = BTreeMap::from([("a".to_owned(), "\"b\"".to_owned())]);
        let mut log = JsonLog::new(Target::new(&path, 0, 1), &attributes);
        log.write(Stream::Stderr, &b"x\n".repeat(5000));
        let text = std::fs::read_to_string(path).unwrap();
        let mut last = String::new();
        for line in text.lines() {
            let line: LogLine<'_> = serde_json::from_str(line).unwrap();
            assert_eq!(line.attrs, attributes);
            assert!(*line.time > *last, "{last} {}", line.time);
            last = line.time.into_owned();
        }
    }

    #[test]
    fn files_are_full_by_whole_lines() {
        let mut written = log(300);
        for number in 0..9 {
            written.log.write(Stream::Stdout, format!("line {number}\n").repeat(3).as_bytes());
        }
        let size = |name: &str| std::fs::metadata(written.directory.path().join(name)).unwrap().len();
        assert!(size("log.1") >= 300 && size("log.1") < 500, "{}", size("log.1"));
        assert!(!written.lines().is_empty());
    }
}

//! One line of a log file.

use berth_core::bundle::LogLine;

use crate::container::record::Time;

/// A line whose time was read.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) parts: LogLine<'a>,
    pub(super) time: Time,
}

impl<'a> Line<'a> {
    /// Reads a line without its line feed; `None` where it is torn. What follows a torn beginning on one line (the shim
    /// died in the middle of it, and the next one wrote on) is found again.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let whole = |bytes: &'a [u8]| {
            let parts: LogLine<'a> = serde_json::from_slice(bytes).ok()?;
            let time = parts.time.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
            Some(Self { time: Time(u64::try_from(time).ok()?), parts })
        };
        const BEGINNING: &[u8] = br#"{"log":"#;
        whole(bytes).or_else(|| {
            let later = bytes.windows(BEGINNING.len()).rposition(|window| window == BEGINNING)?;
            whole(&bytes[later..])
        })
    }

    /// Its attributes as Docker prints them: `name=value`, joined by commas, each part as in the query of a URL.
    pub(super) fn write_attributes(&self, to: &mut Vec<u8>) {
        for (n, (name, value)) in self.parts.attrs.iter().enumerate() {
            if n > 0 {
                to.push(b',');
            }
            escape(name, to);
            to.push(b'=');
            escape(value, to);
        }
    }

    /// Its time with all nine digits, as Docker prints it.
    pub(super) fn write_time(&self, to: &mut Vec<u8>) {
        const LENGTH: usize = "2006-01-02T15:04:05.000000000Z".len();
        if self.parts.time.len() == LENGTH {
            to.extend_from_slice(self.parts.time.as_bytes());
        } else {
            to.extend_from_slice(self.time.rfc3339().as_bytes());
        }
    }
}

fn escape(text: &str, to: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => to.push(byte),
            b' ' => to.push(b'+'),
            _ => to.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_lines_as_docker_writes_them() {
        let text = br#"{"log":"a\u001b\"\n","stream":"stderr","time":"2026-01-02T03:04:05.5Z"}"#;
        let line = Line::parse(text).unwrap();
        assert_eq!((line.parts.log.as_ref(), line.parts.stream.as_ref()), ("a\u{1b}\"\n", "stderr"));
        let mut time = Vec::new();
        line.write_time(&mut time);
        assert_eq!(time, b"2026-01-02T03:04:05.500000000Z");
    }

    #[test]
    fn attributes_are_escaped() {
        let text =
            br#"{"log":"x\n","stream":"stdout","attrs":{"b":"1 2","a":"\u00e9,="},"time":"2026-01-02T03:04:05Z"}"#;
        let mut written = Vec::new();
        Line::parse(text).unwrap().write_attributes(&mut written);
        assert_eq!(written, b"a=%C3%A9%2C%3D,b=1+2");
    }

    #[test]
    fn a_torn_line_hides_nothing_behind_it() {
        assert!(Line::parse(br#"{"log":"a"#).is_none());
        let text = br#"{"log":"a{"log":"b\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}"#;
        assert_eq!(Line::parse(text).unwrap().parts.log, "b\n");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Line::parse(&bytes);
        }
    }
}

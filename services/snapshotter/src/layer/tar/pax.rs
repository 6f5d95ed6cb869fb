//! pax records: `LENGTH KEY=VALUE\n`, which overrule an entry's header (POSIX pax, "pax Extended Header").

use std::io;

use rustix::fs::Timespec;

use super::{
    malformed,
    sparse::{Holes, Segment},
};
use crate::layer::attributes::Attributes;

/// Holds an extended attribute, its name behind the dot.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the records before an entry say.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: Option<Holes>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<Timespec>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        let fail = || malformed("a pax record is malformed");
        let mut records = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(fail)?;
            let length = decimal(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(fail)?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(fail());
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(fail)?;
            records.take(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() || name.contains(&0) {
                return Err(malformed("an extended attribute has no proper name"));
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        let fail = || malformed(format!("the pax record {} is malformed", String::from_utf8_lossy(key)));
        let number = || decimal(value).ok_or_else(fail);
        let owner = || number().and_then(|n| u32::try_from(n).map_err(|_| fail()));
        // An empty value takes an earlier record back.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link = given.then(|| value.to_vec()),
            b"size" => self.size = if given { Some(number()?) } else { None },
            b"uid" => self.uid = if given { Some(owner()?) } else { None },
            b"gid" => self.gid = if given { Some(owner()?) } else { None },
            b"mtime" => self.modified = if given { Some(time(value).ok_or_else(fail)?) } else { None },
            b"GNU.sparse.name" => self.holes().name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.holes().size = number()?,
            b"GNU.sparse.map" => {
                let numbers: Vec<u64> =
                    value.split(|b| *b == b',').map(decimal).collect::<Option<_>>().ok_or_else(fail)?;
                let pairs = numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], size: pair[1] });
                self.holes().map = Some(pairs.collect());
            }
            b"GNU.sparse.offset" => {
                let offset = number()?;
                self.holes().map.get_or_insert_default().push(Segment { offset, size: 0 });
            }
            b"GNU.sparse.numbytes" => {
                let size = number()?;
                self.holes().map.as_mut().and_then(|map| map.last_mut()).ok_or_else(fail)?.size = size;
            }
            _ => {}
        }
        Ok(())
    }

    fn holes(&mut self) -> &mut Holes {
        self.sparse.get_or_insert_default()
    }

    /// Puts what the records say in the place of what the header says.
    pub(super) fn overrule(&mut self, attributes: &mut Attributes) -> io::Result<()> {
        attributes.uid = self.uid.unwrap_or(attributes.uid);
        attributes.gid = self.gid.unwrap_or(attributes.gid);
        attributes.modified = self.modified.unwrap_or(attributes.modified);
        attributes.xattrs = std::mem::take(&mut self.xattrs);
        Ok(())
    }
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with a fraction, before or after 1970.
fn time(text: &[u8]) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let point = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let mut seconds = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let mut nanoseconds = digits.fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    if negative {
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        let read = |text: &str| time(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(read("1700000000.123456789"), Some((1_700_000_000, 123_456_789)));
        assert_eq!(read("5.5"), Some((5, 500_000_000)));
        assert_eq!(read("5."), Some((5, 0)));
        assert_eq!(read("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(read("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(read("x"), None);
        assert_eq!(read("1.x"), None);
    }

    #[test]
    fn records_are_as_long_as_they_say() {
        assert_eq!(Records::parse(b"12 path=a=b\n").unwrap().path.unwrap(), b"a=b");
        assert_eq!(Records::parse(b"12 path=abc\n8 path=\n").unwrap().path, None);
        for wrong in ["", "x", "9", "99 path=a\n", "10 path=ab", "0 path=a\n", "5 a\nb\n", "11 path=abc\n"] {
            assert!(wrong.is_empty() || Records::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

//! Writing a tar: a ustar header for each entry, and pax records before it for what that has no room for (POSIX pax,
//! "pax Extended Header"). The same entry always gives the same bytes.

use std::io::Write as _;

use rustix::fs::Timespec;

use super::{Kind, header::BLOCK};
use crate::layer::attributes::Attributes;

/// Largest numbers of the header's fields: eleven and seven octal digits.
const WIDE: u64 = (1 << 33) - 1;
const NARROW: u64 = (1 << 21) - 1;
/// Bytes of a name in the header.
const NAME: usize = 100;
/// Two blocks of zeros.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The header's letter for it.
fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::SymbolicLink => b'2',
        Kind::Character => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
        Kind::Other(byte) => byte,
    }
}

/// An entry without its data.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) kind: Kind,
    /// Target of a link.
    pub(crate) link: &'a [u8],
    pub(crate) attributes: &'a Attributes,
    /// Bytes of data that follow.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
}

impl Head<'_> {
    /// Header and records.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Attributes { uid, gid, mode, modified, ref xattrs } = *self.attributes;
        let mut path = self.path.to_vec();
        if self.kind == Kind::Directory {
            path.push(b'/');
        }
        let mut records = Vec::new();
        if path.len() > NAME {
            record(&mut records, b"path", &path);
        }
        if self.link.len() > NAME {
            record(&mut records, b"linkpath", self.link);
        }
        for (key, value, most) in [("size", self.size, WIDE), ("uid", uid.into(), NARROW), ("gid", gid.into(), NARROW)]
        {
            if value > most {
                record(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(modified.tv_sec).ok().filter(|seconds| *seconds <= WIDE);
        if seconds.is_none() || modified.tv_nsec != 0 {
            record(&mut records, b"mtime", time(modified).as_bytes());
        }
        for (name, value) in xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let mut bytes = Vec::with_capacity(BLOCK * 3);
        if !records.is_empty() {
            let plain = Plain { mode: 0o644, size: records.len() as u64, ..Plain::default() };
            bytes.extend_from_slice(&plain.block(b"PaxHeaders", b"", b'x'));
            bytes.extend_from_slice(&records);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        let within = |value: u64, most: u64| if value > most { 0 } else { value };
        let plain = Plain {
            mode: mode.into(),
            uid: within(uid.into(), NARROW),
            gid: within(gid.into(), NARROW),
            size: within(self.size, WIDE),
            modified: seconds.unwrap_or(0),
            device: self.device,
        };
        bytes.extend_from_slice(&plain.block(&path, self.link, flag(self.kind)));
        bytes
    }
}

/// The numbers of a header, each small enough for its field.
#[derive(Default)]
struct Plain {
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    modified: u64,
    device: (u32, u32),
}

impl Plain {
    fn block(&self, path: &[u8], link: &[u8], flag: u8) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        text(&mut block[..NAME], path);
        octal(&mut block[100..108], self.mode);
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], self.modified);
        block[156] = flag;
        text(&mut block[157..257], link);
        text(&mut block[257..265], b"ustar\x0000");
        octal(&mut block[329..337], self.device.0.into());
        octal(&mut block[337..345], self.device.1.into());
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// As much as there is room for; the whole is in a record then.
fn text(field: &mut [u8], text: &[u8]) {
    let size = text.len().min(field.len());
    field[..size].copy_from_slice(&text[..size]);
}

/// Digits with leading zeros and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    // No value is too large for its field; one that were would lose its front.
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}

/// A record is as long as it says, the length itself included.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    // To memory.
    let _ = write!(records, "{length} ");
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Decimal seconds, before 1970 with a sign.
fn time(time: Timespec) -> String {
    let (mut seconds, mut nanoseconds) = (i128::from(time.tv_sec), i128::from(time.tv_nsec));
    let mut sign = "";
    if seconds < 0 {
        sign = "-";
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::Reader, *};

    fn attributes() -> Attributes {
        Attributes {
            uid: 1000,
            gid: 7,
            mode: 0o4755,
            modified: Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 },
            xattrs: Vec::new(),
        }
    }

    fn read(head: &Head<'_>) -> super::super::Entry {
        let bytes = [head.bytes(), END.to_vec()].concat();
        Reader::new(bytes.as_slice()).next().unwrap().unwrap()
    }

    fn head<'a>(path: &'a [u8], attributes: &'a Attributes) -> Head<'a> {
        Head { path, kind: Kind::File, link: b"", attributes, size: 0, device: (0, 0) }
    }

    #[test]
    fn what_fits_needs_no_records() {
        let attributes = attributes();
        let head = Head { kind: Kind::SymbolicLink, link: b"../there", ..head(b"a/b", &attributes) };
        assert_eq!(head.bytes().len(), BLOCK);
        let entry = read(&head);
        assert_eq!((entry.name.as_slice(), entry.link.as_slice()), (b"a/b".as_slice(), b"../there".as_slice()));
        assert_eq!((entry.attributes.uid, entry.attributes.gid, entry.attributes.mode), (1000, 7, 0o4755));
        let device = Head { kind: Kind::Block, link: b"", device: (259, 70_000), ..head };
        assert_eq!(read(&device).device, (259, 70_000));
    }

    #[test]
    fn what_does_not_fit_is_in_records() {
        let attributes = Attributes {
            uid: u32::MAX,
            modified: Timespec { tv_sec: -2, tv_nsec: 750_000_000 },
            xattrs: vec![(b"user.a".to_vec(), b"1\n\0=".to_vec()), (b"security.capability".to_vec(), vec![1; 20])],
            ..attributes()
        };
        let (path, link) = ([b'n'; 3000], [b'l'; 101]);
        let head = Head { kind: Kind::HardLink, link: &link, ..head(&path, &attributes) };
        let entry = read(&head);
        assert_eq!((entry.name.as_slice(), entry.link.as_slice()), (path.as_slice(), link.as_slice()));
        assert_eq!((entry.attributes.uid, entry.attributes.modified.tv_sec), (u32::MAX, -2));
        assert_eq!(entry.attributes.modified.tv_nsec, 750_000_000);
        assert_eq!(entry.attributes.xattrs, attributes.xattrs);
        let large = Head { kind: Kind::File, link: b"", size: 1 << 40, ..head };
        assert_eq!(Reader::new(large.bytes().as_slice()).next().unwrap().unwrap().size, 1 << 40);
    }

    #[test]
    fn lengths_of_records_count_themselves() {
        for size in 0..2000 {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; size]);
            let text = String::from_utf8(records.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), records.len().to_string());
        }
        assert_eq!(time(Timespec { tv_sec: -1, tv_nsec: 750_000_000 }), "-0.25");
        assert_eq!(time(Timespec { tv_sec: 5, tv_nsec: 0 }), "5");
        assert_eq!(time(Timespec { tv_sec: 10, tv_nsec: 1 }), "10.000000001");
    }
}

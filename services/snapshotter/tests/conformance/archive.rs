//! Tars as the tests want them, also those that no well-meaning library writes.

use std::io::Write as _;

use berth_core::Digest;
use flate2::{Compression, write::GzEncoder};
use tar::{EntryType, Header};

/// A tar being written. Entries belong to root, are of mode 0644 (directories 0755) and of 2001 unless changed.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// An entry with a header that may be changed. Names are written as they are.
    pub(crate) fn entry(mut self, kind: EntryType, name: &str, data: &[u8], change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if name.len() > 100 {
            self.long(EntryType::GNULongName, name);
        }
        let short = &name.as_bytes()[..name.len().min(100)];
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn long(&mut self, kind: EntryType, text: &str) {
        let mut header = Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64 + 1);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, [text.as_bytes(), b"\0"].concat().as_slice()).unwrap();
    }

    pub(crate) fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, name, data.as_ref(), |_| ())
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, b"", |_| ())
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    fn link(mut self, kind: EntryType, name: &str, target: &str) -> Self {
        if target.len() > 100 {
            self.long(EntryType::GNULongLink, target);
        }
        let short = target.as_bytes()[..target.len().min(100)].to_vec();
        self.entry(kind, name, b"", |header| header.as_old_mut().linkname[..short.len()].copy_from_slice(&short))
    }

    pub(crate) fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        self.entry(kind, name, b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// pax records for the entry that follows.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    pub(crate) fn layer(self) -> Layer {
        Layer::of(self.bytes())
    }
}

/// A layer: what is sent, and what it must unpack to.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: String,
}

impl Layer {
    /// A tar as it is.
    pub(crate) fn of(tar: Vec<u8>) -> Self {
        let diff_id = Digest::sha256(&tar).to_string();
        Self { blob: tar, diff_id }
    }

    /// The same layer, its blob otherwise.
    pub(crate) fn blob(self, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        Self { blob: change(&self.blob), diff_id: self.diff_id }
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

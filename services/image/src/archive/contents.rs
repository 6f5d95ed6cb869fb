//! An archive taken apart: each of its files under a number in a scratch directory, found by the name that the archive
//! gave it or by what is in it.

use std::{
    cell::Cell,
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use berth_core::{Digest, digest::Algorithm};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    error::{Error, readable},
    manifest,
    store::Blobs,
};

/// More files than any image has layers, documents and legacy copies.
const MAX_FILES: usize = 10_000;
const MAX_LINKS: usize = 8;
/// What may stand between two files: their headers, with long names and pax records.
const MAX_HEADERS: u64 = 4 << 20;

/// A file of the archive.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// The archive, taken apart.
#[derive(Debug)]
pub(super) struct Contents {
    directory: PathBuf,
    files: HashMap<String, Spooled>,
    /// Old archives name equal layers by links.
    links: HashMap<String, String>,
}

impl Drop for Contents {
    fn drop(&mut self) {
        // What became content was moved out. What stays behind here is swept at the next start.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Reads the whole stream into a scratch directory. Blocks.
pub(super) fn spool(blobs: &Blobs, data: mpsc::Receiver<Result<Bytes, Error>>) -> Result<Contents, Error> {
    let directory = blobs.scratch()?;
    let mut contents = Contents { directory, files: HashMap::new(), links: HashMap::new() };
    let mut stream = Incoming::new(data);
    let result = read_tar(&mut stream, &mut contents, blobs);
    // The caller's own failure explains the tar's.
    match stream.failure() {
        Some(failure) => Err(failure),
        None => result.map(|()| contents),
    }
}

fn read_tar(stream: &mut Incoming, contents: &mut Contents, blobs: &Blobs) -> Result<(), Error> {
    let malformed = |error: io::Error| Error::Archive(format!("it is no tar, or it is cut off: {error}"));
    let inflated = decompressed(stream)?;
    let budget = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = tar::Archive::new(Rationed { inner: inflated, budget: Rc::clone(&budget) });
    let mut any = false;
    let mut entries = archive.entries().map_err(malformed)?;
    loop {
        // The reader takes headers into memory, however long they say they are.
        budget.set(MAX_HEADERS);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(malformed)?;
        budget.set(u64::MAX);
        any = true;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if contents.files.len() >= MAX_FILES {
                    return Err(Error::Archive(format!("it has more than {MAX_FILES} files")));
                }
                if contents.files.contains_key(&name) || contents.links.contains_key(&name) {
                    return Err(Error::Archive(format!("it has {name:?} twice")));
                }
                let free = blobs.free()?;
                if entry.size() > free {
                    let (what, path) = (format!("the archive's {name:?}"), contents.directory.clone());
                    let (needed, free) = (readable(entry.size()), readable(free));
                    return Err(Error::NoSpace { what, path, needed, free });
                }
                let path = contents.directory.join(contents.files.len().to_string());
                let spooled = spool_file(&mut entry, path).map_err(|error| match error {
                    Spooling::Read(error) => malformed(error),
                    Spooling::Write(error, path) => Error::io("cannot write", path)(error),
                })?;
                contents.files.insert(name, spooled);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if contents.files.contains_key(&name) {
                    return Err(Error::Archive(format!("it has {name:?} twice")));
                }
                if let (Some(target), true) = (entry.link_name_bytes(), contents.links.len() < MAX_FILES) {
                    // A hard link's target counts from the archive's top, a symbolic link's from where it stands.
                    let hard = entry.header().entry_type() == tar::EntryType::Link;
                    let beside = if hard { Path::new("") } else { Path::new(&name).parent().unwrap_or(Path::new("")) };
                    let target = normal(beside, &String::from_utf8_lossy(&target));
                    contents.links.insert(name, target);
                }
            }
            _ => {}
        }
        io::copy(&mut entry, &mut io::sink()).map_err(malformed)?;
    }
    // To the end of the stream: what was cut off shows in the compression's own end.
    budget.set(u64::MAX);
    let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
    rest.map_err(malformed)?;
    if any { Ok(()) } else { Err(Error::Archive("it is empty".into())) }
}

/// Lets no more than a budget be read.
struct Rationed<R> {
    inner: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.get();
        if left == 0 {
            return Err(io::Error::other("its headers are too long"));
        }
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let size = self.inner.read(&mut buffer[..want])?;
        self.budget.set(left - size as u64);
        Ok(size)
    }
}

enum Spooling {
    Read(io::Error),
    Write(io::Error, PathBuf),
}

fn spool_file(entry: &mut impl Read, path: PathBuf) -> Result<Spooled, Spooling> {
    let failed = |error| Spooling::Write(error, path.clone());
    let mut file = File::create_new(&path).map_err(failed)?;
    let mut hasher = Algorithm::Sha256.hasher();
    let (mut size, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        let read = entry.read(&mut buffer).map_err(Spooling::Read)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(failed)?;
        size += read as u64;
    }
    Ok(Spooled { path, digest: hasher.finish(), size })
}

/// A stream without its compression.
pub(crate) fn decompressed<'a>(stream: &'a mut Incoming) -> Result<Box<dyn Read + 'a>, Error> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let malformed = |error: io::Error| Error::Archive(format!("it cannot be read: {error}"));
    let magic = stream.fill_buf().map_err(malformed)?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(stream).map_err(malformed)?))
    } else if magic.starts_with(b"\xfd7zXZ\0") {
        Err(Error::Archive("it is compressed with xz: `xz -dc FILE | berth load`".into()))
    } else if magic.starts_with(b"BZh") {
        Err(Error::Archive("it is compressed with bzip2: `bzip2 -dc FILE | berth load`".into()))
    } else {
        Ok(Box::new(stream))
    }
}

/// The archive as it arrives.
pub(crate) struct Incoming {
    data: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
    failure: Option<Error>,
}

impl Incoming {
    pub(crate) fn new(data: mpsc::Receiver<Result<Bytes, Error>>) -> Self {
        Self { data, current: Bytes::new(), failure: None }
    }

    /// Why the caller broke off.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.data.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the stream broke off"));
                }
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}

impl Contents {
    /// A file by the name that the archive gave it, perhaps through links within the archive.
    pub(super) fn file(&self, name: &str) -> Option<&Spooled> {
        let mut name = name.trim_start_matches("./").to_owned();
        for _ in 0..MAX_LINKS {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name.clone_from(self.links.get(&name)?);
        }
        None
    }

    /// A document.
    pub(super) fn read(&self, file: &Spooled) -> Result<Vec<u8>, Error> {
        if file.size > manifest::MAX_BYTES {
            return Err(Error::Archive("one of its documents is larger than 8 MiB".into()));
        }
        fs::read(&file.path).map_err(Error::io("cannot read", &file.path))
    }

    /// The file that has this content.
    pub(super) fn by_hash(&self, digest: &Digest) -> Option<&Spooled> {
        self.files.values().find(|file| file.digest == *digest)
    }

    fn by_digest(&self, digest: &Digest) -> Option<&Spooled> {
        self.file(&format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    /// A document of an OCI layout, which must be what its digest says.
    pub(super) fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.by_digest(digest) else { return Ok(None) };
        if file.digest != *digest {
            let (wanted, is) = (digest.to_string(), file.digest.to_string());
            return Err(Error::WrongDigest { what: "a blob of the archive".into(), wanted, is });
        }
        self.read(file).map(Some)
    }
}

/// A path beside another, as a key of the archive.
fn normal(directory: &Path, target: &str) -> String {
    let mut parts: Vec<&str> = directory.to_str().unwrap_or_default().split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

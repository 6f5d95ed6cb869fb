//! `cp`: files between a container and this host. Docker's rules decide what the destination means (docker/cli, `container
//! cp`): a directory that is there takes the source in, a file is replaced, and what is not there gets the name.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use berth_core::archive::{self, Beneath, Owner, Rename, Rules, split};
use berth_proto::berth::runtime::v1::{
    ReadFilesRequest, StatFileRequest, StatFileResponse, WriteFilesRequest, WriteFilesStart, stat_file_response::Kind,
    write_files_request::Message,
};
use bytes::{Buf as _, Bytes};
use clap::Arg;
use tokio::sync::mpsc;

use super::{each::print_bytes, upload::Upload};
use crate::{
    args::{Completes, Entry, Given, flag::switch},
    client::Client,
    format::units,
    outcome::Error,
    terminal::raw,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["cp", "container cp"],
    about: "Copy files between a container and this host",
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       berth cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    operands: (2, 2),
    flags,
    completes: Completes::Containers,
    run: |client, given| Box::pin(cp(client, given)),
    ..Entry::PLAIN
};

/// Pieces that wait.
const WAITING: usize = 4;

fn flags() -> Vec<Arg> {
    vec![
        switch("archive", "What is copied in belongs to the container's user").short('a'),
        switch("follow-link", "Copy what a link at SRC_PATH leads to").short('L'),
        switch("quiet", "Say nothing of what was copied").short('q'),
    ]
}

async fn cp(client: Client, given: Given) -> Result<u8, Error> {
    let operands = given.operands();
    let [source, destination] = operands.as_slice() else { return Err(Error::Contract("cp takes two operands")) };
    for (what, text) in [("source", source), ("destination", destination)] {
        if text.is_empty() {
            return Err(Error::Invalid(format!("{what} can not be empty")));
        }
    }
    let (size, shown) = match (container_of(source), container_of(destination)) {
        (Some(_), Some(_)) => return Err(Error::Invalid("copying between containers is not supported".into())),
        (None, None) => return Err(Error::Invalid("must specify at least one container source".into())),
        (Some((container, path)), None) => {
            if path.is_empty() {
                return Err(Error::Invalid("source path can not be empty".into()));
            }
            let Some(size) = take_out(&client, &given, container, path, destination).await? else { return Ok(0) };
            (size, absolute(destination).display().to_string())
        }
        (None, Some((container, path))) => put_in(&client, &given, source, container, path).await?,
    };
    // As Docker: silent where nobody watches, unless told otherwise.
    let quiet = if given.has("quiet") { given.on("quiet") } else { !raw::stdout_is_terminal() };
    if !quiet {
        let _ = writeln!(io::stderr(), "Successfully copied {} to {shown}", units::size(size));
    }
    Ok(0)
}

/// Container and path; `None` for a path of this host's.
fn container_of(text: &str) -> Option<(&str, &str)> {
    text.split_once(':')
        .filter(|(container, _)| !container.contains('/') && !container.starts_with('.') && !container.is_empty())
}

/// From the container: how many bytes, or `None` where they went to standard output.
async fn take_out(
    client: &Client,
    given: &Given,
    container: &str,
    path: &str,
    destination: &str,
) -> Result<Option<u64>, Error> {
    let to_stdout = destination == "-";
    if to_stdout && raw::stdout_is_terminal() {
        return Err(Error::Invalid("cowardly refusing to write a tar to a terminal: redirect it".into()));
    }
    if !to_stdout {
        check_output(destination)?;
    }
    let (mut path, mut name) = (path.to_owned(), split(&format!("/{path}")).1);
    if given.on("follow-link")
        && let Some((target, _)) = followed(client, container, &path).await?
    {
        // The name that was asked for stays: a slash means what the link leads to.
        path = if path.ends_with('/') { path } else { format!("{path}/") };
        let found = stat(client, container, &target).await?.kind();
        if found != Kind::Directory {
            path = target;
        }
    }
    let source = stat(client, container, &path).await?;
    let is_directory = source.kind() == Kind::Directory;
    let request = ReadFilesRequest { container: container.into(), path: path.clone() };
    let place = if to_stdout { None } else { Some(Place::find(destination, is_directory)?) };
    let mut answers = client.containers().await?.read_files(request).await?.into_inner();
    let Some(place) = place else {
        while let Some(answer) = answers.message().await? {
            print_bytes(&answer.data)?;
        }
        return Ok(None);
    };
    let contents = split(&format!("/{path}")).1 == ".";
    if name == "." && !contents {
        name = split(&format!("/{path}")).1;
    }
    let strip = usize::from(!contents);
    let to = place.name.clone().or((!contents).then(|| name.into()));
    let rules = Rules { beneath: Beneath::Within, owner: Owner::Caller, rename: to.map(|to| Rename { strip, to }) };
    let (sender, pieces) = mpsc::channel::<Bytes>(WAITING);
    let shown = destination.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || {
        let directory = File::open(&place.directory)?;
        let mut taken = Taken { pieces, now: Bytes::new() };
        archive::unpack(directory.as_fd(), Path::new(""), &mut taken, &rules)?;
        // What stands behind the tar's end is no more than padding.
        io::copy(&mut taken, &mut io::sink())
    });
    let mut size = 0;
    let mut failed = None;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                size += answer.data.len() as u64;
                if sender.send(answer.data).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(status) => {
                failed = Some(Error::from(status));
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|_| Error::Contract("unpacking panicked"))?;
    if let Some(error) = failed {
        return Err(error);
    }
    unpacked.map_err(Error::io(format!("cannot write to {shown}")))?;
    Ok(Some(size))
}

/// To the container: how many bytes, and where they went.
async fn put_in(
    client: &Client,
    given: &Given,
    source: &str,
    container: &str,
    path: &str,
) -> Result<(u64, String), Error> {
    let mut path = path.to_owned();
    let mut there = match stat(client, container, &path).await {
        Ok(found) => Some(found),
        Err(error) if error.is(berth_core::Kind::NotFound) && !no_container(&error) => None,
        Err(error) => return Err(error),
    };
    if there.as_ref().is_some_and(|found| found.kind() == Kind::Link)
        && let Some((target, found)) = followed(client, container, &path).await?
    {
        (path, there) = (target, found);
    }
    if there.as_ref().is_some_and(|found| found.kind() == Kind::Other) {
        return Err(Error::Invalid(format!(
            "destination \"{container}:{path}\" must be a directory or a regular file"
        )));
    }
    let is_directory = there.as_ref().is_some_and(|found| found.kind() == Kind::Directory);
    let counted = Arc::new(AtomicU64::new(0));
    let (tar, directory): (Box<dyn Read + Send>, String) = if source == "-" {
        if !is_directory {
            return Err(Error::Invalid(format!("destination \"{container}:{path}\" must be a directory")));
        }
        (Box::new(io::stdin()), path.clone())
    } else {
        let found = HostSource::find(source, given.on("follow-link"))?;
        let (above, base) = split(&format!("/{}", path.trim_start_matches('/')));
        let (directory, named) = match (&there, is_directory, found.is_directory) {
            (Some(_), true, _) => (path.clone(), found.named.clone()),
            (Some(_), false, true) => return Err(Error::Invalid("cannot copy directory".into())),
            (None, _, false) if path.ends_with('/') || path.ends_with("/.") => {
                return Err(Error::Invalid("no such directory".into()));
            }
            _ => (above, base.into()),
        };
        (Box::new(found.packed(named)?), directory)
    };
    let shown = format!("{container}:{path}");
    let start = WriteFilesStart { container: container.into(), path: directory, own: given.on("archive") };
    let request = |message| WriteFilesRequest { message: Some(message) };
    let tar = Counted { tar, counted: Arc::clone(&counted) };
    let (upload, requests) =
        Upload::begin(request(Message::Start(start)), tar, move |data| request(Message::Data(data)));
    let answer = client.containers().await?.write_files(requests).await;
    upload.end()?;
    answer?;
    Ok((counted.load(Ordering::Relaxed), shown))
}

async fn stat(client: &Client, container: &str, path: &str) -> Result<StatFileResponse, Error> {
    let request = StatFileRequest { container: container.into(), path: path.into() };
    Ok(client.containers().await?.stat_file(request).await?.into_inner())
}

fn no_container(error: &Error) -> bool {
    matches!(error, Error::Service(failure) if failure.reason == "CONTAINER_NOT_FOUND")
}

/// Where a link leads, from the container's root, and what is there; `None` where the path is no link.
async fn followed(
    client: &Client,
    container: &str,
    path: &str,
) -> Result<Option<(String, Option<StatFileResponse>)>, Error> {
    let found = stat(client, container, path).await?;
    if found.kind() != Kind::Link {
        return Ok(None);
    }
    let target = match found.link_target.starts_with('/') {
        true => found.link_target,
        false => format!("{}/{}", split(&format!("/{path}")).0, found.link_target),
    };
    match stat(client, container, &target).await {
        Ok(found) => Ok(Some((target, Some(found)))),
        Err(error) if error.is(berth_core::Kind::NotFound) => Ok(Some((target, None))),
        Err(error) => Err(error),
    }
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// Refuses what cannot take files.
fn check_output(destination: &str) -> Result<(), Error> {
    let (above, _) = split(destination);
    if !Path::new(&above).exists() {
        return Err(Error::Invalid(format!("invalid output path: directory {above:?} does not exist")));
    }
    match fs::metadata(destination) {
        Ok(found) if !found.is_dir() && !found.is_file() => {
            Err(Error::Invalid(format!("invalid output path: {destination:?} must be a directory or a regular file")))
        }
        _ => Ok(()),
    }
}

/// Where something from a container belongs on this host.
struct Place {
    directory: PathBuf,
    /// What it is called there, where it does not keep its name.
    name: Option<std::ffi::OsString>,
}

impl Place {
    fn find(destination: &str, is_directory: bool) -> Result<Self, Error> {
        let failed = || Error::io(format!("cannot write to {destination}"));
        // A link is followed to what it leads to, which need not be there.
        let mut path = destination.to_owned();
        for _ in 0..10 {
            let bare = path.trim_end_matches('/').to_owned();
            let Ok(target) = fs::read_link(&bare) else { break };
            let target = Path::new(&split(&bare).0).join(target);
            path = target.to_str().ok_or_else(|| failed()(io::ErrorKind::InvalidFilename.into()))?.to_owned();
        }
        let (above, base) = split(&path);
        let by_name = |base: String| Self { directory: above.clone().into(), name: Some(base.into()) };
        match fs::metadata(path.trim_end_matches('/')).or_else(|_| fs::metadata(&path)) {
            Ok(found) if found.is_dir() => Ok(Self { directory: path.into(), name: None }),
            Ok(_) if is_directory => Err(Error::Invalid("cannot copy directory".into())),
            Ok(_) if path.ends_with('/') => Err(Error::Invalid("not a directory".into())),
            Err(_) if !is_directory && (path.ends_with('/') || path.ends_with("/.")) => {
                Err(Error::Invalid("no such directory".into()))
            }
            _ => {
                fs::metadata(&above).map_err(failed())?;
                Ok(by_name(base))
            }
        }
    }
}

/// What is copied from this host.
struct HostSource {
    directory: PathBuf,
    name: std::ffi::OsString,
    named: std::ffi::OsString,
    is_directory: bool,
}

impl HostSource {
    fn find(source: &str, follow: bool) -> Result<Self, Error> {
        let failed = || Error::io(format!("lstat {}", absolute(source).display()));
        let (directory, name) = split(source);
        if name == "." || name == ".." || source.ends_with('/') {
            let is_directory = fs::metadata(source).map_err(failed())?.is_dir();
            let named = if name == "." || name == ".." { String::new() } else { name };
            return Ok(Self { directory: source.into(), name: ".".into(), named: named.into(), is_directory });
        }
        let mut found = fs::symlink_metadata(source).map_err(failed())?;
        let (mut directory, mut file) = (PathBuf::from(directory), std::ffi::OsString::from(name.clone()));
        if follow && found.is_symlink() {
            let target = fs::canonicalize(source).map_err(failed())?;
            found = fs::metadata(&target).map_err(failed())?;
            directory = target.parent().unwrap_or(Path::new("/")).into();
            file = target.file_name().unwrap_or(".".as_ref()).into();
        }
        Ok(Self { directory, name: file, named: name.into(), is_directory: found.is_dir() })
    }

    /// Its tar, packed on a thread as fast as it is read.
    fn packed(self, named: std::ffi::OsString) -> Result<impl Read + Send + 'static, Error> {
        let shown = self.directory.join(&self.name);
        let directory = File::open(&self.directory).map_err(Error::io(format!("open {}", shown.display())))?;
        let (reader, writer) = io::pipe().map_err(Error::io("cannot make a pipe"))?;
        let packing = std::thread::spawn(move || {
            archive::pack(directory.as_fd(), &self.name, &named, io::BufWriter::with_capacity(64 << 10, writer))
        });
        Ok(Packed { reader, packing: Some(packing) })
    }
}

/// A tar that is being packed; its end is one only where packing succeeded.
struct Packed {
    reader: io::PipeReader,
    packing: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.reader.read(buffer)?;
        if size == 0
            && let Some(packing) = self.packing.take()
        {
            packing.join().unwrap_or_else(|_| Err(io::Error::other("packing panicked")))?;
        }
        Ok(size)
    }
}

/// Counts what passes.
struct Counted<R> {
    tar: R,
    counted: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.tar.read(buffer)?;
        self.counted.fetch_add(size as u64, Ordering::Relaxed);
        Ok(size)
    }
}

/// Reads what a call answers.
struct Taken {
    pieces: mpsc::Receiver<Bytes>,
    now: Bytes,
}

impl Read for Taken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.now = piece,
                None => return Ok(0),
            }
        }
        let size = buffer.len().min(self.now.len());
        self.now.copy_to_slice(&mut buffer[..size]);
        Ok(size)
    }
}

//! An image's files, to look at: the root file system that a container will have, mounted read-only in a mount namespace
//! that belongs to one thread and ends with it. Nobody else ever sees it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use berth_proto::containerd::types::Mount;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::volumes::Error;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Options that are flags of a mount; here all are decided already. What is left is the file system's own.
const FLAGS: [&str; 18] = [
    "ro",
    "rw",
    "bind",
    "rbind",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "relatime",
    "strictatime",
    "private",
    "rprivate",
    "slave",
    "rslave",
];

/// Runs `body` with the root directory of what `mounts` describe. `at` is any directory to mount it on.
pub(super) fn look<T: Send>(
    mounts: &[Mount],
    at: &Path,
    body: impl FnOnce(BorrowedFd<'_>) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let [one] = mounts else { return Err(Error::Stacked { count: mounts.len() }) };
    if one.r#type == "bind" || one.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind")) {
        let root = openat(CWD, &one.source, DIRECTORY, Mode::empty()).map_err(failed)?;
        return body(root.as_fd());
    }
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            // Only threads that share no current directory with others may change their mount namespace.
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(failed)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(failed)?;
            mount_at(one, at).map_err(|source| Error::Rootfs { source })?;
            let done = match openat(CWD, at, DIRECTORY, Mode::empty()) {
                Ok(root) => body(root.as_fd()),
                Err(error) => Err(failed(error)),
            };
            // At once and not some time after the thread: the container's own mount comes next.
            umount2(at, MntFlags::empty()).or_else(|_| umount2(at, MntFlags::MNT_DETACH)).map_err(failed)?;
            done
        });
        looking.join().unwrap_or(Err(Error::Panicked { what: "looking at an image" }))
    })
}

fn failed(error: impl Into<io::Error>) -> Error {
    Error::Rootfs { source: error.into() }
}

fn mount_at(one: &Mount, at: &Path) -> io::Result<()> {
    let mut open = Vec::new();
    let data = options(&one.options, |path| by_descriptor(path, &mut open))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    Ok(mount(Some(one.source.as_str()), at, Some(one.r#type.as_str()), flags, Some(data.as_str()))?)
}

/// Mounts a root file system so that it can be written to.
pub(super) fn mount_writable(one: &Mount, at: &Path) -> io::Result<()> {
    if one.r#type == "bind" || one.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind")) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        return Ok(mount(Some(one.source.as_str()), at, None::<&str>, flags, None::<&str>)?);
    }
    let mut open = Vec::new();
    let mut words = Vec::new();
    for option in one.options.iter().filter(|option| !FLAGS.contains(&option.as_str())) {
        words.push(match option.split_once('=') {
            Some((key @ ("upperdir" | "workdir"), path)) => {
                format!("{key}={}", by_descriptor(Path::new(path), &mut open)?)
            }
            Some(("lowerdir", layers)) => {
                let named =
                    split(layers).iter().map(|layer| by_descriptor(layer, &mut open)).collect::<io::Result<Vec<_>>>();
                format!("lowerdir={}", named?.join(":"))
            }
            _ => option.clone(),
        });
    }
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    Ok(mount(Some(one.source.as_str()), at, Some(one.r#type.as_str()), flags, Some(words.join(",").as_str()))?)
}

/// The file system's options. An overlay's upper directory becomes its first layer: so nothing can be written, and the
/// directory is free for the container's mount.
fn options(all: &[String], mut named: impl FnMut(&Path) -> io::Result<String>) -> io::Result<String> {
    let value = |key: &str| all.iter().find_map(|option| option.strip_prefix(key));
    let mut words = Vec::new();
    let mut layers: Vec<PathBuf> = value("upperdir=").map(PathBuf::from).into_iter().collect();
    layers.extend(value("lowerdir=").map(split).unwrap_or_default());
    if !layers.is_empty() {
        let named = layers.iter().map(|layer| named(layer)).collect::<io::Result<Vec<_>>>()?;
        words.push(format!("lowerdir={}", named.join(":")));
    }
    let settled = |option: &&String| {
        !FLAGS.contains(&option.as_str())
            && !["upperdir=", "workdir=", "lowerdir="].iter().any(|key| option.starts_with(key))
    };
    words.extend(all.iter().filter(settled).cloned());
    Ok(words.join(","))
}

/// The layers of an overlay: a colon or backslash of a path has a backslash before it.
fn split(value: &str) -> Vec<PathBuf> {
    let mut layers = vec![String::new()];
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match (letter, layers.last_mut()) {
            ('\\', Some(layer)) => layer.extend(letters.next()),
            (':', _) => layers.push(String::new()),
            (_, Some(layer)) => layer.push(letter),
            (_, None) => {}
        }
    }
    layers.into_iter().filter(|layer| !layer.is_empty()).map(PathBuf::from).collect()
}

/// A short name for a directory without characters that mean something: all options together may take one page.
fn by_descriptor(path: &Path, open: &mut Vec<OwnedFd>) -> io::Result<String> {
    let directory = openat(CWD, path, DIRECTORY, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    open.push(directory);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_directory_becomes_a_layer() {
        let all = ["index=off", "ro", "workdir=/w", "upperdir=/u", r"lowerdir=/a\:b:/c"].map(str::to_owned);
        let data = options(&all, |path| Ok(format!("<{}>", path.display()))).unwrap();
        assert_eq!(data, "lowerdir=</u>:</a:b>:</c>,index=off");
    }

    #[test]
    fn an_overlay_is_seen_as_a_container_would() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["at", "a", "b", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("a/file"), "above").unwrap();
        std::fs::write(path("b/file"), "below").unwrap();
        let option = |key: &str, value: String| format!("{key}={value}");
        let mount = Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec![
                option("lowerdir", format!("{}:{}", path("a").display(), path("b").display())),
                option("upperdir", path("upper").display().to_string()),
                option("workdir", path("work").display().to_string()),
            ],
        };
        let seen = look(&[mount], &path("at"), |root| {
            let file = openat(root, "file", OFlags::RDONLY, Mode::empty()).unwrap();
            Ok(io::read_to_string(std::fs::File::from(file)).unwrap())
        });
        assert_eq!(seen.unwrap(), "above");
        assert_eq!(std::fs::read_dir(path("at")).unwrap().count(), 0, "nothing is mounted for anybody else");
    }
}

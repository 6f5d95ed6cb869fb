//! Where a shim that containerd started listens: a socket beside those of its other shims, written down in the bundle.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::{
        fs::DirBuilderExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use crate::{
    arguments::Arguments,
    error::{During as _, Error},
};

/// Where containerd's shims have their sockets.
const DIRECTORY: &str = "/run/containerd/s";
/// Name of the file in the bundle.
const FILE: &str = "address";

/// The address of a container's shim. Its length does not depend on the container's name, because a socket's address
/// holds few bytes.
pub(crate) fn of(arguments: &Arguments) -> PathBuf {
    let half = |number: u8| {
        let mut hasher = DefaultHasher::new();
        (number, &arguments.address, &arguments.namespace, &arguments.id).hash(&mut hasher);
        hasher.finish()
    };
    Path::new(DIRECTORY).join(format!("berth-{:016x}{:016x}", half(0), half(1)))
}

/// Listens there; `None` where a living shim does already.
pub(crate) fn listen(address: &Path) -> Result<Option<UnixListener>, Error> {
    let what = || format!("listening on {}", address.display());
    fs::DirBuilder::new().recursive(true).mode(0o711).create(DIRECTORY).during(what)?;
    match UnixListener::bind(address) {
        Ok(listener) => return Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error).during(what),
    }
    if UnixStream::connect(address).is_ok() {
        return Ok(None);
    }
    // Left behind by one that was killed.
    fs::remove_file(address).during(what)?;
    UnixListener::bind(address).map(Some).during(what)
}

/// Writes it down.
pub(crate) fn remember(bundle: &Path, address: &Path) -> Result<String, Error> {
    let what = || format!("writing {FILE}");
    let text = format!("unix://{}", address.display());
    let new = bundle.join(format!(".{FILE}"));
    fs::write(&new, &text).during(what)?;
    fs::rename(&new, bundle.join(FILE)).during(what)?;
    Ok(text)
}

/// Removes the socket that the bundle names, where one is.
pub(crate) fn forget(bundle: &Path) {
    let Ok(text) = fs::read_to_string(bundle.join(FILE)) else { return };
    if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with(DIRECTORY)) {
        // Not there is as good as removed.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_short_and_each_containers_own() {
        let of = |id: &str, namespace: &str| {
            of(&Arguments { id: id.into(), namespace: namespace.into(), ..Arguments::default() })
        };
        assert_ne!(of("a", "b"), of("b", "a"));
        assert_eq!(of("a", "b"), of("a", "b"));
        assert!(of(&"x".repeat(500), "y").as_os_str().len() < 100);
    }
}

//! Where a tar goes that a command writes: standard output, but no terminal; or a file, which is there when it is whole.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::each::print_bytes;
use crate::{outcome::Error, terminal::raw};

/// See the module. Dropped before [`Destination::finish`], it leaves no file.
pub(crate) struct Destination {
    file: Option<(File, PathBuf)>,
    /// What the file is renamed to; `None` where it is written to directly.
    becomes: Option<PathBuf>,
}

impl Destination {
    /// Opens a file, or standard output where none is named.
    ///
    /// # Errors
    /// It is a terminal, or the file cannot be made.
    pub(crate) fn open(path: Option<&str>) -> Result<Self, Error> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            if raw::stdout_is_terminal() {
                let refused = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
                return Err(Error::Invalid(refused.into()));
            }
            return Ok(Self { file: None, becomes: None });
        };
        let path = Path::new(path);
        let failed = || Error::io(format!("cannot write {}", path.display()));
        // What is no file, such as /dev/null, is written to as it is.
        if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            let file = File::options().write(true).open(path).map_err(failed())?;
            return Ok(Self { file: Some((file, path.into())), becomes: None });
        }
        if path.is_dir() {
            return Err(failed()(io::ErrorKind::IsADirectory.into()));
        }
        // A link stays one.
        let becomes = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let name = becomes.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let draft = becomes.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = File::create(&draft).map_err(failed())?;
        Ok(Self { file: Some((file, draft)), becomes: Some(becomes) })
    }

    /// More of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.file {
            Some((file, path)) => file.write_all(bytes).map_err(Error::io(format!("cannot write {}", path.display()))),
            None => print_bytes(bytes),
        }
    }

    /// It is whole.
    ///
    /// # Errors
    /// The file cannot be given its name.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        if let (Some((_, draft)), Some(becomes)) = (&self.file, self.becomes.take()) {
            fs::rename(draft, &becomes).map_err(Error::io(format!("cannot write {}", becomes.display())))?;
        }
        Ok(())
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let (Some((_, draft)), Some(_)) = (&self.file, &self.becomes) {
            let _ = fs::remove_file(draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        let open = || Destination::open(path.to_str()).unwrap();
        let mut half = open();
        half.write(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut whole = open();
        whole.write(b"whole").unwrap();
        whole.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        Destination::open(Some("/dev/null")).unwrap().write(b"x").unwrap();
        assert!(Destination::open(directory.path().to_str()).is_err());
        assert!(Destination::open(directory.path().join("not/there").to_str()).is_err());
    }
}

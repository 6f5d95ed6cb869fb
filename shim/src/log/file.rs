//! The files of a log: the current one, and older ones with a number behind their name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    max_size: u64,
    max_file: u32,
    file: Option<File>,
    /// Bytes in the current file: whole lines.
    size: u64,
    /// Bytes that could not be written since writing last worked.
    lost: u64,
}

impl Target {
    /// A log at a path; `max_size` 0 means that no new file is ever begun.
    pub(crate) fn new(path: &Path, max_size: u64, max_file: u32) -> Self {
        let mut target =
            Self { path: path.to_owned(), max_size, max_file: max_file.max(1), file: None, size: 0, lost: 0 };
        if let Err(error) = target.open() {
            target.failed(0, &error);
        }
        target
    }

    fn open(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
                self.size = file.metadata()?.len();
                file
            }
        };
        Ok(self.file.insert(file))
    }

    /// How many more bytes fit before a new file is begun.
    pub(crate) fn room(&self) -> u64 {
        if self.max_size == 0 { u64::MAX } else { self.max_size.saturating_sub(self.size) }
    }

    /// Begins a new file where the current one is full.
    pub(crate) fn rotate_if_full(&mut self) {
        if self.room() > 0 || self.size == 0 {
            return;
        }
        if let Err(error) = self.rotate() {
            self.failed(0, &error);
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.max_file == 1 {
            // Somebody may follow the file: it is emptied, not replaced.
            OpenOptions::new().write(true).truncate(true).open(&self.path)?;
        } else {
            for number in (1..self.max_file - 1).rev() {
                rename(&numbered(number), &numbered(number + 1))?;
            }
            rename(&self.path, &numbered(1))?;
        }
        self.size = 0;
        self.open().map(|_| ())
    }

    /// Appends whole lines. A failure loses them and nothing else.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        let opened = self.open().map(drop);
        // Known only now: what lay there before is not ours to cut off.
        let before = self.size;
        let written = opened.and_then(|()| self.open()?.write_all(lines));
        match written {
            Ok(()) => {
                self.size += lines.len() as u64;
                if self.lost > 0 {
                    crate::note::note!(
                        "the log {} is written again; {} bytes were lost",
                        self.path.display(),
                        self.lost
                    );
                    self.lost = 0;
                }
            }
            Err(error) => {
                // Half a line must not remain: the next would be glued to it.
                if let Some(file) = &self.file {
                    let _ = file.set_len(before);
                }
                self.failed(lines.len() as u64, &error);
            }
        }
    }

    fn failed(&mut self, bytes: u64, error: &io::Error) {
        if self.lost == 0 {
            crate::note::note!("writing the log {}: {error}; the container goes on without", self.path.display());
        }
        self.lost += bytes.max(1);
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_numbered_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut target = Target::new(&path, 4, 3);
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n"] {
            target.rotate_if_full();
            target.write(line.as_bytes());
        }
        let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(
            (text("x.log"), text("x.log.1"), text("x.log.2")),
            ("dddd\n".into(), "cccc\n".into(), "bbbb\n".into())
        );
        assert!(!directory.path().join("x.log.3").exists());
    }

    #[test]
    fn a_single_file_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut target = Target::new(&path, 4, 1);
        for line in ["aaaa\n", "bbbb\n"] {
            target.rotate_if_full();
            target.write(line.as_bytes());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "bbbb\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

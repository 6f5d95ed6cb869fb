//! The transactional store's file: made whole or not at all, checked when it is opened, and opened again after a failure of
//! the disk, which makes an open one useless.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use redb::{Database, DatabaseError};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A new store's name until it is whole.
const DRAFT: &str = "redb.draft";

/// An open store; see the module.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    /// `None` after a failure of the disk.
    open: Mutex<Option<Database>>,
}

impl StoreFile {
    /// Opens the store at `path`, or makes one with what `make` puts into it.
    pub(super) fn open(path: &Path, make: impl Fn(&Database) -> Result<(), redb::Error>) -> Result<Self, redb::Error> {
        let draft = path.with_extension(DRAFT);
        // An empty file is what a lost one looks like.
        let database = if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            let database = open(path)?;
            gone(&draft)?;
            database
        } else {
            gone(path)?;
            let database = match Database::create(&draft) {
                Err(error) if !matches!(error, DatabaseError::DatabaseAlreadyOpen) => {
                    // What a killed service had begun.
                    gone(&draft)?;
                    Database::create(&draft)?
                }
                other => other?,
            };
            make(&database)?;
            // Not over one that another process has just made.
            renameat_with(CWD, &draft, CWD, path, RenameFlags::NOREPLACE).map_err(io::Error::from)?;
            File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
            database
        };
        Ok(Self { path: path.into(), open: Mutex::new(Some(database)) })
    }

    /// Works on the store; `again` says that it was opened anew, and may not be as it was left: what failed may have been
    /// written all the same.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database, bool) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let mut held = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (database, again) = match held.take() {
            Some(database) => (database, false),
            None => (open(&self.path)?, true),
        };
        let result = work(&database, again);
        if !matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            *held = Some(database);
        }
        result
    }
}

/// Without the check a damaged file could end the process.
fn open(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_check_integrity_on_open(true).open(path)
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the store itself is at fault, and not who may open it, or the disk.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => true,
        redb::Error::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => true,
        _ => false,
    }
}

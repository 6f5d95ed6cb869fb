//! A service's transactional store, `meta.redb`: made whole or not at all, checked when it is opened, and opened again
//! after a failure of the disk, which makes an open one useless. What is in it is its service's own.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::SystemTime,
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use redb::{Database, DatabaseError, Error};

/// A new store's name until it is whole.
const DRAFT: &str = "redb.draft";

/// An open store; see the module. Reads go side by side.
#[derive(Debug)]
pub struct StoreFile {
    path: PathBuf,
    /// `None` after a failure of the disk.
    open: RwLock<Option<Database>>,
}

impl StoreFile {
    /// Opens the store at `path`, or makes one with what `make` puts into it. Blocks.
    ///
    /// # Errors
    /// It is open elsewhere, cannot be read, or is damaged; see [`is_damage`].
    pub fn open(path: &Path, make: impl Fn(&Database) -> Result<(), Error>) -> Result<Self, Error> {
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
            renameat2(AT_FDCWD, &draft, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE).map_err(io::Error::from)?;
            File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
            database
        };
        Ok(Self { path: path.into(), open: RwLock::new(Some(database)) })
    }

    /// Works on the store; `again` says that it was opened anew and may not be as it was left: what failed may have been
    /// written all the same. Blocks.
    ///
    /// # Errors
    /// What `work` says, or that the store cannot be opened again.
    pub fn with<T>(&self, work: impl FnOnce(&Database, bool) -> Result<T, Error>) -> Result<T, Error> {
        let held = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*held {
            let result = work(database, false);
            drop(held);
            if disk_failed(&result) {
                *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            return result;
        }
        drop(held);
        // Nobody else works on it until it is put right.
        let mut held = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let (database, again) = match held.take() {
            Some(database) => (database, false),
            None => (open(&self.path)?, true),
        };
        let result = work(&database, again);
        if !disk_failed(&result) {
            *held = Some(database);
        }
        result
    }
}

/// After these a store answers nothing but the same.
fn disk_failed<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Io(_) | Error::PreviousIo))
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
pub fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corrupted(_) | Error::RepairAborted | Error::UpgradeRequired(_) => true,
        Error::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        Error::TableTypeMismatch { .. } | Error::TypeDefinitionChanged { .. } | Error::TableDoesNotExist(_) => true,
        _ => false,
    }
}

/// Moves a damaged store aside, so that nothing of it is lost to whoever wants to look; answers with where it is then.
///
/// # Errors
/// It cannot be renamed.
pub fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let aside = path.with_extension(format!("redb.damaged-{now}"));
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase as _, TableDefinition};

    use super::*;

    const ENOSPC: i32 = nix::errno::Errno::ENOSPC as i32;
    const TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("table");

    fn make(database: &Database) -> Result<(), Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        Ok(transaction.commit()?)
    }

    fn put(database: &Database, value: u64) -> Result<(), Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?.insert("key", value)?;
        Ok(transaction.commit()?)
    }

    fn get(database: &Database) -> Result<Option<u64>, Error> {
        Ok(database.begin_read()?.open_table(TABLE)?.get("key")?.map(|value| value.value()))
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_begun_anew() {
        // A draft that is half made, a whole one that was not given its name, and a store that was lost.
        for cut in ["half", "whole", "lost"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("meta.redb");
            let draft = path.with_extension(DRAFT);
            match cut {
                "half" => fs::write(&draft, [0; 10_000]).unwrap(),
                "whole" => {
                    drop(StoreFile::open(&path, make).unwrap());
                    fs::rename(&path, &draft).unwrap();
                }
                _ => fs::write(&path, []).unwrap(),
            }
            let store = StoreFile::open(&path, make).unwrap();
            assert_eq!(store.with(|database, _| get(database)).unwrap(), None);
            assert_eq!(names(directory.path()), ["meta.redb"]);
            assert!(StoreFile::open(&path, make).is_err(), "two at a time");
        }
    }

    #[test]
    fn a_failure_of_the_disk_is_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreFile::open(&directory.path().join("meta.redb"), make).unwrap();
        store.with(|database, again| put(database, if again { 0 } else { 1 })).unwrap();
        let full = || Err::<(), _>(Error::Io(io::Error::from_raw_os_error(ENOSPC)));
        assert!(store.with(|_, _| full()).is_err());
        assert_eq!(store.with(|database, again| Ok((get(database)?, again))).unwrap(), (Some(1), true));
        assert_eq!(store.with(|database, again| Ok((get(database)?, again))).unwrap(), (Some(1), false));
    }

    #[test]
    fn damage_is_told_from_trouble_and_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.redb");
        fs::write(&path, "this is no store").unwrap();
        assert!(is_damage(&StoreFile::open(&path, make).unwrap_err()));
        let aside = move_aside(&path).unwrap();
        assert!(aside.to_string_lossy().contains("meta.redb.damaged-") && aside.exists() && !path.exists());
        assert!(!is_damage(&Error::DatabaseAlreadyOpen));
        assert!(!is_damage(&Error::Io(io::Error::from_raw_os_error(ENOSPC))));
    }
}

//! vfs: every snapshot is a whole copy. Slow and large, but it works on any file system; where the file system can share
//! blocks between files (reflink), the copies share them.

use berth_proto::containerd::types::Mount;

use super::{Composed, Driver, Look, bind};
use crate::{
    directory::{Directories, Id},
    error::Error,
    layer::{changes::Own, copy, settle, tree},
    record::Open,
};

#[derive(Debug)]
pub(crate) struct Vfs;

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn rebases(&self) -> bool {
        false
    }

    fn prepare(&self, directories: &Directories, id: Id, lower: &[Id]) -> Result<(), Error> {
        directories.make(id, false)?;
        match lower.first() {
            Some(parent) => {
                copy::tree(&directories.files(*parent), &directories.files(id))?;
                // What a record names is on disk before the record is.
                tree::sync(&directories.files(id))
            }
            None => Ok(()),
        }
    }

    fn mounts(&self, directories: &Directories, own: Option<Id>, lower: &[Id]) -> Vec<Mount> {
        own.or(lower.first().copied()).map(|id| bind(&directories.files(id), own.is_none())).into_iter().collect()
    }

    fn own(&self) -> Own {
        Own::Whole
    }

    fn look(&self, directories: &Directories, stack: &[Id], work: Look<'_>) -> Result<(), Error> {
        match stack.first() {
            Some(first) => work(&directories.files(*first)),
            None => Ok(()),
        }
    }

    fn compose(
        &self,
        directories: &Directories,
        new: Id,
        layer: Id,
        open: &Open,
        lower: &[Id],
    ) -> Result<Composed, Error> {
        directories.make(new, false)?;
        let files = directories.files(new);
        if let Some(parent) = lower.first() {
            copy::tree(&directories.files(*parent), &files)?;
        }
        copy::layer(&directories.files(layer), &files, open)?;
        settle::links(&files, open)?;
        Ok(Composed::New)
    }
}

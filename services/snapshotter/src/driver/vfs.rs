//! vfs: every snapshot is a whole copy. Slow and large, but it works on any file system; where the file system can share
//! blocks between files (reflink), the copies share them.

use std::path::Path;

use berth_proto::containerd::types::Mount;

use super::{Driver, bind};
use crate::{
    directory::{Directories, Id},
    error::Error,
    layer::copy,
};

#[derive(Debug)]
pub(crate) struct Vfs;

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn prepare(&self, directories: &Directories, id: Id, lower: &[Id]) -> Result<(), Error> {
        directories.make(id, false)?;
        match lower.first() {
            Some(parent) => copy::tree(&directories.files(*parent), &directories.files(id)),
            None => Ok(()),
        }
    }

    fn mounts(&self, directories: &Directories, own: Option<Id>, lower: &[Id]) -> Vec<Mount> {
        let source = match (own, lower.first()) {
            (Some(own), _) => directories.files(own),
            (None, Some(parent)) => directories.files(*parent),
            // A view of nothing: an empty directory that cannot be written to.
            (None, None) => Path::new("/var/empty").to_owned(),
        };
        vec![bind(&source, own.is_none())]
    }

    fn compose(&self, directories: &Directories, new: Id, layer: Id, parent: Option<Id>) -> Result<Id, Error> {
        directories.make(new, false)?;
        let files = directories.files(new);
        if let Some(parent) = parent {
            copy::tree(&directories.files(parent), &files)?;
        }
        copy::layer(&directories.files(layer), &files)?;
        Ok(new)
    }
}

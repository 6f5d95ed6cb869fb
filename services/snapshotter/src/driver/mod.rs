//! Storage drivers: how directories become root file systems.

mod overlay2;
mod vfs;

use std::path::Path;

use berth_proto::containerd::types::Mount;

use crate::{
    directory::{Directories, Id},
    error::Error,
    settings::Choice,
};

/// A way to stack directories. Lower directories are given nearest first.
pub(crate) trait Driver: Send + Sync + std::fmt::Debug {
    /// As it is configured and shown.
    fn name(&self) -> &'static str;

    /// Makes the directory of a snapshot that will be written to, on top of these.
    fn prepare(&self, directories: &Directories, id: Id, lower: &[Id]) -> Result<(), Error>;

    /// How to mount a snapshot: its own directory, unless it is a view, on top of these.
    fn mounts(&self, directories: &Directories, own: Option<Id>, lower: &[Id]) -> Vec<Mount>;

    /// The directory that a committed snapshot of `layer` on top of `parent` has: the layer's own, or one made as `new`.
    fn compose(&self, directories: &Directories, new: Id, layer: Id, parent: Option<Id>) -> Result<Id, Error>;
}

/// The driver that was asked for, or the best that works in `base`'s parent.
pub(crate) fn choose(choice: Choice, root: &Path) -> Result<Box<dyn Driver>, Error> {
    match (choice, overlay2::probe(root)) {
        (Choice::Vfs, _) => Ok(Box::new(vfs::Vfs)),
        (_, Ok(())) => Ok(Box::new(overlay2::Overlay2)),
        (Choice::Overlay2, Err(why)) => Err(Error::Driver { driver: "overlay2", path: root.into(), why }),
        (Choice::Auto, Err(why)) => {
            tracing::warn!(root = %root.display(), why, "overlay2 does not work here; layers are copied (vfs)");
            Ok(Box::new(vfs::Vfs))
        }
    }
}

fn bind(source: &Path, read_only: bool) -> Mount {
    Mount {
        r#type: "bind".into(),
        source: source.display().to_string(),
        target: String::new(),
        options: vec!["rbind".into(), if read_only { "ro" } else { "rw" }.into()],
    }
}

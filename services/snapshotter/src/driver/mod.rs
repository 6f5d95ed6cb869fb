//! Storage drivers: how directories become root file systems.

mod overlay2;
mod vfs;

use std::path::Path;

use berth_proto::containerd::types::Mount;

use crate::{
    directory::{Directories, Id},
    error::Error,
    layer::changes::Own,
    record::Open,
    settings::Choice,
};

/// A way to stack directories. Lower directories are given nearest first.
pub(crate) trait Driver: Send + Sync + std::fmt::Debug {
    /// As it is configured and shown.
    fn name(&self) -> &'static str;

    /// Whether a snapshot's own directory says the same on top of others than on top of nothing.
    fn rebases(&self) -> bool;

    /// Makes the directory of a snapshot that will be written to, on top of these.
    fn prepare(&self, directories: &Directories, id: Id, lower: &[Id]) -> Result<(), Error>;

    /// How to mount a snapshot: its own directory, unless it is a view, on top of these.
    fn mounts(&self, directories: &Directories, own: Option<Id>, lower: &[Id]) -> Vec<Mount>;

    /// How what is written to a snapshot lies in its own directory.
    fn own(&self) -> Own;

    /// Shows a stack of directories, nearest first, as the tree that they are, to nobody else and read-only.
    fn look(&self, directories: &Directories, stack: &[Id], work: Look<'_>) -> Result<(), Error>;

    /// The directory of a committed snapshot of `layer` on top of these.
    fn compose(
        &self,
        directories: &Directories,
        new: Id,
        layer: Id,
        open: &Open,
        lower: &[Id],
    ) -> Result<Composed, Error>;
}

/// What is done with a tree that is shown for a moment.
pub(crate) type Look<'a> = Box<dyn FnOnce(&Path) -> Result<(), Error> + Send + 'a>;

/// Which directories a committed snapshot consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Composed {
    /// The layer's own.
    Layer,
    /// The new one, which holds everything.
    New,
    /// The new one, with what only this stack has, over the layer's own.
    Over,
}

/// The driver that was asked for, or the best that works in `root`.
pub(crate) fn choose(choice: Choice, root: &Path) -> Result<Box<dyn Driver>, Error> {
    if choice == Choice::Vfs {
        return Ok(Box::new(vfs::Vfs));
    }
    match (choice, overlay2::probe(root)) {
        (_, Ok(())) => Ok(Box::new(overlay2::Overlay2)),
        (Choice::Auto, Err(why)) if !root.join("overlay2").exists() => {
            tracing::warn!(root = %root.display(), why, "overlay2 does not work here; layers are copied (vfs)");
            Ok(Box::new(vfs::Vfs))
        }
        // Another driver would not show the images and containers that are there.
        (_, Err(why)) => Err(Error::Driver { driver: "overlay2", path: root.into(), why }),
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

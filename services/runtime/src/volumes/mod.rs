//! Volumes, bind mounts and temporary file systems: what `ContainerSpec.mounts` and an image's volumes become.
//!
//! A volume is the directory `<name>/_data`; that directory is the record. Beside it lies `volume.json` with what is
//! only told, never needed. What is deleted is renamed away first and cleaned afterwards.

mod copy;
mod error;
mod fill;
mod filter;
mod manage;
mod mounts;
mod rootfs;
mod size;
mod store;
mod trash;
mod visit;
mod volume;

pub(crate) use error::Error;
pub(crate) use manage::Told;
pub(crate) use store::Volumes;

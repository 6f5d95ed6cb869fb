//! The shim's binary, copied once into sealed memory: what runs beside a container can neither be changed on disk while
//! a container starts nor be overwritten through `/proc/self/exe`.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::{Error, Result};

/// What the binary is called.
const NAME: &str = "containerd-shim-berth-v2";

/// A sealed copy of the shim's binary.
#[derive(Debug)]
pub(crate) struct Binary {
    _copy: OwnedFd,
    /// For `posix_spawn`.
    pub(super) path: CString,
}

impl Binary {
    /// Copies the binary at `named`, or the one beside our own executable, or the one in PATH. Blocks.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => find()?,
        };
        let failed = |e| Error::io("cannot read the shim's binary", &path)(e);
        let mut file = File::open(&path).map_err(failed)?;
        let copy = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(|e| failed(e.into()))?;
        let mut writer = File::from(copy);
        io::copy(&mut file, &mut writer).map_err(failed)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&writer, seals).map_err(|e| failed(e.into()))?;
        // Not one of the low descriptors, which a shim's own take the place of before it is executed.
        let copy = rustix::io::fcntl_dupfd_cloexec(&writer, 10).map_err(|e| failed(e.into()))?;
        let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd())).map_err(|e| failed(e.into()))?;
        Ok(Self { _copy: copy, path })
    }
}

fn find() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::io("cannot find the own executable", "/proc/self/exe"))?;
    let beside = own.with_file_name(NAME);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::iter::once(beside.clone()).chain(std::env::split_paths(&path).map(|d| d.join(NAME)));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| Error::Io {
        what: "the shim's binary is neither in PATH nor at",
        path: beside,
        source: io::ErrorKind::NotFound.into(),
    })
}

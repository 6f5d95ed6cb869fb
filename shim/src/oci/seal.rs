//! The shim's own executable, out of a container's reach.
//!
//! A process in a container may come to hold the executable of whoever enters it (through `/proc/PID/exe`) and write to
//! it (CVE-2019-5736). So the shim runs from a copy in memory that is sealed: nobody can write to it any more.

use std::{
    ffi::CString,
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create, sendfile};

use super::error::{Error, Step as _};

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// This process runs from a sealed copy.
pub fn is_sealed() -> bool {
    File::open("/proc/self/exe").is_ok_and(|exe| fcntl_get_seals(exe).is_ok_and(|seals| seals.contains(SEALS)))
}

/// A sealed copy of this process's executable, to be executed by descriptor (`/proc/self/fd/N` or execveat).
pub fn copy(name: &str) -> Result<OwnedFd, Error> {
    let what = || "making a sealed copy of the own executable";
    let exe = File::open("/proc/self/exe").step(what)?;
    let mut left = exe.metadata().step(what)?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels since 6.3 may insist that a memory file says whether it is executable; those before do not know the flag.
    let copy = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags)).step(what)?;
    while left > 0 {
        let sent = sendfile(&copy, &exe, None, left as usize).step(what)?;
        if sent == 0 {
            return Err(Error::step(what(), "the file is shorter than it was"));
        }
        left -= sent as u64;
    }
    fcntl_add_seals(&copy, SEALS).step(what)?;
    Ok(copy)
}

/// Goes on in a sealed copy, where this process does not run from one yet. Returns only if it does, or on an error.
pub fn ensure(name: &str) -> Result<(), Error> {
    if is_sealed() {
        return Ok(());
    }
    let what = || "executing the sealed copy";
    let copy = copy(name)?;
    let bytes = |text: std::ffi::OsString| CString::new(std::os::unix::ffi::OsStringExt::into_vec(text));
    let arguments = std::env::args_os().map(bytes).collect::<Result<Vec<_>, _>>().step(what)?;
    let environment = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            bytes(name)
        })
        .collect::<Result<Vec<_>, _>>()
        .step(what)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    let path = CString::new(path).step(what)?;
    match nix::unistd::execve(&path, &arguments, &environment) {
        Ok(never) => match never {},
        Err(error) => Err(error).step(what),
    }
}

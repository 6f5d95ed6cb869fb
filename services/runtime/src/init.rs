//! The program that `--init` puts before a container's own, as a file that containers can be shown.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use berth_init::PROGRAM;

/// Lays the program down, where it is not there as it should be. It is replaced in one step: containers that run keep the
/// one that they have, and one that starts meanwhile gets either.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn place(path: &Path) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == PROGRAM) && fs::metadata(path)?.permissions().mode() & 0o777 == 0o555 {
        return Ok(());
    }
    let new = path.with_extension("new");
    // One that a crash left may be half written.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o555).open(&new)?;
    file.write_all(PROGRAM)?;
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_old_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init");
        fs::write(path.with_extension("new"), "half").unwrap();
        place(&path).unwrap();
        let good = || {
            fs::read(&path).unwrap() == PROGRAM && fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o555
        };
        assert!(good());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "old").unwrap();
        place(&path).unwrap();
        assert!(good());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        place(&path).unwrap();
        assert!(good());
    }
}

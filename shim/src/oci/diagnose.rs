//! Why a program could not be executed. The kernel says ENOENT for a missing file, a missing interpreter, a missing ELF
//! loader and a line end of the wrong kind; here the file is read and the person is told which it was.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::error::Error;

/// Where `execve` should look: a name with a slash as it is, else the first executable on the path.
pub(crate) fn find(name: &str, path: Option<&str>) -> Result<PathBuf, Error> {
    if name.is_empty() {
        return Err(Error::Spec("there is no program to execute".into()));
    }
    if name.contains('/') {
        return check(name, Path::new(name));
    }
    for directory in path.unwrap_or_default().split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match access(&candidate, AccessFlags::X_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            _ => {}
        }
    }
    Err(Error::CommandNotFound(format!("exec: \"{name}\": executable file not found in $PATH")))
}

fn check(name: &str, path: &Path) -> Result<PathBuf, Error> {
    match std::fs::metadata(path) {
        Err(error) => Err(not_started(name, path, &error)),
        Ok(metadata) if metadata.is_dir() => Err(Error::NotExecutable(format!("exec: \"{name}\": is a directory"))),
        Ok(_) => match access(path, AccessFlags::X_OK) {
            Ok(()) => Ok(path.to_owned()),
            Err(error) => Err(not_started(name, path, &error.into())),
        },
    }
}

/// What to say after execve failed.
pub(crate) fn not_started(name: &str, path: &Path, error: &std::io::Error) -> Error {
    let said = |text: &str| format!("exec: \"{name}\": {text}");
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => match std::fs::metadata(path) {
            Err(_) => Error::CommandNotFound(said(&format!("stat {}: no such file or directory", path.display()))),
            Ok(_) => Error::CommandNotFound(said(&missing_interpreter(path))),
        },
        Some(libc::EACCES | libc::EPERM) => Error::NotExecutable(said(&denied(path))),
        Some(libc::ENOEXEC) => Error::NotExecutable(said(&wrong_format(path))),
        Some(libc::E2BIG) => {
            Error::NotExecutable(said("argument list too long: arguments and environment exceed the kernel's limit"))
        }
        Some(libc::ETXTBSY) => Error::NotExecutable(said("text file busy: somebody is writing to it")),
        _ => Error::NotExecutable(said(&error.to_string())),
    }
}

/// The file is there and yet ENOENT came: what it needs is missing.
fn missing_interpreter(path: &Path) -> String {
    let head = head(path);
    if let Some(interpreter) = shebang(&head) {
        if interpreter.ends_with(b"\r") {
            let clean = String::from_utf8_lossy(&interpreter[..interpreter.len() - 1]).into_owned();
            return format!(
                "no such file or directory: its first line ends in a carriage return (Windows line ends), so the kernel \
                 looks for \"{clean}\\r\"; convert the file to Unix line ends"
            );
        }
        let interpreter = OsStr::from_bytes(interpreter);
        return format!("no such file or directory: its interpreter {} is missing", interpreter.display());
    }
    match elf_loader(path, &head) {
        Some(loader) => format!(
            "no such file or directory: its loader {loader} is missing; it was built for another C library or architecture"
        ),
        None => "no such file or directory".into(),
    }
}

fn denied(path: &Path) -> String {
    let Ok(metadata) = std::fs::metadata(path) else { return "permission denied: a directory on the way".into() };
    if metadata.is_dir() {
        return "is a directory".into();
    }
    if metadata.mode() & 0o111 == 0 {
        return "permission denied: the file has no execute permission (chmod +x)".into();
    }
    let noexec = rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.bits() & libc::ST_NOEXEC != 0);
    if noexec {
        return "permission denied: it lies in a file system mounted noexec".into();
    }
    "permission denied".into()
}

fn wrong_format(path: &Path) -> String {
    let head = head(path);
    if head.is_empty() {
        return "exec format error: the file is empty".into();
    }
    if !head.starts_with(b"\x7fELF") {
        return "exec format error: neither a program nor a script that names its interpreter (#!)".into();
    }
    let machine = elf_machine(&head);
    match machine.and_then(machine_name) {
        Some(name) if name != std::env::consts::ARCH => {
            format!("exec format error: it is built for {name}, this machine is {}", std::env::consts::ARCH)
        }
        _ => "exec format error".into(),
    }
}

fn head(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let read = File::open(path).and_then(|file| file.read_at(&mut bytes, 0)).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

fn shebang(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?;
    let line = &line[..line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len())];
    let start = line.iter().position(|byte| *byte != b' ' && *byte != b'\t')?;
    let line = &line[start..];
    Some(&line[..line.iter().position(|byte| *byte == b' ' || *byte == b'\t').unwrap_or(line.len())])
}

fn elf_machine(head: &[u8]) -> Option<u16> {
    let bytes = head.get(18..20)?;
    Some(if head.get(5) == Some(&2) {
        u16::from_be_bytes([bytes[0], bytes[1]])
    } else {
        u16::from_le_bytes([bytes[0], bytes[1]])
    })
}

fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "x86",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return None,
    })
}

/// The loader an ELF file names (PT_INTERP), 64 bit or 32 bit, little endian.
fn elf_loader(path: &Path, head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&1) {
        return None;
    }
    let wide = head.get(4) == Some(&2);
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (table, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    for entry in 0..count {
        let at = usize::try_from(table.checked_add(entry * size)?).ok()?;
        if number(at, 4)? == 3 {
            let (offset, length) = if wide {
                (number(at + 8, 8)?, number(at + 32, 8)?)
            } else {
                (number(at + 4, 4)?, number(at + 16, 4)?)
            };
            let mut name = vec![0; length.min(4096) as usize];
            let read = File::open(path).ok()?.read_at(&mut name, offset).ok()?;
            let name = name[..read].split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn each_cause_has_its_own_words() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8], mode| {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let told = |path: &Path, errno| {
            let error = not_started("x", path, &std::io::Error::from_raw_os_error(errno));
            let code = if matches!(error, Error::CommandNotFound(_)) { 127 } else { 126 };
            format!("{code} {error}")
        };
        let missing = directory.path().join("missing");
        assert_eq!(
            told(&missing, libc::ENOENT),
            format!("127 exec: \"x\": stat {}: no such file or directory", missing.display())
        );
        let script = write("script", b"#! /no/such/sh -e\necho", 0o755);
        assert!(told(&script, libc::ENOENT).contains("its interpreter /no/such/sh is missing"));
        let windows = write("windows", b"#!/bin/sh\r\necho\r\n", 0o755);
        assert!(told(&windows, libc::ENOENT).contains("carriage return"));
        let plain = write("plain", b"echo", 0o644);
        assert!(told(&plain, libc::EACCES).contains("no execute permission"));
        assert!(told(&plain, libc::ENOEXEC).contains("names its interpreter"));
        assert!(told(&write("empty", b"", 0o755), libc::ENOEXEC).contains("empty"));
        let mut elf = vec![0; 256];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[18] = 243;
        elf[32] = 64; // program headers
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 3; // PT_INTERP
        elf[72] = 200;
        elf[96] = 16;
        elf[200..215].copy_from_slice(b"/lib/ld-other.1");
        let elf = write("elf", &elf, 0o755);
        assert!(told(&elf, libc::ENOENT).contains("its loader /lib/ld-other.1 is missing"));
        assert!(told(&elf, libc::ENOEXEC).contains("built for riscv64"));
        assert!(told(directory.path(), libc::EACCES).contains("is a directory"));
    }

    #[test]
    fn damaged_programs_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        for size in [4, 19, 40, 58, 80] {
            let mut bytes = vec![0xff; size];
            bytes[..4].copy_from_slice(b"\x7fELF");
            if let Some(byte) = bytes.get_mut(5) {
                *byte = 1;
            }
            fs::write(&path, bytes).unwrap();
            assert_eq!(elf_loader(&path, &head(&path)), None);
        }
    }

    #[test]
    fn the_path_is_searched_as_a_shell_does() {
        let found = find("sh", Some("/nowhere:/usr/bin:/bin")).unwrap();
        assert!(found.ends_with("sh"));
        let error = find("no-such-program", Some("/bin")).unwrap_err();
        assert_eq!(error.to_string(), "exec: \"no-such-program\": executable file not found in $PATH");
        assert!(matches!(find("/tmp", None), Err(Error::NotExecutable(_))));
    }
}

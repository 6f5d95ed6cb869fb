//! AppArmor profiles, SELinux labels and keyrings.

use std::path::Path;

use oci_spec::runtime::Process;

use super::error::{Error, Step as _};

/// Asks for the process's profile and label from the next execve on. What the kernel does not have cannot be asked for:
/// going on without it would be less than what the user believes.
pub(crate) fn label(process: &Process) -> Result<(), Error> {
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty()) {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            if profile == "unconfined" {
                return Ok(());
            }
            return Err(Error::Unsupported(format!(
                "the AppArmor profile {profile} is asked for, but this kernel has no AppArmor"
            )));
        }
        // With several modules in the kernel each has its own directory.
        let own = Path::new("/proc/thread-self/attr/apparmor/exec");
        let path = if own.exists() { own } else { Path::new("/proc/thread-self/attr/exec") };
        let what = || format!("asking for the AppArmor profile {profile}");
        write(path, &format!("exec {profile}")).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Error::step(what(), "it is not loaded; load it with apparmor_parser"),
            _ => Error::step(what(), error),
        })?;
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(Error::Unsupported(format!(
                "the SELinux label {label} is asked for, but this kernel has no SELinux"
            )));
        }
        write(Path::new("/proc/thread-self/attr/exec"), label)
            .step(|| format!("asking for the SELinux label {label}"))?;
    }
    Ok(())
}

/// Writes to a file that must be procfs's own: one from elsewhere would swallow the label.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    if rustix::fs::fstatfs(&file)?.f_type as u64 != super::mount::PROC {
        return Err(std::io::Error::other(format!("{} does not lie in a proc file system", path.display())));
    }
    file.write_all(text.as_bytes())
}

/// Gives the process a session keyring of its own, so that it sees nobody else's keys. A kernel without keys has none to
/// protect.
pub(crate) fn keyring(name: &str) -> Result<(), Error> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = std::ffi::CString::new(format!("_ses.{name}")).step(|| "naming a keyring")?;
    // SAFETY: the name is valid for the call, which only reads it.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if done >= 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EDQUOT)) => Ok(()),
        error => Err(error).step(|| "joining a keyring"),
    }
}

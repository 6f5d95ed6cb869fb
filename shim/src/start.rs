//! The action `start` of shim v2: starts the process that holds the container, on its own, and prints where it listens.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, OpenOptionsExt as _},
            process::CommandExt as _,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use berth_core::bundle::SHIM_SOCKET_FD;

use crate::{
    address,
    arguments::Arguments,
    error::{During as _, Error},
};

/// Starts a shim, where none is there.
///
/// # Errors
/// It cannot be started, or the address cannot be told.
pub fn start(arguments: &Arguments) -> Result<(), Error> {
    let bundle = arguments.bundle()?;
    let address = address::of(arguments);
    if let Some(listener) = address::listen(&address)?
        && let Err(error) = spawn(arguments, &bundle, listener.into())
    {
        let _ = std::fs::remove_file(&address);
        return Err(error);
    }
    let text = address::remember(&bundle, &address)?;
    std::io::stdout().write_all(text.as_bytes()).during(|| "telling the address")
}

fn spawn(arguments: &Arguments, bundle: &Path, listener: OwnedFd) -> Result<(), Error> {
    let what = || "starting the shim";
    // Away from the low descriptors, one of which it shall become.
    let listener = rustix::io::fcntl_dupfd_cloexec(&listener, 10).during(what)?;
    let socket = listener.as_raw_fd();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("containerd-shim-berth-v2");
    command.args(["-namespace", &arguments.namespace, "-id", &arguments.id, "-address", &arguments.address]);
    command.arg("-publish-binary").arg(&arguments.publish_binary).arg("-bundle").arg(bundle).arg("serve");
    command.current_dir(bundle).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(bundle));
    // SAFETY: what runs in the child are three calls that may be made there.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if libc::dup2(socket, SHIM_SOCKET_FD) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn().map(|_| ()).during(what)
}

/// Where the shim complains to: the FIFO that containerd reads, without ever waiting for it.
fn log(bundle: &Path) -> Stdio {
    let path = bundle.join("log");
    let is_fifo = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_fifo());
    let opened: Option<File> = is_fifo
        .then(|| OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).ok())
        .flatten();
    opened.map_or_else(Stdio::null, Stdio::from)
}

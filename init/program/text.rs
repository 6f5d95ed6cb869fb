//! Texts that end with a zero byte, and the words for what the kernel refuses.

use core::ffi::{CStr, c_char};

use crate::kernel;

/// One that lies where the kernel put it.
#[derive(Clone, Copy)]
pub(crate) struct Text(&'static CStr);

impl Text {
    /// # Safety
    /// There is a text, and it stays for as long as the process.
    pub(crate) unsafe fn at(text: *const c_char) -> Self {
        // SAFETY: as promised.
        Self(unsafe { CStr::from_ptr(text) })
    }

    pub(crate) fn bytes(self) -> &'static [u8] {
        self.0.to_bytes()
    }

    pub(crate) fn pointer(self) -> *const c_char {
        self.0.as_ptr()
    }
}

/// What an error number says, of those that matter here.
pub(crate) fn why(error: i32) -> &'static [u8] {
    match error {
        kernel::ENOENT => b"No such file or directory",
        kernel::E2BIG => b"Argument list too long",
        kernel::ENOEXEC => b"Exec format error",
        kernel::EAGAIN => b"Resource temporarily unavailable",
        kernel::ENOMEM => b"Cannot allocate memory",
        kernel::EACCES => b"Permission denied",
        kernel::ENOTDIR => b"Not a directory",
        _ => b"the kernel refuses",
    }
}

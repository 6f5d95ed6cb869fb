//! The container's own program: in the foreground of the terminal, where there is one, and with the signals that it would
//! have without us.

use core::ffi::c_char;

use crate::{
    NOT_EXECUTABLE, NOT_FOUND,
    kernel::{self, SignalSet},
    text::{self, Text},
};

/// Where programs are looked for when nobody says.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// No path is longer, for the kernel.
const LONGEST: usize = 4096;

pub(crate) struct Program {
    pub(crate) name: Text,
    /// With the name, and a null pointer at the end.
    pub(crate) arguments: &'static [*const c_char],
    /// With a null pointer at the end.
    pub(crate) environment: *const *const c_char,
    pub(crate) signals: SignalSet,
}

impl Program {
    /// Becomes it.
    pub(crate) fn execute(&self) -> ! {
        // Its own group, so that it can be stopped by whoever types; changing the terminal's group is allowed as long as
        // the signals are blocked.
        kernel::lead_group();
        kernel::take_terminal();
        kernel::block_exactly(self.signals);
        let error = self.search();
        kernel::complain(&[b"exec ", self.name.bytes(), b" failed: ", text::why(error), b"\n"]);
        kernel::exit(if error == kernel::ENOENT || error == kernel::ENOTDIR { NOT_FOUND } else { NOT_EXECUTABLE })
    }

    /// As a shell does it; answers with why there is nothing to execute.
    fn search(&self) -> i32 {
        let name = self.name.bytes();
        if name.contains(&b'/') {
            return kernel::execute(self.name.pointer(), self.arguments.as_ptr(), self.environment);
        }
        if name.is_empty() {
            return kernel::ENOENT;
        }
        let mut worst = kernel::ENOENT;
        for directory in self.path().split(|byte| *byte == b':') {
            let mut place = [0_u8; LONGEST];
            let directory = if directory.is_empty() { b"." } else { directory };
            if directory.len() + name.len() + 2 > LONGEST {
                continue;
            }
            place[..directory.len()].copy_from_slice(directory);
            place[directory.len()] = b'/';
            place[directory.len() + 1..][..name.len()].copy_from_slice(name);
            match kernel::execute(place.as_ptr().cast(), self.arguments.as_ptr(), self.environment) {
                kernel::ENOENT | kernel::ENOTDIR => {}
                // Another one may be found further on.
                kernel::EACCES => worst = kernel::EACCES,
                error => return error,
            }
        }
        worst
    }

    fn path(&self) -> &'static [u8] {
        let mut variable = self.environment;
        // SAFETY: the environment ends with a null pointer, and every variable with a zero byte.
        unsafe {
            while !(*variable).is_null() {
                if let Some(path) = Text::at(*variable).bytes().strip_prefix(b"PATH=") {
                    return path;
                }
                variable = variable.add(1);
            }
        }
        PATH
    }
}

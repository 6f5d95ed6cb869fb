//! A container's first process: starts the program it is given, passes every signal on to it, reaps all that die, and ends
//! with its exit code, or 128 and the number of the signal that ended it.
//!
//! No library is beneath this, no allocator and no thread: it must run where nothing is, and stay small, for there may be
//! thousands. What the kernel laid on the stack (arguments, environment) is all that it ever reads.
#![no_builtins]
#![no_std]
#![no_main]

mod child;
mod kernel;
mod memory;
mod text;

use core::ffi::c_char;

use kernel::{Pid, SignalSet};
use text::Text;

/// As a shell has it: the program is not there, or cannot be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
const FAILED: i32 = 1;

/// # Safety
/// `stack` is what the kernel made at the start: the number of arguments, the arguments, a null pointer, the environment,
/// a null pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: as promised.
    let (arguments, environment) = unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const c_char>();
        (core::slice::from_raw_parts(arguments, count + 1), arguments.add(count + 1))
    };
    // SAFETY: the kernel ends every argument with a zero byte, and they stay for as long as the process.
    let argument = |n: usize| arguments.get(n).filter(|text| !text.is_null()).map(|text| unsafe { Text::at(*text) });
    let first = match argument(1) {
        Some(word) if word.bytes() == b"--" => 2,
        _ => 1,
    };
    let Some(name) = argument(first) else {
        kernel::complain(&[b"no program is named\n"]);
        kernel::exit(FAILED);
    };
    // Where another process is the first one, children that lose their parent come here all the same.
    kernel::become_subreaper();
    let before = kernel::block(SignalSet::FORWARDED);
    let program = child::Program { name, arguments: &arguments[first..], environment, signals: before };
    match kernel::fork() {
        Ok(0) => program.execute(),
        Ok(child) => watch(child),
        Err(error) => {
            kernel::complain(&[b"no process can be made: ", text::why(error), b"\n"]);
            kernel::exit(FAILED);
        }
    }
}

/// Lives as long as the child.
fn watch(child: Pid) -> ! {
    loop {
        match kernel::next_signal(SignalSet::FORWARDED) {
            kernel::SIGCHLD => {
                if let Some(code) = reap(child) {
                    kernel::exit(code);
                }
            }
            signal => kernel::send(child, signal),
        }
    }
}

/// Buries all that are dead; answers with the exit code where the child is among them. One signal may stand for many.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    while let Some((pid, status)) = kernel::bury() {
        if pid == child {
            let signal = status & 0x7f;
            code = Some(if signal == 0 { status >> 8 & 0xff } else { 128 + signal });
        }
    }
    code
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    kernel::complain(&[b"a fault in the program itself\n"]);
    kernel::exit(FAILED)
}

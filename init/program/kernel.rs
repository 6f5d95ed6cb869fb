//! The few system calls, by number. A call that is interrupted is made again by whoever needs its answer.

use core::{
    arch::{asm, global_asm},
    ffi::c_char,
    ptr,
};

pub(crate) type Pid = i32;

pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const ENOENT: i32 = 2;
const EINTR: i32 = 4;
pub(crate) const E2BIG: i32 = 7;
pub(crate) const ENOEXEC: i32 = 8;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EACCES: i32 = 13;
pub(crate) const ENOTDIR: i32 = 20;

const SIG_SETMASK: usize = 2;
const WNOHANG: usize = 1;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const TIOCSPGRP: usize = 0x5410;
const STDIN: usize = 0;
const STDERR: usize = 2;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const WRITE: usize = 1;
    pub(super) const SIGPROCMASK: usize = 14;
    pub(super) const IOCTL: usize = 16;
    pub(super) const GETPID: usize = 39;
    pub(super) const CLONE: usize = 56;
    pub(super) const EXECVE: usize = 59;
    pub(super) const WAIT4: usize = 61;
    pub(super) const KILL: usize = 62;
    pub(super) const SETPGID: usize = 109;
    pub(super) const SIGTIMEDWAIT: usize = 128;
    pub(super) const PRCTL: usize = 157;
    pub(super) const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const IOCTL: usize = 29;
    pub(super) const WRITE: usize = 64;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const KILL: usize = 129;
    pub(super) const SIGPROCMASK: usize = 135;
    pub(super) const SIGTIMEDWAIT: usize = 137;
    pub(super) const SETPGID: usize = 154;
    pub(super) const PRCTL: usize = 167;
    pub(super) const GETPID: usize = 172;
    pub(super) const CLONE: usize = 220;
    pub(super) const EXECVE: usize = 221;
    pub(super) const WAIT4: usize = 260;
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("this program has the system calls of x86_64 and aarch64 only: add those of this architecture");

// The kernel jumps here with everything on the stack, which functions want aligned to 16 bytes.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call begin", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x0, sp", "and sp, x0, #-16", "bl begin", "brk #1");

/// # Safety
/// As the call itself says of its arguments.
unsafe fn call(number: usize, arguments: [usize; 5]) -> Result<usize, i32> {
    let [a, b, c, d, e] = arguments;
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel keeps every register but these, and the caller answers for the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel keeps every register but the first, and the caller answers for the arguments.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack)
        );
    }
    if answer < 0 { Err(-answer as i32) } else { Ok(answer as usize) }
}

/// Bit n - 1 for signal n, as the kernel has it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct SignalSet(u64);

impl SignalSet {
    /// All that can be passed on. A fault of this program itself (ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS) is none of the child's.
    pub(crate) const FORWARDED: Self = Self(!(bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(31)));
    const SIZE: usize = size_of::<u64>();
}

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Blocks these; answers with what was blocked before.
pub(crate) fn block(signals: SignalSet) -> SignalSet {
    let mut before = SignalSet(0);
    // SAFETY: both sets are there, and as large as is said.
    let _ = unsafe {
        call(
            number::SIGPROCMASK,
            [SIG_SETMASK, ptr::from_ref(&signals) as usize, ptr::from_mut(&mut before) as usize, SignalSet::SIZE, 0],
        )
    };
    before
}

/// Blocks these and no others.
pub(crate) fn block_exactly(signals: SignalSet) {
    let _ = block(signals);
}

/// Waits for the next of these, which are blocked.
pub(crate) fn next_signal(signals: SignalSet) -> i32 {
    loop {
        // SAFETY: the set is there, and as large as is said; nothing is asked about the signal, and no time is set.
        let answer =
            unsafe { call(number::SIGTIMEDWAIT, [ptr::from_ref(&signals) as usize, 0, 0, SignalSet::SIZE, 0]) };
        if let Ok(signal) = answer {
            return signal as i32;
        }
    }
}

/// Sends a signal; one that is dead already needs none.
pub(crate) fn send(pid: Pid, signal: i32) {
    // SAFETY: the call takes its arguments by value.
    let _ = unsafe { call(number::KILL, [pid as usize, signal as usize, 0, 0, 0]) };
}

/// A process that is dead, and its status, where there is one.
pub(crate) fn bury() -> Option<(Pid, i32)> {
    let mut status = 0_i32;
    loop {
        // SAFETY: the place for the status is there; -1 stands for any child.
        match unsafe { call(number::WAIT4, [usize::MAX, ptr::from_mut(&mut status) as usize, WNOHANG, 0, 0]) } {
            Ok(0) => return None,
            Ok(pid) => return Some((pid as Pid, status)),
            Err(EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// A copy of this process; 0 in the copy itself.
pub(crate) fn fork() -> Result<Pid, i32> {
    // SAFETY: nothing is shared, so each goes on with memory of its own.
    unsafe { call(number::CLONE, [SIGCHLD as usize, 0, 0, 0, 0]) }.map(|pid| pid as Pid)
}

/// Returns only where it fails, with the reason.
pub(crate) fn execute(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> i32 {
    // SAFETY: all three are there, and end as the kernel wants it.
    match unsafe { call(number::EXECVE, [path as usize, arguments as usize, environment as usize, 0, 0]) } {
        Ok(_) => 0,
        Err(error) => error,
    }
}

/// Processes whose parent dies become this one's children.
pub(crate) fn become_subreaper() {
    // SAFETY: the call takes its arguments by value.
    let _ = unsafe { call(number::PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]) };
}

/// Makes this process the first of a group.
pub(crate) fn lead_group() {
    // SAFETY: the call takes its arguments by value; 0 stands for this process.
    let _ = unsafe { call(number::SETPGID, [0, 0, 0, 0, 0]) };
}

/// Puts this process's group in the foreground of the terminal, where standard input is one.
pub(crate) fn take_terminal() {
    // SAFETY: the call takes no argument, and cannot fail.
    let Ok(pid) = (unsafe { call(number::GETPID, [0; 5]) }) else { return };
    let group = pid as Pid;
    // SAFETY: the place with the group's number is there.
    let _ = unsafe { call(number::IOCTL, [STDIN, TIOCSPGRP, ptr::from_ref(&group) as usize, 0, 0]) };
}

/// Writes to standard error, where it is open.
pub(crate) fn complain(parts: &[&[u8]]) {
    for part in [b"docker-init: " as &[u8]].iter().chain(parts) {
        // SAFETY: the text is there, and as long as is said.
        let _ = unsafe { call(number::WRITE, [STDERR, part.as_ptr() as usize, part.len(), 0, 0]) };
    }
}

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: the call takes its argument by value.
        let _ = unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0]) };
    }
}

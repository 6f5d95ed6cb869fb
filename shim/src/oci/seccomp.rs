//! Seccomp: the profile becomes a BPF program once, by the reference implementation, and is loaded from a cache after
//! that: compiling Docker's profile takes 8 ms, loading the program almost nothing.

use std::{
    fs,
    io::{Read as _, Seek as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use berth_core::Digest;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};

use super::error::{Error, Step as _};

/// Bytes of one BPF instruction (struct sock_filter).
const INSTRUCTION: usize = 8;

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Program {
    code: Vec<u8>,
    flags: libc::c_ulong,
}

impl Program {
    /// The program of a profile: from `cache`, where it was made before, or compiled and put there. `None` for a profile
    /// that allows everything.
    pub fn of(profile: &LinuxSeccomp, cache: Option<&Path>) -> Result<Option<Self>, Error> {
        if profile.listener_path().is_some() {
            return Err(Error::Spec("seccomp listeners are not supported".into()));
        }
        let allows_all = profile.default_action() == LinuxSeccompAction::ScmpActAllow
            && profile.syscalls().as_ref().is_none_or(Vec::is_empty);
        if allows_all {
            return Ok(None);
        }
        let mut flags = 0;
        for flag in profile.flags().iter().flatten() {
            flags |= match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                // One thread has nobody to synchronise with.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                _ => return Err(Error::Spec(format!("the seccomp flag {flag:?} is not supported"))),
            };
        }
        let code = match cache {
            Some(directory) => cached(profile, directory)?,
            None => compile(profile)?,
        };
        Ok(Some(Self { code, flags }))
    }

    /// Puts the calling thread under the filter, for good.
    pub(crate) fn load(&self) -> Result<(), Error> {
        let mut instructions: Vec<libc::sock_filter> = self
            .code
            .chunks_exact(INSTRUCTION)
            .map(|bytes| libc::sock_filter {
                code: u16::from_ne_bytes([bytes[0], bytes[1]]),
                jt: bytes[2],
                jf: bytes[3],
                k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
        // SAFETY: `program` and what it points to are valid for the length of the call; the kernel checks the code.
        let done =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, &raw const program) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).step(|| "loading the seccomp filter") }
    }
}

/// Reads the program from the cache, or compiles it into it. A cache that cannot be used is gone around.
fn cached(profile: &LinuxSeccomp, directory: &Path) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_vec(profile).step(|| "reading the seccomp profile")?;
    let name = Digest::sha256(&[&text[..], std::env::consts::ARCH.as_bytes()].concat());
    let path = directory.join(format!("{}.bpf", name.hex()));
    if let Some(code) = read(&path) {
        return Ok(code);
    }
    let code = compile(profile)?;
    let new = directory.join(format!(".{}.{}", name.hex(), std::process::id()));
    let write = || {
        fs::create_dir_all(directory)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        std::io::Write::write_all(&mut file, &code)?;
        fs::rename(&new, &path)
    };
    if write().is_err() {
        let _ = fs::remove_file(&new);
    }
    Ok(code)
}

/// A program that only root can have written.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return None;
    }
    let mut code = Vec::new();
    file.read_to_end(&mut code).ok()?;
    (!code.is_empty() && code.len() % INSTRUCTION == 0).then_some(code)
}

fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, Error> {
    let failed = || "compiling the seccomp profile";
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default).step(failed)?;
    // no_new_privs is the process's own business.
    filter.set_ctl_nnp(false).step(failed)?;
    for architecture in profile.architectures().iter().flatten() {
        filter.add_arch(arch(*architecture)?).step(failed)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret());
        if action == default {
            continue;
        }
        for name in rule.names() {
            // A name that libseccomp does not know is a call that this kernel's ABI does not have either.
            let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
            match rule.args().as_deref() {
                None | Some([]) => {
                    filter.add_rule(action, syscall).step(failed)?;
                }
                Some(arguments) => conditional(&mut filter, action, syscall, arguments)?,
            }
        }
    }
    let mut file = memory_file()?;
    filter.export_bpf(&file).step(failed)?;
    let mut code = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut code)).step(failed)?;
    Ok(code)
}

/// Several conditions on one argument are alternatives, on different arguments they all must hold (as runc reads them).
fn conditional(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    syscall: ScmpSyscall,
    arguments: &[LinuxSeccompArg],
) -> Result<(), Error> {
    let failed = || "compiling the seccomp profile";
    let comparisons: Vec<ScmpArgCompare> = arguments.iter().map(compare).collect();
    let repeated = arguments.iter().enumerate().any(|(n, a)| arguments[..n].iter().any(|b| a.index() == b.index()));
    if repeated {
        for comparison in comparisons {
            filter.add_rule_conditional(action, syscall, &[comparison]).step(failed)?;
        }
        return Ok(());
    }
    filter.add_rule_conditional(action, syscall, &comparisons).step(failed).map(|_| ())
}

fn compare(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let value = argument.value();
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(value), argument.value_two().unwrap_or_default())
        }
    };
    ScmpArgCompare::new(argument.index() as u32, operator, datum)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(libc::EPERM as u32) as i32;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    }
}

fn arch(architecture: Arch) -> Result<ScmpArch, Error> {
    Ok(match architecture {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        other => return Err(Error::Spec(format!("seccomp knows no architecture {other:?}"))),
    })
}

fn memory_file() -> Result<fs::File, Error> {
    let fd = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC).step(|| "making a memory file")?;
    Ok(fd.into())
}

//! The device list on cgroup v2: a small BPF program that the kernel asks for every open and mknod.
//!
//! The program compares the request with the rules from the last to the first; the first that matches decides. What no
//! rule speaks of is forbidden.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::oci::error::{Error, Step as _};

/// An eBPF instruction (struct bpf_insn).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low, source in the high four bits.
    registers: u8,
    offset: i16,
    value: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const JUMP_UNEQUAL: u8 = 0x55;
const JUMP_UNEQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

// Registers: 1 the context, 2 type, 3 access, 4 major, 5 minor, 6 scratch.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, value }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// One rule: what it speaks of, `None` for anything.
#[derive(Clone, Copy)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    access: i32,
    major: Option<i32>,
    minor: Option<i32>,
}

const fn always(kind: i32, major: Option<i32>, minor: Option<i32>, access: i32) -> Rule {
    Rule { allow: true, kind: Some(kind), access, major, minor }
}

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

/// As v1's; see there.
const ALWAYS: [Rule; 10] = [
    always(CHARACTER, None, None, MKNOD),
    always(BLOCK, None, None, MKNOD),
    always(CHARACTER, Some(1), Some(3), ALL),
    always(CHARACTER, Some(1), Some(5), ALL),
    always(CHARACTER, Some(1), Some(7), ALL),
    always(CHARACTER, Some(1), Some(8), ALL),
    always(CHARACTER, Some(1), Some(9), ALL),
    always(CHARACTER, Some(5), Some(0), ALL),
    always(CHARACTER, Some(5), Some(2), ALL),
    always(CHARACTER, Some(136), None, ALL),
];

/// Puts the list on a cgroup.
pub(super) fn allow_devices(directory: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let mut all: Vec<Rule> = rules.iter().map(rule).collect();
    all.extend(ALWAYS);
    let program = load(&assemble(&all))?;
    let directory = File::open(directory).step(|| format!("opening {}", directory.display()))?;
    let attributes = [directory.as_raw_fd() as u32, program.as_raw_fd() as u32, ATTACH_CGROUP_DEVICE, ALLOW_MULTI];
    // SAFETY: the attributes are valid for the size given, and only read.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of_val(&attributes)) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).step(|| "attaching the device program") }
}

fn rule(rule: &LinuxDeviceCgroup) -> Rule {
    let number = |number: Option<i64>| number.filter(|number| *number >= 0).map(|number| number as i32);
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    let bit = |letter: char, bit: i32| if access.contains(letter) { bit } else { 0 };
    Rule {
        allow: rule.allow(),
        kind: match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => Some(BLOCK),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
            LinuxDeviceType::A | LinuxDeviceType::P => None,
        },
        access: bit('r', READ) | bit('w', WRITE) | bit('m', MKNOD),
        major: number(rule.major()),
        minor: number(rule.minor()),
    }
}

fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        // struct bpf_cgroup_dev_ctx: access_type (type in the low, access in the high half), major, minor.
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut block = Vec::new();
        if let Some(kind) = rule.kind {
            block.push(instruction(JUMP_UNEQUAL, 2, 0, 0, kind));
        }
        if rule.access != ALL {
            // An allowing rule must cover all that is asked for; a forbidding one matches where it forbids some of it.
            let outside = if rule.allow { rule.access } else { !rule.access & ALL };
            block.push(instruction(MOVE_REGISTER, 6, 3, 0, 0));
            block.push(instruction(AND, 6, 0, 0, outside));
            if rule.allow {
                block.push(instruction(JUMP_UNEQUAL_REGISTER, 6, 3, 0, 0));
            } else {
                // Equal: nothing of what is forbidden is asked for. Jump over the jump to the next rule.
                block.push(instruction(JUMP_UNEQUAL_REGISTER, 6, 3, 1, 0));
                block.push(instruction(0x05, 0, 0, 0, 0));
            }
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                block.push(instruction(JUMP_UNEQUAL, register, 0, 0, number));
            }
        }
        block.push(instruction(MOVE, 0, 0, 0, i32::from(rule.allow)));
        block.push(instruction(EXIT, 0, 0, 0, 0));
        let length = block.len();
        for (position, step) in block.iter_mut().enumerate() {
            // Where a rule does not match, the next one is asked.
            let is_jump = matches!(step.code, JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER | 0x05);
            if is_jump && step.offset == 0 {
                step.offset = (length - position - 1) as i16;
            }
        }
        code.extend(block);
        if rule.kind.is_none() && rule.access == ALL && rule.major.is_none() && rule.minor.is_none() {
            // It matches everything: nothing before it is ever asked, and the kernel refuses code nobody reaches.
            return code;
        }
    }
    code.push(instruction(MOVE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

fn load(code: &[Instruction]) -> Result<OwnedFd, Error> {
    let license = c"Apache";
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        code: u64,
        license: u64,
        log: [u64; 2],
    }
    let attributes = Attributes {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
    };
    // SAFETY: the attributes, and the code and text they point to, are valid for the call, which only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of_val(&attributes)) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).step(|| "loading the device program");
    }
    // SAFETY: the kernel just installed the descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn allowed(rules: &str, kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(rules).unwrap();
        let code = assemble(&rules.iter().map(rule).collect::<Vec<_>>());
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i64; 11];
        let mut at = 0usize;
        loop {
            let step = code[at];
            let (to, from) = ((step.registers & 15) as usize, (step.registers >> 4) as usize);
            at += 1;
            match step.code {
                LOAD_WORD => registers[to] = i64::from(context[step.offset as usize / 4]),
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE => registers[to] = i64::from(step.value),
                AND => registers[to] &= i64::from(step.value),
                SHIFT_RIGHT => registers[to] >>= step.value,
                0x05 => at += step.offset as usize,
                JUMP_UNEQUAL if registers[to] != i64::from(step.value) => at += step.offset as usize,
                JUMP_UNEQUAL_REGISTER if registers[to] != registers[from] => at += step.offset as usize,
                JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER => {}
                EXIT => return registers[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
            {"allow":true,"type":"b","major":8,"access":"r"},{"allow":false,"type":"b","major":8,"minor":1,"access":"r"}]"#;
        assert!(allowed(rules, CHARACTER, READ | WRITE, 1, 3));
        assert!(!allowed(rules, CHARACTER, READ | MKNOD, 1, 3), "not all that is asked for is allowed");
        assert!(!allowed(rules, BLOCK, READ, 1, 3));
        assert!(allowed(rules, BLOCK, READ, 8, 7));
        assert!(!allowed(rules, BLOCK, READ, 8, 1));
        assert!(!allowed(rules, BLOCK, WRITE, 8, 7));
        assert!(!allowed("[]", CHARACTER, READ, 1, 3), "what nobody speaks of is forbidden");
        assert!(allowed(r#"[{"allow":true,"access":"rwm"}]"#, CHARACTER, ALL, 10, 229));
    }
}

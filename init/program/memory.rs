//! What the compiler takes for granted of a C library. That the loops are not made into calls of the very functions they
//! are in is what `no_builtins` says for the whole program.

/// # Safety
/// As in C: both are there, and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for n in 0..count {
        // SAFETY: as promised.
        unsafe { *to.add(n) = *from.add(n) };
    }
    to
}

/// # Safety
/// As in C: it is there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for n in 0..count {
        // SAFETY: as promised.
        unsafe { *to.add(n) = byte as u8 };
    }
    to
}

/// # Safety
/// As in C: both are there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for n in 0..count {
        // SAFETY: as promised.
        let (one, other) = unsafe { (*one.add(n), *other.add(n)) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

/// # Safety
/// As in C: both are there.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: as promised.
    unsafe { memcmp(one, other, count) }
}

/// # Safety
/// As in C: it is there, and ends with a zero byte.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: as promised.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}

/// The core library as it is shipped names it. Nothing unwinds here, so nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

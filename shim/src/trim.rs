//! What making a process needed goes back to the system: a shim does that once and then lives beside it for weeks.

/// Gives back memory that is free.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes its argument by value and only touches the allocator's own free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

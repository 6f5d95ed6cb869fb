//! Buffers for reading blobs, used again: fresh memory costs a page fault for each page of it.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Bytes that are read at once.
pub(super) const SIZE: usize = 256 << 10;
/// So many are kept for the next reader.
const KEPT: usize = 64;

static FREE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer; back on the list when it is dropped.
pub(super) struct Buffer {
    memory: Box<[u8]>,
    length: usize,
}

impl Buffer {
    pub(super) fn take() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { memory: free.unwrap_or_else(|| vec![0; SIZE].into()), length: 0 }
    }

    /// The memory to read into.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The first `length` bytes, to be sent.
    pub(super) fn filled(mut self, length: usize) -> Bytes {
        self.length = length.min(self.memory.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(memory);
        }
    }
}

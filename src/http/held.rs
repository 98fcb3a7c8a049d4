//! The memory that connections hold while they wait: unfinished heads, and answers not yet taken.
//!
//! An idle connection holds nothing, so only those that make the server wait pay for this. Above
//! three quarters of the limit the clock evicts the oldest holders. Above the limit a connection is
//! refused instead of waited for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes held by all waiting connections, and their limit.
#[derive(Debug)]
pub(super) struct HeldMemory {
    limit: usize,
    held: AtomicUsize,
    /// Bytes of socket buffers, where the kernel takes them out of the same limit.
    kernel: AtomicUsize,
    scarce: AtomicBool,
}

/// The bytes that one connection holds while it waits; dropping this gives them back.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    memory: &'a HeldMemory,
    bytes: usize,
}

impl HeldMemory {
    pub(super) fn new(limit: usize) -> HeldMemory {
        HeldMemory {
            limit,
            held: AtomicUsize::new(0),
            kernel: AtomicUsize::new(0),
            scarce: AtomicBool::new(false),
        }
    }

    /// Holds that many bytes; `None` where the limit does not allow it.
    pub(super) fn hold(&self, bytes: usize) -> Option<Hold<'_>> {
        let hold = Hold {
            memory: self,
            bytes,
        };
        if bytes == 0 {
            return Some(hold);
        }
        let held = self.held.fetch_add(bytes, Ordering::Relaxed)
            + bytes
            + self.kernel.load(Ordering::Relaxed);
        if self.is_above_threshold(held) {
            self.scarce.store(true, Ordering::Relaxed);
        }
        (held <= self.limit).then_some(hold)
    }

    /// Whether connections must be evicted, because of now or of any moment since the last call.
    pub(super) fn take_scarce(&self) -> bool {
        self.scarce.swap(false, Ordering::Relaxed) || self.is_above_threshold(self.held())
    }

    fn is_above_threshold(&self, held: usize) -> bool {
        held > self.limit / 4 * 3
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed) + self.kernel.load(Ordering::Relaxed)
    }

    pub(super) fn set_kernel(&self, bytes: usize) {
        self.kernel.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let memory = HeldMemory::new(100);
        let first = memory.hold(70);
        assert!(first.is_some() && !memory.take_scarce());
        assert!(memory.hold(31).is_none(), "beyond the limit");
        assert!(memory.take_scarce(), "the refused attempt is remembered");
        let second = memory.hold(30);
        assert!(second.is_some() && memory.take_scarce());
        drop((first, second));
        assert_eq!(memory.held(), 0);
        assert!(memory.hold(0).is_some());
        memory.set_kernel(80);
        assert!(memory.hold(21).is_none() && memory.take_scarce());
    }
}

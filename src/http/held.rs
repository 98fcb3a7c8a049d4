//! The memory that connections may hold while they wait: unfinished heads, and answers that are not
//! taken.
//!
//! A connection that has nothing to wait for with holds nothing, so the price of this is paid by
//! those alone that make the server wait. Beyond three quarters of the budget the clock has the
//! oldest of them evicted; beyond all of it a connection is refused instead of waited for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The bytes that waiting connections hold, and may.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    held: AtomicUsize,
    /// Bytes that the kernel holds for connections, where that is taken from the same limit.
    kernel: AtomicUsize,
    scarce: AtomicBool,
}

/// Bytes that one connection holds while it waits.
#[derive(Debug)]
pub(super) struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of that many bytes.
    pub(super) fn new(limit: usize) -> Budget {
        Budget {
            limit,
            held: AtomicUsize::new(0),
            kernel: AtomicUsize::new(0),
            scarce: AtomicBool::new(false),
        }
    }

    /// Takes that many bytes until the guard is dropped; `None` where they are not there.
    pub(super) fn hold(&self, bytes: usize) -> Option<Held<'_>> {
        if bytes == 0 {
            return Some(Held {
                budget: self,
                bytes: 0,
            });
        }
        let held = self.held.fetch_add(bytes, Ordering::Relaxed)
            + bytes
            + self.kernel.load(Ordering::Relaxed);
        let guard = Held {
            budget: self,
            bytes,
        };
        if held > self.limit / 4 * 3 {
            self.scarce.store(true, Ordering::Relaxed);
        }
        (held <= self.limit).then_some(guard)
    }

    /// Whether connections have to go, since the last call.
    pub(super) fn take_scarce(&self) -> bool {
        self.scarce.swap(false, Ordering::Relaxed) || self.is_scarce()
    }

    /// Whether more than three quarters are held.
    pub(super) fn is_scarce(&self) -> bool {
        self.held() > self.limit / 4 * 3
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed) + self.kernel.load(Ordering::Relaxed)
    }

    /// Tells what the kernel holds now.
    pub(super) fn set_kernel(&self, bytes: usize) {
        self.kernel.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let budget = Budget::new(100);
        let first = budget.hold(70);
        assert!(first.is_some() && !budget.take_scarce());
        assert!(budget.hold(31).is_none(), "beyond the limit");
        assert!(budget.take_scarce(), "that it was asked for is known");
        let second = budget.hold(30);
        assert!(second.is_some() && budget.is_scarce());
        drop((first, second));
        assert_eq!(budget.held(), 0);
        assert!(budget.hold(0).is_some());
        budget.set_kernel(80);
        assert!(budget.hold(21).is_none() && budget.is_scarce());
    }
}

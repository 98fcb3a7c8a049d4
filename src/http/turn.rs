//! Fairness among the connections of one worker: who has much to do lets the others go first now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use may::coroutine;

/// Requests answered and reads made without a wait, after which a connection gives way. So many small requests take
/// about as long as one batch of visits.
pub(super) const MAX_TURN: u32 = 64;

/// How much a connection has done since it last waited.
#[derive(Debug, Default)]
pub(super) struct Turn {
    done: u32,
}

impl Turn {
    /// The connection waited: others had their turn.
    pub(super) fn begin(&mut self) {
        self.done = 0;
    }

    /// It read, or answered.
    pub(super) fn count(&mut self) {
        self.done += 1;
    }

    /// Whether it is to give way.
    pub(super) fn is_over(&self) -> bool {
        self.done >= MAX_TURN
    }
}

/// Lets the worker look at all its other connections first. `may`'s own yield would come back before the worker asks its
/// epoll for events, and so starve them; a coroutine that is spawned from anywhere runs only after that.
#[cold]
#[inline(never)]
pub(super) fn give_way(worker: usize) {
    let (me, called) = (coroutine::current(), Arc::new(AtomicBool::new(false)));
    let call = {
        let called = Arc::clone(&called);
        move || {
            called.store(true, Ordering::Release);
            me.unpark();
        }
    };
    // SAFETY: it runs on this same worker, uses no thread-local value and next to no stack.
    if unsafe { coroutine::Builder::new().id(worker).spawn(call) }.is_err() {
        return;
    }
    // A wake-up meant for something else may still be due, so one is not enough to know.
    while !called.load(Ordering::Acquire) {
        coroutine::park();
    }
}

//! Fairness among the connections of one worker: who has much to do lets the others go first now
//! and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use may::coroutine;

/// Time that a connection may keep its worker without a wait: about as long as one batch of visits
/// takes.
const MAX_TIME: Duration = Duration::from_micros(200);
/// The same in requests answered and reads made, whatever the clock says.
pub(super) const MAX_TURN: u32 = 64;
/// What one request takes: a read and an answer. Most connections wait after that, and are not
/// timed.
const FREE: u32 = 2;

/// How much a connection has done since it last waited.
#[derive(Debug, Default)]
pub(super) struct Turn {
    done: u32,
    began: Option<Instant>,
}

impl Turn {
    /// The connection waited: others had their turn.
    pub(super) fn begin(&mut self) {
        (self.done, self.began) = (0, None);
    }

    /// It read, or answered.
    pub(super) fn count(&mut self) {
        self.done += 1;
    }

    /// Whether it is to give way.
    pub(super) fn is_over(&mut self) -> bool {
        if self.done <= FREE {
            return false;
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        self.done >= MAX_TURN || began.elapsed() >= MAX_TIME
    }
}

/// Lets the worker look at all its other connections first. `may`'s own yield would come back
/// before the worker asks its epoll for events, and so starve them; a coroutine that is spawned
/// from anywhere runs only after that.
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

//! The start of all lanes: no visit is taken until every one has its ledger, and has tried its
//! counter once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::visits::Event;

pub(in crate::visits) struct Startup {
    /// Time between two attempts to reach the ledger.
    pub(super) interval: Duration,
    /// Parts that are not ready.
    missing: Mutex<usize>,
    all_ready: Condvar,
    begun: AtomicBool,
    pub(super) schema: OnceLock<String>,
    on_event: Box<dyn Fn(Event) + Send + Sync>,
}

impl Startup {
    /// A start in which `parts` parts take part.
    pub(in crate::visits) fn new(
        parts: usize,
        interval: Duration,
        on_event: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        Startup {
            interval,
            missing: Mutex::new(parts),
            all_ready: Condvar::new(),
            begun: AtomicBool::new(false),
            schema: OnceLock::new(),
            on_event,
        }
    }

    /// A part is ready; says whether it was the last one.
    pub(super) fn ready(&self) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        *missing -= 1;
        if *missing > 0 {
            return false;
        }
        self.begun.store(true, Ordering::Release);
        self.all_ready.notify_all();
        true
    }

    /// Waits until all parts are ready.
    pub(super) fn wait(&self) {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let _all = self.all_ready.wait_while(missing, |missing| *missing > 0);
    }

    /// Whether visits are taken.
    pub(in crate::visits) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn report(&self, event: Event) {
        (self.on_event)(event);
    }
}

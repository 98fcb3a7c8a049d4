//! The history as it was read last. A lane reads it, as one more question to its ledger; whoever
//! only wants it fresh gets it without waiting, and has it read again, at most once a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Bucket, History};
use crate::clock;

/// What was read is new enough for this long, in milliseconds.
const FRESH_MS: u64 = 1000;
/// A page shows what was read this long ago: a reading, and a tick that finds it old, take their
/// time.
const SHOWN_MS: u64 = 2000;

/// The last reading.
pub(in crate::visits) struct Reader {
    last: Mutex<Option<Arc<History>>>,
    /// Somebody was given it since the last tick.
    shown: AtomicBool,
    /// Readings so far, and the coarse clock at the last.
    readings: AtomicU64,
    read_ms: AtomicU64,
}

impl Reader {
    pub(in crate::visits) fn new() -> Self {
        Reader {
            last: Mutex::default(),
            shown: AtomicBool::new(false),
            readings: AtomicU64::new(0),
            read_ms: AtomicU64::new(0),
        }
    }

    /// Which reading was the last, from 1, and whether it is recent: every page asks, so this takes
    /// no lock.
    pub(in crate::visits) fn last_reading(&self) -> (u64, bool) {
        // A store only where it changes something.
        if !self.shown.load(Ordering::Relaxed) {
            self.shown.store(true, Ordering::Relaxed);
        }
        let reading = self.readings.load(Ordering::Acquire);
        (reading, reading > 0 && self.age_ms() < SHOWN_MS)
    }

    /// What was read last; `None` before the first reading.
    pub(in crate::visits) fn last(&self) -> Option<Arc<History>> {
        self.lock().clone()
    }

    /// Whether somebody saw what is not fresh any more, since this was asked last.
    pub(in crate::visits) fn is_due(&self) -> bool {
        (self.age_ms() >= FRESH_MS || self.readings.load(Ordering::Relaxed) == 0)
            && self.shown.swap(false, Ordering::Relaxed)
    }

    /// Takes over what a lane read.
    pub(in crate::visits) fn publish(&self, now: SystemTime, buckets: &[Bucket]) {
        *self.lock() = Some(Arc::new(History::new(now, buckets)));
        self.read_ms.store(clock::monotonic_ms(), Ordering::Relaxed);
        self.readings.fetch_add(1, Ordering::Release);
    }

    fn age_ms(&self) -> u64 {
        clock::monotonic_ms().saturating_sub(self.read_ms.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<History>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

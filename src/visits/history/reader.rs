//! The last reading of the history. A lane reads it, at most once a second. A page takes the last
//! reading without waiting, which has the next one made.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Bucket, History};
use crate::clock;

/// Age at which the history is read again, in milliseconds.
const FRESH_MS: u64 = 1000;
/// Age up to which a page shows a reading: a new one, and the tick that asks for it, take their
/// time.
const SHOWN_MS: u64 = 2000;

pub(in crate::visits) struct Reader {
    last: Mutex<Option<Arc<History>>>,
    /// A page took the last reading since the last tick.
    shown: AtomicBool,
    readings: AtomicU64,
    /// When the last reading was made, on the coarse clock.
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

    /// The number of the last reading, from 1, and whether it is recent. Every page asks, so this
    /// takes no lock.
    pub(in crate::visits) fn last_reading(&self) -> (u64, bool) {
        // Stores only where that changes something: the cache line is shared.
        if !self.shown.load(Ordering::Relaxed) {
            self.shown.store(true, Ordering::Relaxed);
        }
        let reading = self.readings.load(Ordering::Acquire);
        (reading, reading > 0 && self.age_ms() < SHOWN_MS)
    }

    /// The last reading; `None` before the first.
    pub(in crate::visits) fn last(&self) -> Option<Arc<History>> {
        self.lock().clone()
    }

    /// Whether a page took a reading that is no longer fresh, since the last call.
    pub(in crate::visits) fn is_due(&self) -> bool {
        (self.age_ms() >= FRESH_MS || self.readings.load(Ordering::Relaxed) == 0)
            && self.shown.swap(false, Ordering::Relaxed)
    }

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

//! The open connections and their deadlines. A sweep at each tick of the clock wakes those that are
//! overdue, so no connection needs a timer.
//!
//! Only a connection's own coroutine touches its socket: the sweep has the worker wake it, and it
//! finds out for itself that its time is up.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entry::{CloseRequest, Entry, milliseconds};
use super::phase::{Phase, Shortage};
use super::stats::Stats;
use crate::clock;
use crate::workers;

/// A client has this long to take an answer before its connection may be evicted.
const WRITING_MS: u64 = 1000;
/// Entries visited under one lock, so that a closing connection never waits for all of them.
const CHUNK: usize = 256;

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    slots: Mutex<Slots>,
    /// For each worker, whether it still has to wake some of its connections.
    waking: Arc<[AtomicBool]>,
    stats: Arc<Stats>,
    /// Connections beyond the limit, which get a 503.
    refusing: AtomicUsize,
    draining: AtomicBool,
    listening: AtomicBool,
    /// The whole time that a client has to take an answer.
    writing_time_ms: u64,
}

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<Arc<Entry>>>,
    free: Vec<usize>,
}

impl Registry {
    pub(super) fn new(workers: usize, stats: Arc<Stats>, writing_time: Duration) -> Self {
        Registry {
            writing_time_ms: milliseconds(writing_time),
            slots: Mutex::default(),
            waking: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            stats,
            refusing: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            listening: AtomicBool::new(true),
        }
    }

    /// Enters a connection that runs on `worker`.
    pub(super) fn enter(&self, worker: usize, peer: IpAddr, refused: bool) -> Arc<Entry> {
        self.counter(refused).fetch_add(1, Ordering::Relaxed);
        let mut slots = self.lock();
        let slot = slots.free.pop().unwrap_or(slots.entries.len());
        let entry = Arc::new(Entry::new(worker, peer, refused, slot));
        if slot == slots.entries.len() {
            slots.entries.push(None);
        }
        slots.entries[slot] = Some(Arc::clone(&entry));
        entry
    }

    /// Removes a connection whose socket is closed.
    pub(super) fn leave(&self, entry: &Entry) {
        let mut slots = self.lock();
        slots.entries[entry.slot] = None;
        slots.free.push(entry.slot);
        drop(slots);
        self.counter(entry.refused).fetch_sub(1, Ordering::Release);
    }

    /// Wakes every connection whose wait is over.
    pub(super) fn sweep(&self) {
        let draining = self.is_draining();
        let mut over: Vec<Vec<Arc<Entry>>> = vec![Vec::new(); self.waking.len()];
        self.each(|_, entry| {
            if draining {
                entry.request_close(CloseRequest::WhenIdle);
            }
            if entry.is_over() {
                over[entry.worker].push(Arc::clone(entry));
            }
        });
        for (worker, entries) in over.into_iter().enumerate() {
            self.wake(worker, entries);
        }
    }

    /// Lends every entry with its slot. The lock is released now and then, so a connection that
    /// comes in between may be missed.
    fn each(&self, mut lend: impl FnMut(usize, &Arc<Entry>)) {
        let mut from = 0;
        loop {
            let slots = self.lock();
            let Some(chunk) = slots.entries.get(from..) else {
                return;
            };
            if chunk.is_empty() {
                return;
            }
            for (offset, entry) in chunk.iter().take(CHUNK).enumerate() {
                if let Some(entry) = entry {
                    lend(from + offset, entry);
                }
            }
            from += CHUNK;
        }
    }

    /// Has the worker wake these connections of its own.
    fn wake(&self, worker: usize, entries: Vec<Arc<Entry>>) {
        // Still busy with the last ones: the next sweep finds these again.
        if entries.is_empty() || self.waking[worker].swap(true, Ordering::AcqRel) {
            return;
        }
        let waking = Arc::clone(&self.waking);
        let wake_all = move || {
            waking[worker].store(false, Ordering::Release);
            entries.iter().for_each(|entry| entry.wake_up());
        };
        if let Err(error) = workers::spawn(worker, wake_all) {
            self.waking[worker].store(false, Ordering::Release);
            log::error!("cannot wake connections of worker {worker}: {error}");
        }
    }

    /// Evicts up to `most` connections, so that others have room; returns how many it evicted.
    pub(super) fn evict(&self, most: usize, shortage: Shortage) -> usize {
        let mut candidates: Vec<(u8, u64, usize)> = Vec::new();
        let now = clock::monotonic_ms();
        self.each(|slot, entry| {
            let (phase, deadline) = (entry.phase(), entry.deadline_ms());
            // No deadline: it was only just accepted.
            if entry.must_close() || deadline == 0 {
                return;
            }
            if phase == Phase::Writing && now < self.writing_since_ms(deadline) + WRITING_MS {
                return;
            }
            if let Some(rank) = shortage.rank(phase) {
                candidates.push((rank, deadline, slot));
            }
        });
        // All of one phase have the same time, so the earliest deadline is the oldest connection.
        if candidates.len() > most {
            candidates.select_nth_unstable(most);
            candidates.truncate(most);
        }
        let mut evicted = 0;
        for (rank, _, slot) in candidates {
            let entry = self.lock().entries.get(slot).cloned().flatten();
            // Another connection may have the slot by now, or this one may be served.
            let Some(entry) = entry.filter(|entry| shortage.rank(entry.phase()) == Some(rank))
            else {
                continue;
            };
            let phase = entry.phase();
            entry.request_close(match phase {
                Phase::Idle | Phase::Following | Phase::Reading => CloseRequest::Evict,
                Phase::Serving | Phase::Writing => CloseRequest::Now,
            });
            self.stats.evicted(phase);
            evicted += 1;
        }
        self.sweep();
        evicted
    }

    fn writing_since_ms(&self, deadline_ms: u64) -> u64 {
        deadline_ms.saturating_sub(self.writing_time_ms)
    }

    /// Closes every connection that is not being served.
    pub(super) fn close_all_but_served(&self) {
        self.each(|_, entry| {
            if entry.phase() != Phase::Serving {
                entry.request_close(CloseRequest::Now);
            }
        });
        self.sweep();
    }

    /// From now on every connection closes when it is idle.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.sweep();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn draining(&self) -> &AtomicBool {
        &self.draining
    }

    pub(super) fn stopped_listening(&self) {
        self.listening.store(false, Ordering::Release);
    }

    /// Whether no connection is open and none can come.
    pub(super) fn is_done(&self) -> bool {
        !self.listening.load(Ordering::Acquire) && self.open() == 0 && self.refusing() == 0
    }

    /// Connections that are served.
    pub(super) fn open(&self) -> usize {
        self.counter(false).load(Ordering::Acquire)
    }

    /// Connections that are being refused.
    pub(super) fn refusing(&self) -> usize {
        self.counter(true).load(Ordering::Acquire)
    }

    fn counter(&self, refused: bool) -> &AtomicUsize {
        if refused {
            &self.refusing
        } else {
            &self.stats.open
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

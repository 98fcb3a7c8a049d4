//! What the front door counts about itself, for `/metrics`. Each worker has its own counters, on its own cache lines.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::registry::Phase;
use super::response::Status;

/// Counters of the front door.
#[derive(Debug)]
pub struct Stats {
    workers: Box<[PerWorker]>,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections refused because too many were open.
    pub refused: AtomicU64,
    /// Connections that are open.
    pub open: AtomicUsize,
    /// Connections evicted, by what they were doing.
    evicted: [AtomicU64; Phase::ALL.len()],
}

/// Two cache lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct PerWorker {
    answers: [AtomicU64; Status::ALL.len()],
}

impl Stats {
    /// Counters for that many workers.
    pub fn new(workers: usize) -> Self {
        let workers = (0..workers).map(|_| PerWorker::default()).collect();
        Stats {
            workers,
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            evicted: [const { AtomicU64::new(0) }; Phase::ALL.len()],
        }
    }

    pub(super) fn evicted(&self, phase: Phase) {
        self.evicted[phase as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Connections evicted to make room for others, by what they were doing.
    pub fn evictions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = ["idle", "reading", "serving", "writing", "following"];
        names.into_iter().zip(&self.evicted).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    pub(super) fn answered(&self, worker: usize, status: Status) {
        // Only this worker writes here, so a plain load and store would do; an uncontended add costs little more.
        self.workers[worker].answers[status as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Answers given, by status.
    pub fn answers(&self) -> impl Iterator<Item = (Status, u64)> {
        Status::ALL.into_iter().map(|status| {
            let each = self.workers.iter().map(|worker| worker.answers[status as usize].load(Ordering::Relaxed));
            (status, each.sum())
        })
    }
}

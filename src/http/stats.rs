//! What the HTTP server counts for `/metrics`. Each worker has its own counters, on its own cache
//! lines.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Kind;
use super::phase::Phase;
use super::status::Status;

/// Labels of [`Kind`], each at its own number.
const KINDS: [&str; 4] = ["visit", "probe", "prefetch", "other"];

#[derive(Debug)]
pub struct Stats {
    workers: Box<[PerWorker]>,
    pub accepted: AtomicU64,
    /// Connections beyond the limit.
    pub refused: AtomicU64,
    /// Connections that are served now.
    pub open: AtomicUsize,
    /// Connections evicted, by phase.
    evicted: [AtomicU64; Phase::ALL.len()],
}

/// Two cache lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct PerWorker {
    /// By kind and status.
    answers: [[AtomicU64; Status::ALL.len()]; KINDS.len()],
}

impl Stats {
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

    /// Connections evicted to make room for others, by phase.
    pub fn evictions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = ["idle", "reading", "serving", "writing", "following"];
        names
            .into_iter()
            .zip(&self.evicted)
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    pub(super) fn answered(&self, worker: usize, kind: Kind, status: Status) {
        // Only this worker writes here: the add is uncontended.
        self.workers[worker].answers[kind as usize][status as usize]
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Answers by kind and status.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, Status, u64)> {
        KINDS.into_iter().enumerate().flat_map(move |(kind, name)| {
            Status::ALL.into_iter().map(move |status| {
                let of = |worker: &PerWorker| {
                    worker.answers[kind][status as usize].load(Ordering::Relaxed)
                };
                (name, status, self.workers.iter().map(of).sum())
            })
        })
    }
}

//! What the site measures of visits for `/metrics`. Each worker has its own numbers, on its own
//! cache lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::visit::Form;
use crate::visits::Refused;

/// The upper bounds of the buckets of a visit's time, in seconds.
const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Labels of [`Reason`].
const REASONS: [&str; 7] = [
    "starting", "ledger", "overload", "late", "stopping", "rate", "names",
];

#[derive(Debug)]
pub(super) struct Measures {
    workers: Box<[PerWorker]>,
    refused: [AtomicU64; REASONS.len()],
}

/// In pairs of cache lines, since processors fetch them so.
#[derive(Debug, Default)]
#[repr(align(128))]
struct PerWorker {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
    /// Visits by [`Form::LABELS`].
    forms: [AtomicU64; Form::LABELS.len()],
}

/// Why a visit got no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Visits(Refused),
    /// The rate limit.
    Rate,
}

impl Measures {
    pub(super) fn new(workers: usize) -> Measures {
        let workers = (0..workers).map(|_| PerWorker::default()).collect();
        Measures {
            workers,
            refused: [const { AtomicU64::new(0) }; REASONS.len()],
        }
    }

    /// A visit of the form with that label got its numbers `took` after its arrival.
    pub(super) fn visited(&self, worker: usize, form: usize, took: Duration) {
        let one = &self.workers[worker];
        one.forms[form].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BOUNDS.len());
        one.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        one.sum_us.fetch_add(
            u64::try_from(took.as_micros()).unwrap_or(0),
            Ordering::Relaxed,
        );
    }

    pub(super) fn refused(&self, reason: Reason) {
        let label = match reason {
            Reason::Visits(Refused::Starting) => 0,
            Reason::Visits(Refused::LedgerDown) => 1,
            Reason::Visits(Refused::Overloaded) => 2,
            Reason::Visits(Refused::Late) => 3,
            Reason::Visits(Refused::Closing) => 4,
            Reason::Rate => 5,
            Reason::Visits(Refused::NamesFull) => 6,
        };
        self.refused[label].fetch_add(1, Ordering::Relaxed);
    }

    /// Visits refused, by reason.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS
            .into_iter()
            .zip(&self.refused)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// Visits that got their numbers, by form.
    pub(super) fn forms(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |form: usize| {
            let counts = self.workers.iter();
            counts
                .map(|one| one.forms[form].load(Ordering::Relaxed))
                .sum()
        };
        Form::LABELS
            .into_iter()
            .enumerate()
            .map(move |(form, label)| (label, sum(form)))
    }

    /// Times of visits: each bound with the number up to it, the number of all, and their sum in
    /// seconds.
    pub(super) fn times(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let sum = |of: &dyn Fn(&PerWorker) -> &AtomicU64| -> u64 {
            self.workers
                .iter()
                .map(|one| of(one).load(Ordering::Relaxed))
                .sum()
        };
        let mut count = 0;
        let mut rows = Vec::with_capacity(BOUNDS.len());
        for (index, bound) in BOUNDS.into_iter().enumerate() {
            count += sum(&|one| &one.buckets[index]);
            rows.push((bound, count));
        }
        count += sum(&|one| &one.buckets[BOUNDS.len()]);
        (rows, count, sum(&|one| &one.sum_us) as f64 / 1e6)
    }
}

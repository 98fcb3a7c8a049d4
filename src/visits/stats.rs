//! What the lanes count for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of the lanes, each written a few times per batch.
#[derive(Debug)]
pub struct Stats {
    pub visits: AtomicU64,
    /// Commits in doubt that had to be resolved.
    pub ambiguous_commits: AtomicU64,
    /// Reconnections of a lane.
    pub ledger_reconnects: AtomicU64,
    /// Reconnections of a lane.
    pub counter_reconnects: AtomicU64,
    /// Visits committed that the counter did not count, or may not have.
    pub uncounted: AtomicU64,
    pub commit_seconds: Histogram<12>,
    /// Seconds an increment of the counter took, of those that were answered.
    pub increment_seconds: Histogram<12>,
    pub batch_visits: Histogram<11>,
}

/// Bounds for what a store takes, in seconds.
const SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
];

impl Default for Stats {
    fn default() -> Self {
        Stats {
            visits: AtomicU64::new(0),
            ambiguous_commits: AtomicU64::new(0),
            ledger_reconnects: AtomicU64::new(0),
            counter_reconnects: AtomicU64::new(0),
            uncounted: AtomicU64::new(0),
            commit_seconds: Histogram::new(SECONDS),
            increment_seconds: Histogram::new(SECONDS),
            batch_visits: Histogram::new([
                1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
            ]),
        }
    }
}

impl Stats {
    pub(super) fn committed(&self, visits: usize, took: Duration) {
        add(&self.visits, visits);
        self.commit_seconds.observe(took.as_secs_f64());
        self.batch_visits.observe(visits as f64);
    }
}

pub(super) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

/// A Prometheus histogram with fixed upper bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    /// Per bound, not cumulative.
    buckets: [AtomicU64; N],
    above: AtomicU64,
    /// The sum of all values, in millionths: an atomic holds no fraction.
    sum_micro: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        Histogram {
            bounds,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum_micro: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        add(bucket.map_or(&self.above, |index| &self.buckets[index]), 1);
        add(&self.sum_micro, (value * 1e6) as usize);
    }

    /// Each bound with the number of values up to it, then the number of all values and their sum.
    pub fn cumulative(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut count = 0;
        let mut rows = Vec::with_capacity(N);
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            rows.push((*bound, count));
        }
        count += self.above.load(Ordering::Relaxed);
        (
            rows,
            count,
            self.sum_micro.load(Ordering::Relaxed) as f64 / 1e6,
        )
    }
}

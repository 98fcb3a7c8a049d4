//! Waits between two tries to reconnect to a store: 50 ms, doubling, below 1 s, with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait: long enough not to spin, short enough not to be noticed.
const FIRST: Duration = Duration::from_millis(50);
/// A store that is back is used within 1 s: this wait and the time to connect must fit into that.
const LONGEST: Duration = Duration::from_millis(800);

#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Backoff { next: FIRST }
    }

    /// The next wait: a random part between half of it and all of it, so that lanes do not try at
    /// once.
    pub(super) fn wait(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        full.mul_f64(0.5 + random_fraction() / 2.0)
    }
}

/// From 0 to 1. The standard library seeds its hashers at random, which suffices for jitter.
fn random_fraction() -> f64 {
    let random = RandomState::new().hash_one(0u8);
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_no_further() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[10..].iter().all(|wait| *wait >= LONGEST / 2));
    }
}

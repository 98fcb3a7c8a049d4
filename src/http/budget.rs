//! Fairness among the connections of one worker: how much one may do before it yields.

use std::time::{Duration, Instant};

/// Time for which a connection may keep its worker without a wait: about one batch of visits.
const MAX_TIME: Duration = Duration::from_micros(200);
/// The same in reads and answers, whatever the clock says.
const MAX_STEPS: u32 = 64;
/// A read and an answer: one request. Most connections wait after that, and are not timed.
const UNTIMED_STEPS: u32 = 2;

/// What a connection has done since it last waited.
#[derive(Debug, Default)]
pub(super) struct Budget {
    steps: u32,
    since: Option<Instant>,
}

impl Budget {
    /// The connection waited, so the others were served.
    pub(super) fn reset(&mut self) {
        (self.steps, self.since) = (0, None);
    }

    /// The connection read, or answered.
    pub(super) fn spend(&mut self) {
        self.steps += 1;
    }

    /// Whether the connection must yield.
    pub(super) fn is_spent(&mut self) -> bool {
        if self.steps <= UNTIMED_STEPS {
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.steps >= MAX_STEPS || since.elapsed() >= MAX_TIME
    }
}

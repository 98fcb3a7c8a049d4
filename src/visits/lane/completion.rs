//! What follows a commit: the batch is counted, then answered.
//!
//! The increment is sent at once. Its answer is waited for while the next batch is committed, if
//! one waits already: so a visit never waits for the counter of the batch before.

use std::sync::Arc;

use super::Shared;
use super::batch::{Ask, Batch};
use super::counting::Counting;
use super::delivery::Outcome;
use crate::visits::ledger::Totals;

/// The increment of a batch of up to so many visits overlaps the next commit. After larger ones its
/// visitors are answered first: they make the next batch larger, which saves more than the wait
/// costs (docs/decisions.md).
const OVERLAPPED_VISITS: usize = 8;

/// A committed batch whose increment is in flight.
struct Committed {
    batch: Arc<Batch>,
    visits: usize,
    totals: Totals,
}

/// One lane's last batch, until it is answered.
pub(super) struct Completion {
    lane: usize,
    shared: Arc<Shared>,
    counting: Counting,
    last: Option<Committed>,
}

impl Completion {
    pub(super) fn new(lane: usize, shared: Arc<Shared>, counting: Counting) -> Self {
        Completion {
            lane,
            shared,
            counting,
            last: None,
        }
    }

    /// Whether [`Completion::finish`] has anything to do.
    pub(super) fn is_due(&self) -> bool {
        self.last.is_some()
    }

    /// Whether the next batch should rather wait: see [`OVERLAPPED_VISITS`].
    pub(super) fn comes_first(&self) -> bool {
        let last = self.last.as_ref();
        last.is_some_and(|last| last.visits > OVERLAPPED_VISITS)
    }

    /// The batch is committed: sends its increment. The batch before is finished first.
    pub(super) fn begin(&mut self, batch: &Arc<Batch>, visits: usize, totals: Totals) {
        self.finish();
        if visits > 0 {
            self.counting.send(visits);
        }
        let batch = Arc::clone(batch);
        self.last = Some(Committed {
            batch,
            visits,
            totals,
        });
    }

    /// Waits for the increment, and answers the batch.
    pub(super) fn finish(&mut self) {
        let Some(Committed {
            batch,
            visits,
            totals,
        }) = self.last.take()
        else {
            return;
        };
        let cache = if visits > 0 {
            self.counting.receive(visits)
        } else if batch.any(Ask::Peek) {
            self.counting.read()
        } else {
            None
        };
        let outcome = Outcome::Counted { totals, cache };
        self.shared.queues[self.lane].finish(&batch, outcome);
    }
}

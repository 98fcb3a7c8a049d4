//! What follows a commit: the batch is counted, then answered.
//!
//! The increments are sent at once. Their answer is waited for while the next batch is committed,
//! if one waits already: so a visit never waits for the counter of the batch before.

use std::sync::Arc;

use super::Shared;
use super::batch::{Ask, Batch};
use super::counting::Counting;
use super::delivery::{Named, Numbers, Outcome};
use crate::visits::Count;
use crate::visits::ledger::{Arrivals, Sums};
use crate::visits::name::Name;

/// The increment of a batch of up to so many visits overlaps the next commit. After larger ones its
/// visitors are answered first: they make the next batch larger, which saves more than the wait
/// costs (docs/decisions.md).
const OVERLAPPED_VISITS: usize = 8;

/// A committed batch whose increments are in flight.
struct Committed {
    batch: Arc<Batch>,
    visits: Arrivals,
    sums: Sums,
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
        last.is_some_and(|last| last.visits.times.len() > OVERLAPPED_VISITS)
    }

    /// The batch is committed: sends its increments. The batch before is finished first.
    pub(super) fn begin(&mut self, batch: &Arc<Batch>, visits: Arrivals, sums: Sums) {
        self.finish();
        if !visits.times.is_empty() {
            self.counting.send(&visits);
        }
        let batch = Arc::clone(batch);
        self.last = Some(Committed {
            batch,
            visits,
            sums,
        });
    }

    /// Waits for the increments, and answers the batch.
    pub(super) fn finish(&mut self) {
        let Some(Committed {
            batch,
            visits,
            sums,
        }) = self.last.take()
        else {
            return;
        };
        let counted = if !visits.times.is_empty() {
            Some(self.counting.receive(&visits))
        } else if batch.any(|ask| matches!(ask, Ask::Peek)) {
            Some(self.counting.read())
        } else {
            None
        };
        if let Some((cache, _)) = &counted {
            self.shared.counted(Count::new(sums.all, *cache));
        }
        let outcome = outcome(visits, &sums, counted.unwrap_or_default());
        self.shared.queues[self.lane].finish(&batch, outcome);
    }

    /// The counter of each of the names.
    pub(super) fn read_names(&mut self, names: &[Name]) -> Vec<Option<i64>> {
        self.counting.read_names(names)
    }
}

fn outcome(visits: Arrivals, sums: &Sums, counted: (Option<i64>, Vec<Option<i64>>)) -> Outcome {
    let (cache, caches) = counted;
    let totals = sums.all;
    let named = (!visits.names.is_empty()).then(|| {
        let caches = caches.into_iter().chain(std::iter::repeat(None));
        let totals = sums.names.iter().copied();
        let numbers = totals.zip(caches);
        let numbers = numbers.map(|(totals, cache)| Numbers { totals, cache });
        Arc::new(Named {
            numbers: numbers.collect(),
            arrivals: visits,
        })
    });
    Outcome::Counted {
        all: Numbers { totals, cache },
        named,
    }
}

//! The nouns: what a visitor asks for, the ticket that waits for it, the batch it is committed in,
//! and the answer.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::lane::Waiter;
use super::ledger::Totals;

/// Both numbers as they stand with one visit, or with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Visits: rows in the ledger, and rows that were deleted for their age.
    pub total: u64,
    /// Of them, those whose rows were deleted for their age.
    pub pruned: u64,
    /// The counter; `None` while it is down, or when the fate of this visit's increment is not
    /// known.
    pub cache: Option<i64>,
}

impl Count {
    pub(super) fn new(totals: Totals, cache: Option<i64>) -> Self {
        Count {
            total: totals.total,
            pruned: totals.pruned,
            cache,
        }
    }
}

/// Why a visit was not answered with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The ledger was not reached yet. Nothing was recorded.
    Starting,
    /// The ledger cannot be reached, or rejected the batch. Nothing was recorded, unless the visit
    /// was in a batch whose commit was in flight when the ledger went down.
    LedgerDown,
    /// Too many visits wait. Nothing was recorded.
    Overloaded,
    /// The deadline passed first. The visit may still be recorded.
    Late,
    /// The process is stopping. Nothing was recorded.
    Closing,
}

/// What a visitor asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// A row, an increment, and both numbers.
    Visit,
    /// Both numbers only.
    Peek,
    /// That the history is read anew; the numbers do not matter.
    History,
}

/// One visitor in a lane's queue.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) waiter: Arc<Waiter>,
    /// Which of the waiter's visits this is; an answer for an earlier one is dropped.
    pub(super) generation: u64,
    pub(super) ask: Ask,
    pub(super) arrival: SystemTime,
    pub(super) deadline: Instant,
}

/// What was taken from the queue at once, in order of arrival.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) tickets: Vec<Ticket>,
}

impl Batch {
    /// When its visits came.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = SystemTime> {
        self.tickets
            .iter()
            .filter(|ticket| ticket.ask == Ask::Visit)
            .map(|ticket| ticket.arrival)
    }

    pub(super) fn any(&self, ask: Ask) -> bool {
        self.tickets.iter().any(|ticket| ticket.ask == ask)
    }
}

//! What a visit gets: its numbers, or the reason why not.

use super::ledger::Totals;
use super::name::Name;

/// Both numbers, as they stand with a visit or without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Rows in the ledger, rows deleted for their age, and the start value of a name.
    pub total: u64,
    /// Of the total, the rows deleted for their age.
    pub pruned: u64,
    /// The counter; `None` while it is down, or where this visit's increment is in doubt.
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

    /// With what the counter of that name had before it came here.
    pub(super) fn of(self, name: Option<&Name>) -> Self {
        Count {
            total: self.total + name.map_or(0, Name::start),
            ..self
        }
    }
}

/// Why a visit got no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The ledger has not been reached yet. Nothing was recorded.
    Starting,
    /// The ledger cannot be reached, or rejected the batch. Nothing was recorded, unless the batch
    /// was in flight when the ledger went down.
    LedgerDown,
    /// Too many visits wait. Nothing was recorded.
    Overloaded,
    /// The deadline passed first. The visit may still be recorded.
    Late,
    /// The process is stopping. Nothing was recorded.
    Closing,
    /// The name is new, and as many are in use as may be. Nothing was recorded.
    NamesFull,
}

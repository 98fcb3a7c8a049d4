//! Answers go back a batch at a time: one wake-up per worker, which then wakes its own coroutines.
//!
//! A thread that woke every coroutine itself would pay a system call per visit, and would run the
//! coroutine instead of its worker.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::batch::{Ask, Batch};
use crate::visits::ledger::Totals;
use crate::visits::{Count, Refused};
use crate::workers;

/// What became of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// Committed. The numbers are those after the whole batch; each visit gets its own, counted
    /// back from them.
    Counted {
        totals: Totals,
        /// `None` where the counter did not count it, or may not have.
        cache: Option<i64>,
    },
    Refused(Refused),
}

/// Answers the tickets `which` of the batch, each on its own worker.
pub(super) fn deliver(batch: &Arc<Batch>, outcome: Outcome, which: Range<usize>) {
    let mut workers: Vec<usize> = Vec::new();
    for ticket in &batch.tickets[which.clone()] {
        if !workers.contains(&ticket.waiter.worker()) {
            workers.push(ticket.waiter.worker());
        }
    }
    for worker in workers {
        let (batch, which) = (Arc::clone(batch), which.clone());
        let answer = move || answer_on(worker, &batch, outcome, &which);
        if let Err(error) = workers::spawn(worker, answer) {
            log::error!("cannot deliver answers to worker {worker}: {error}");
        }
    }
}

/// Answers those of the tickets that belong to `worker`. An answer after its deadline is late,
/// whatever was recorded.
fn answer_on(worker: usize, batch: &Batch, outcome: Outcome, which: &Range<usize>) {
    let now = Instant::now();
    // How many visits of the batch come after the current one.
    let mut after = batch.arrivals().count() as u64;
    for (index, ticket) in batch.tickets.iter().enumerate() {
        let answer = match outcome {
            Outcome::Refused(reason) => Err(reason),
            Outcome::Counted { totals, cache } => {
                after -= u64::from(ticket.ask == Ask::Visit);
                let after = if ticket.ask == Ask::Visit { after } else { 0 };
                let totals = Totals {
                    total: totals.total.saturating_sub(after),
                    ..totals
                };
                let cache = cache.map(|last| last.saturating_sub_unsigned(after));
                Ok(Count::new(totals, cache))
            }
        };
        if which.contains(&index) && ticket.waiter.worker() == worker {
            let answer = if now >= ticket.deadline {
                answer.and(Err(Refused::Late))
            } else {
                answer
            };
            ticket.waiter.answer(ticket.generation, answer);
        }
    }
}

//! Answers go back a batch at a time: one wake-up for each worker, which then wakes its own
//! coroutines.
//!
//! A thread that woke every coroutine itself would pay a system call a visit, and the coroutine
//! would run there instead of on its own worker.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use may::coroutine;

use crate::visits::ledger::Totals;
use crate::visits::visit::{Ask, Batch};
use crate::visits::{Count, Refused};

/// What became of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// Committed. The numbers are those after the whole batch; each visit gets its own, counted
    /// back from them.
    Counted {
        /// The totals with this batch.
        totals: Totals,
        /// The counter with this batch, when that is known.
        cache: Option<i64>,
    },
    /// Refused, for all alike.
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
        let batch = Arc::clone(batch);
        let which = which.clone();
        let answers = move || answer_on(worker, &batch, outcome, &which);
        // SAFETY: `answer_on` keeps no thread-local value over a yield (it never yields) and needs
        // little stack.
        let spawned = unsafe { coroutine::Builder::new().id(worker).spawn(answers) };
        if let Err(error) = spawned {
            log::error!("answers could not be delivered to worker {worker}: {error}");
        }
    }
}

/// Answers those of the tickets that belong to `worker`. What comes after its deadline is late,
/// whatever was recorded.
fn answer_on(worker: usize, batch: &Batch, outcome: Outcome, which: &Range<usize>) {
    let now = Instant::now();
    // How many visits of the batch come after the one at hand.
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
                Ok(Count::new(
                    totals,
                    cache.map(|last| last.saturating_sub_unsigned(after)),
                ))
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

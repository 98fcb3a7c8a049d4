//! Answers go back a batch at a time: one wake-up per worker, which then wakes its own coroutines.
//!
//! A thread that woke every coroutine itself would pay a system call per visit, and would run the
//! coroutine instead of its worker.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::batch::{Ask, Batch};
use crate::visits::ledger::{Arrivals, Totals};
use crate::visits::{Count, Refused};
use crate::workers;

/// What became of a batch.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Committed. The numbers are those after the whole batch; each visit gets its own, counted
    /// back from them.
    Counted {
        all: Numbers,
        /// `None` where no visit of it has a name.
        named: Option<Arc<Named>>,
    },
    Refused(Refused),
}

/// Both numbers after a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) totals: Totals,
    /// `None` where the counter did not count it, or may not have.
    pub(super) cache: Option<i64>,
}

impl Numbers {
    /// As they were before the last visits of the batch.
    fn before(self, visits: u64) -> Count {
        let totals = Totals {
            total: self.totals.total.saturating_sub(visits),
            ..self.totals
        };
        let cache = self.cache.map(|last| last.saturating_sub_unsigned(visits));
        Count::new(totals, cache)
    }
}

/// The numbers of the names in a batch.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) arrivals: Arrivals,
    /// Of each of its names.
    pub(super) numbers: Vec<Numbers>,
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
        let (batch, which, outcome) = (Arc::clone(batch), which.clone(), outcome.clone());
        let answer = move || answer_on(worker, &batch, &outcome, &which);
        if let Err(error) = workers::spawn(worker, answer) {
            log::error!("cannot deliver answers to worker {worker}: {error}");
        }
    }
}

/// Answers those of the tickets that belong to `worker`. An answer after its deadline is late,
/// whatever was recorded.
fn answer_on(worker: usize, batch: &Batch, outcome: &Outcome, which: &Range<usize>) {
    let now = Instant::now();
    let mut numbers = Backwards::new(batch, outcome);
    for (index, ticket) in batch.tickets.iter().enumerate() {
        let answer = numbers.next(&ticket.ask);
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

/// Gives each visit of a batch its own numbers.
struct Backwards<'a> {
    outcome: &'a Outcome,
    /// How many visits of the batch come after the current one.
    after: u64,
    /// The same for each name.
    named_after: Vec<u64>,
    /// The names of the visits that follow.
    name_of: std::slice::Iter<'a, Option<usize>>,
}

impl<'a> Backwards<'a> {
    fn new(batch: &Batch, outcome: &'a Outcome) -> Self {
        let named = match outcome {
            Outcome::Counted { named, .. } => named.as_deref(),
            Outcome::Refused(_) => None,
        };
        let names = named.map_or(&[][..], |named| &named.arrivals.names);
        Backwards {
            outcome,
            after: batch.visits() as u64,
            named_after: names.iter().map(|name| name.visits).collect(),
            name_of: named
                .map_or(&[][..], |named| &named.arrivals.name_of)
                .iter(),
        }
    }

    fn next(&mut self, ask: &Ask) -> Result<Count, Refused> {
        let (all, named) = match self.outcome {
            Outcome::Refused(reason) => return Err(*reason),
            Outcome::Counted { all, named } => (all, named),
        };
        if !ask.is_visit() {
            return Ok(all.before(0));
        }
        self.after -= 1;
        Ok(match (self.name_of.next(), named) {
            (Some(Some(place)), Some(named)) => {
                self.named_after[*place] -= 1;
                named.numbers[*place].before(self.named_after[*place])
            }
            _ => all.before(self.after),
        })
    }
}

//! A lane's counter stage: one increment for each batch that was committed, while the next one is being committed.
//!
//! Only what is committed is ever counted, and each visit at most once: an increment whose fate is not known is not
//! repeated, and its visits are told that the counter is unavailable.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counter::{CountError, Counter};
use super::delivery::Outcome;
use super::footing::{Footing, Loss};
use super::health::{Health, Startup};
use super::lane::Lane;
use super::ledger::OpenError;
use super::stats::{Stats, add};
use super::ticket::Batch;

/// A batch that is in the ledger.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) batch: Arc<Batch>,
    /// How many of its tickets are visits, and so rows.
    pub(super) visits: usize,
    /// Rows in the ledger with this batch.
    pub(super) total: u64,
}

/// Where the ledger stage hands over what it committed.
#[derive(Debug)]
pub(super) struct Counting {
    lane: Arc<Lane>,
    state: Mutex<State>,
    wake: Condvar,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct State {
    /// At most one ticket for each connection waits here, so connections bound it.
    committed: Vec<Committed>,
    away: bool,
    closed: bool,
}

impl Counting {
    pub(super) fn new(lane: Arc<Lane>, stats: Arc<Stats>) -> Self {
        let state = State { committed: Vec::new(), away: false, closed: false };
        Counting { lane, state: Mutex::new(state), wake: Condvar::new(), stats }
    }

    /// Hands a committed batch over. While the counter is away it is answered at once.
    pub(super) fn hand(&self, committed: Committed) {
        let mut state = self.lock();
        if state.away {
            drop(state);
            return self.answer_uncounted(vec![committed]);
        }
        state.committed.push(committed);
        drop(state);
        self.wake.notify_one();
    }

    /// Ends the counter stage once all is counted.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Waits for committed batches and takes them all; none once closed.
    fn take(&self) -> Vec<Committed> {
        let idle = |state: &mut State| state.committed.is_empty() && !state.closed;
        let mut state = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.committed)
    }

    /// Waits that long, or until closed; says whether it is still open.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.wake.wait_timeout_while(self.lock(), time, |state| !state.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn set_away(&self, away: bool) -> Vec<Committed> {
        let mut state = self.lock();
        state.away = away;
        std::mem::take(&mut state.committed)
    }

    /// Answers batches that the counter did not count, or may not have.
    fn answer_uncounted(&self, all: Vec<Committed>) {
        for Committed { batch, visits, total } in all {
            add(&self.stats.uncounted, visits);
            self.lane.finish(&batch, Outcome::Counted { total, cache: None });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at each statement of every method.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counter stage, on a thread of its own.
pub(super) struct CounterStage {
    /// Which of the lanes this is.
    pub(super) number: usize,
    pub(super) counting: Arc<Counting>,
    pub(super) counter: Box<dyn Counter>,
    pub(super) health: Arc<Health>,
    pub(super) startup: Arc<Startup>,
    /// Time between two attempts at start.
    pub(super) interval: Duration,
    pub(super) footing: Footing,
}

impl CounterStage {
    /// Reaches the counter, then counts what is handed over until that is closed.
    pub(super) fn run(mut self) {
        if self.start() {
            self.startup.reached();
            loop {
                let all = self.counting.take();
                if all.is_empty() {
                    break;
                }
                self.count(all);
            }
        }
        self.counting.lane.stage_ended();
    }

    /// The attempts at start; says whether one succeeded.
    fn start(&mut self) -> bool {
        for attempt in 1.. {
            let Err(OpenError::Again(reason) | OpenError::Never(reason)) = self.counter.open() else { break };
            if let Some(sentence) = self.health.attempt_failed(attempt, &reason, self.interval) {
                self.startup.failed(sentence);
                return false;
            }
            if !self.counting.pause(self.interval) {
                return false;
            }
        }
        self.health.reached(self.number);
        true
    }

    /// One increment for all these batches, in their order.
    fn count(&mut self, all: Vec<Committed>) {
        let visits: usize = all.iter().map(|committed| committed.visits).sum();
        let result = if visits == 0 { self.counter.read() } else { self.counter.add(visits as u64) };
        match result {
            Ok(after) => {
                if visits > 0 && self.footing.worked() {
                    self.health.proven();
                }
                let mut counted = after.saturating_sub_unsigned(visits as u64);
                for Committed { batch, visits, total } in all {
                    counted = counted.saturating_add_unsigned(visits as u64);
                    self.counting.lane.finish(&batch, Outcome::Counted { total, cache: Some(counted) });
                }
            }
            Err(error) => {
                self.counting.answer_uncounted(all);
                match error {
                    CountError::NotSent(reason) => self.reopen(Loss::Found, &reason),
                    CountError::Unknown(reason) => self.reopen(Loss::Broke, &reason),
                }
            }
        }
    }

    /// The counter is away: lets visits pass without it until it is back, or the process stops.
    fn reopen(&mut self, how: Loss, reason: &str) {
        let waiting = self.counting.set_away(true);
        self.counting.answer_uncounted(waiting);
        // A connection that was lost is no outage: one try before anybody is told.
        if self.footing.is_firm() && self.counter.open().is_ok() {
            self.footing.opened();
            self.there_again();
            self.health.regained(reason);
            return;
        }
        self.footing.lost(how);
        self.health.lost(self.number, reason);
        while self.counting.pause(self.footing.wait()) {
            if self.counter.open().is_ok() {
                let on_trial = self.footing.opened();
                self.there_again();
                self.health.back(self.number, on_trial);
                return;
            }
        }
    }

    fn there_again(&self) {
        add(&self.counting.stats.counter_reconnects, 1);
        self.counting.set_away(false);
    }
}

//! A lane's counter: one increment for each batch that was committed, before its visitors are answered.
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
use super::stats::{Stats, add};
use super::ticket::Batch;

/// A client of the counter, and how the lane stands with it.
pub(super) struct Client {
    pub(super) counter: Box<dyn Counter>,
    pub(super) footing: Footing,
}

/// Where the lane's client of the counter is: with the lane, which counts with it, or with its keeper, once it is lost.
pub(super) struct Counting {
    lane: Arc<Lane>,
    health: Arc<Health>,
    state: Mutex<State>,
    wake: Condvar,
    stats: Arc<Stats>,
}

struct State {
    /// With it batches are counted; without it they are answered at once.
    ready: Option<Client>,
    lost: Option<(Client, Loss, String)>,
    closed: bool,
}

impl Counting {
    pub(super) fn new(lane: Arc<Lane>, health: Arc<Health>, stats: Arc<Stats>) -> Self {
        let state = Mutex::new(State { ready: None, lost: None, closed: false });
        Counting { lane, health, state, wake: Condvar::new(), stats }
    }

    /// Counts a batch that is in the ledger, if the counter is there, and answers it: `visits` of its tickets are rows, and
    /// there are `total` with them. Called by the lane's own thread: one between them would have to be woken for each batch.
    pub(super) fn count(&self, batch: &Arc<Batch>, visits: usize, total: u64) {
        let cache = self.number_after(visits);
        if cache.is_none() {
            add(&self.stats.uncounted, visits);
        }
        self.lane.finish(batch, Outcome::Counted { total, cache });
    }

    /// The counter with these visits; none where it is away, or may not have counted them.
    fn number_after(&self, visits: usize) -> Option<i64> {
        let mut client = self.lock().ready.take()?;
        let result = if visits == 0 { client.counter.read() } else { client.counter.add(visits as u64) };
        match result {
            Ok(cache) => {
                if visits > 0 && client.footing.worked() {
                    self.health.proven();
                }
                self.lock().ready = Some(client);
                Some(cache)
            }
            Err(error) => {
                let (how, reason) = match error {
                    CountError::NotSent(reason) => (Loss::Found, reason),
                    CountError::Unknown(reason) => (Loss::Broke, reason),
                };
                self.lock().lost = Some((client, how, reason));
                self.wake.notify_one();
                None
            }
        }
    }

    /// Ends the keeper; all is counted.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Waits for a client that is lost; none once closed.
    fn next_lost(&self) -> Option<(Client, Loss, String)> {
        let fine = |state: &mut State| state.lost.is_none() && !state.closed;
        let mut state = self.wake.wait_while(self.lock(), fine).unwrap_or_else(PoisonError::into_inner);
        if state.closed { None } else { state.lost.take() }
    }

    /// Waits that long, or until closed; says whether it is still open.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.wake.wait_timeout_while(self.lock(), time, |state| !state.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at each statement of every method.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper of a lane's client of the counter, on a thread of its own, so that no visit waits while there is none: it
/// reaches for the counter at the start, and again whenever the lane has lost it.
pub(super) struct Keeper {
    /// Which of the lanes this is.
    pub(super) number: usize,
    pub(super) counting: Arc<Counting>,
    pub(super) startup: Arc<Startup>,
}

impl Keeper {
    /// Reaches the counter, then sees to it that the lane has it, until that is closed.
    pub(super) fn run(self, mut client: Client) {
        let Keeper { number, counting, startup } = &self;
        if startup.reach(&counting.health, *number, || client.counter.open(), |time| counting.pause(time)) {
            self.counting.lock().ready = Some(client);
            self.startup.reached();
            while let Some((client, how, reason)) = self.counting.next_lost() {
                self.reopen(client, how, &reason);
            }
        }
        self.counting.lane.stage_ended();
    }

    /// The counter is away: visits pass without it until it is back, or the process stops.
    fn reopen(&self, mut client: Client, how: Loss, reason: &str) {
        // A connection that was lost is no outage: one try before anybody is told.
        if client.footing.is_firm() && client.counter.open().is_ok() {
            client.footing.opened();
            self.there_again(client);
            self.counting.health.regained(reason);
            return;
        }
        client.footing.lost(how);
        self.counting.health.lost(self.number, reason);
        while self.counting.pause(client.footing.wait()) {
            if client.counter.open().is_ok() {
                let on_trial = client.footing.opened();
                self.there_again(client);
                self.counting.health.back(self.number, on_trial);
                return;
            }
        }
    }

    fn there_again(&self, client: Client) {
        add(&self.counting.stats.counter_reconnects, 1);
        self.counting.lock().ready = Some(client);
    }
}

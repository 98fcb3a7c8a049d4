//! One visit -> one row, one increment. Lanes group what waits into commits. Knows nothing of HTTP.
//!
//! A visit is a ticket in the queue of a `lane`. The lane's thread commits all that waits as one
//! batch in the `ledger`, increments the `counter` once, and gives every visitor its own numbers,
//! with one wake-up per worker. Every wait is bounded: [`Visits::tick`] answers each ticket at its
//! deadline, whatever the stores do.
//!
//! ```text
//! visit    what a visit gets: numbers, or a refusal
//! lane     tickets, queue, waiters, commit, delivery
//! store    a store's connections: one state machine, backoff, health, name look-ups
//! ledger   where rows live: the contract; PostgreSQL; one file
//! tls      encrypted connections to both stores
//! counter  the counter: Redis, or this process
//! history  visits by minute, hour and day
//! ```

pub mod counter;
pub mod diagnose;
pub mod history;
mod lane;
pub mod ledger;
mod stats;
mod store;
pub mod tls;
mod visit;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use counter::Counter;
use history::History;
pub use lane::Waiter;
use lane::{Ask, Shared, Startup, Ticket};
use ledger::{Ledger, Pruner};
pub use stats::{Histogram, Stats};
use store::Store;
pub use store::StoreState;
pub use visit::{Count, Refused};

#[derive(Debug, Clone)]
pub struct Options {
    /// Lanes, each with its own thread and store clients.
    pub lanes: usize,
    /// Visits that may wait for a commit, over all lanes.
    pub max_queue: usize,
    /// From a visit's arrival to its answer.
    pub deadline: Duration,
    /// Attempts to reach the ledger at start; `None`: without end.
    pub connect_attempts: Option<NonZeroUsize>,
    /// Time between two attempts.
    pub connect_interval: Duration,
    /// How long rows are kept; `None`: without end.
    pub keep_rows: Option<Duration>,
}

/// What the lanes report.
#[derive(Debug)]
pub enum Event {
    /// Every lane has reached the ledger: visits are taken. In a database, the schema with the
    /// rows.
    Ready(Option<String>),
    /// The ledger could not be reached in the allowed attempts, or never can be; the sentence says
    /// why.
    Failed(String),
}

/// The visit counter, shared by every connection.
pub struct Visits {
    shared: Arc<Shared>,
    deadline: Duration,
}

impl fmt::Debug for Visits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visits")
            .field("lanes", &self.shared.queues.len())
            .finish_non_exhaustive()
    }
}

/// Makes the stores' clients: one ledger and one counter per lane, each used by one thread.
pub struct Stores {
    /// In log lines and in `/readyz`.
    pub ledger_name: &'static str,
    /// In log lines and in `/readyz`.
    pub counter_name: &'static str,
    pub ledger: Box<dyn Fn() -> Box<dyn Ledger>>,
    pub counter: Box<dyn Fn() -> Box<dyn Counter>>,
    pub pruner: Box<dyn Fn() -> Box<dyn Pruner>>,
}

/// Between two passes over all rows lies this share of the time for which rows are kept: one in 50.
/// Rows stay that much longer.
const PRUNE_SHARE: u32 = 50;
/// The shortest and the longest time between two passes.
const PRUNE_INTERVALS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 60 * 60));

impl Visits {
    /// Starts every lane. They connect to the stores at once, and report through `on_event`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        options: &Options,
        stores: &Stores,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> std::io::Result<Visits> {
        let lanes = options.lanes;
        let store = |name| Arc::new(Store::new(name, lanes, options.connect_attempts));
        let startup = Startup::new(2 * lanes, options.connect_interval, Box::new(on_event));
        let both = [store(stores.ledger_name), store(stores.counter_name)];
        let shared = Arc::new(Shared::new(
            lanes,
            options.max_queue.div_ceil(lanes),
            both,
            startup,
            Arc::new(Stats::default()),
        ));
        for lane in 0..lanes {
            lane::start(lane, &shared, (stores.ledger)(), (stores.counter)())?;
        }
        if let Some(keep) = options.keep_rows {
            let (pruner, ledger) = ((stores.pruner)(), Arc::clone(&shared.ledger));
            thread::Builder::new()
                .name("pruner".to_owned())
                .spawn(move || prune(pruner, keep, &ledger))?;
        }
        Ok(Visits {
            shared,
            deadline: options.deadline,
        })
    }

    /// Records a visit and waits for its numbers, at most until its deadline.
    ///
    /// # Errors
    /// [`Refused`] says for each case whether the visit may have been recorded.
    pub fn visit(&self, waiter: &Arc<Waiter>) -> Result<Count, Refused> {
        self.ask(waiter, Ask::Visit, self.deadline)
    }

    /// Both numbers, without a visit.
    ///
    /// # Errors
    /// As [`Visits::visit`]; nothing is recorded.
    pub fn peek(&self, waiter: &Arc<Waiter>) -> Result<Count, Refused> {
        self.ask(waiter, Ask::Peek, self.deadline)
    }

    /// Reads the history anew; waits at most that long, and never beyond a visit's deadline.
    ///
    /// # Errors
    /// As [`Visits::peek`].
    pub fn read_history(
        &self,
        waiter: &Arc<Waiter>,
        at_most: Duration,
    ) -> Result<Arc<History>, Refused> {
        self.ask(waiter, Ask::History, at_most.min(self.deadline))?;
        self.shared.history.last().ok_or(Refused::LedgerDown)
    }

    /// The number of the last reading of the history, and whether it is recent. Asking has the
    /// history read again soon.
    pub fn last_reading(&self) -> (u64, bool) {
        self.shared.history.last_reading()
    }

    /// The last reading of the history; `None` before the first.
    pub fn last_history(&self) -> Option<Arc<History>> {
        self.shared.history.last()
    }

    fn ask(&self, waiter: &Arc<Waiter>, ask: Ask, at_most: Duration) -> Result<Count, Refused> {
        let ticket = Ticket {
            waiter: Arc::clone(waiter),
            generation: waiter.begin(),
            ask,
            arrival: SystemTime::now(),
            deadline: Instant::now() + at_most,
        };
        self.submit(ticket)?;
        waiter.wait()
    }

    /// Queues the ticket in its worker's lane; while the ledger is down there, in another lane.
    fn submit(&self, mut ticket: Ticket) -> Result<(), Refused> {
        let queues = &self.shared.queues;
        let home = ticket.waiter.worker();
        for step in 0..queues.len() {
            match queues[(home + step) % queues.len()].put(ticket) {
                Ok(()) => return Ok(()),
                Err((back, Refused::LedgerDown)) => ticket = back,
                Err((_, other)) => return Err(other),
            }
        }
        Err(Refused::LedgerDown)
    }

    /// Answers every ticket whose deadline has passed. A visitor waits at most one call longer.
    pub fn tick(&self, now: Instant) {
        let shared = &self.shared;
        shared.ledger.tick(now);
        shared.counter.tick(now);
        shared.admit();
        shared.queues.iter().for_each(|queue| queue.expire(now));
        if shared.startup.has_begun() && shared.history.is_due() {
            shared.queues.iter().any(|queue| queue.refresh_history());
        }
    }

    /// Whether every lane has reached its ledger once.
    pub fn has_begun(&self) -> bool {
        self.shared.startup.has_begun()
    }

    /// Whether visits are taken.
    pub fn is_ready(&self) -> bool {
        self.has_begun() && self.shared.ledger.state() == StoreState::Up
    }

    /// The ledger and the counter: name and state.
    pub fn store_states(&self) -> [(&'static str, StoreState); 2] {
        [&self.shared.ledger, &self.shared.counter].map(|store| (store.name(), store.state()))
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Visits that wait for a commit.
    pub fn queued(&self) -> usize {
        self.shared.queues.iter().map(lane::Queue::len).sum()
    }

    /// Takes no more visits, finishes those that wait, and closes the stores. Says whether that was
    /// done by `until`.
    pub fn close(&self, until: Instant) -> bool {
        self.shared.queues.iter().for_each(lane::Queue::close);
        self.shared.wait_ended(until)
    }
}

/// Deletes old rows, pass after pass. After each step it rests as long as the step took, so visits
/// have the store to themselves half of the time.
fn prune(mut pruner: Box<dyn Pruner>, keep: Duration, ledger: &Store) {
    let interval = (keep / PRUNE_SHARE).clamp(PRUNE_INTERVALS.0, PRUNE_INTERVALS.1);
    loop {
        if ledger.state() != StoreState::Up {
            thread::sleep(PRUNE_INTERVALS.0);
            continue;
        }
        let began = Instant::now();
        let more = pruner.prune(keep).unwrap_or_else(|reason| {
            log::warn!("old rows cannot be deleted now, trying again in {interval:?}: {reason}");
            false
        });
        thread::sleep(if more { began.elapsed() } else { interval });
    }
}

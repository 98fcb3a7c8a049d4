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
//! name     counters by name: which there may be, and which are in use
//! moving   visits from other services and stores, as CSV
//! ```

pub mod counter;
pub mod diagnose;
pub mod history;
mod lane;
pub mod ledger;
pub mod moving;
mod name;
mod question;
mod stats;
mod store;
pub mod tls;
mod visit;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use counter::Counter;
use history::History;
pub use lane::Waiter;
use lane::{Ask, Shared, Startup, Ticket};
use ledger::{Ledger, Pruner};
use name::{Admitted, Names};
pub use name::{MAX_NAME_BYTES, Name, NameRules};
use question::{ListQuestion, NamesQuestion};
pub use stats::{Histogram, Stats};
use store::Store;
pub use store::{Secret, StoreState};
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
    /// The counters by name.
    pub names: NameRules,
    /// How many names may be in use.
    pub max_names: usize,
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

/// What a name stands at.
#[derive(Debug, Clone)]
pub struct NameReading {
    pub count: Count,
    /// Where it was asked for.
    pub history: Option<Arc<History>>,
}

/// A page of the list of names.
#[derive(Debug)]
pub struct NameList {
    /// In order, with their totals.
    pub names: Vec<(Name, u64)>,
    /// Where the next page begins: after this name.
    pub next: Option<String>,
}

/// Statements for one page of the list: other programs may have filled the ledger with names that
/// the settings do not admit.
const MAX_LISTS: usize = 10;

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
            Names::new(options.names.clone(), options.max_names),
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

    /// Records a visit and waits for its numbers, at most until its deadline: those of all visits,
    /// or those of the name.
    ///
    /// # Errors
    /// [`Refused`] says for each case whether the visit may have been recorded.
    pub fn visit(&self, waiter: &Arc<Waiter>, name: Option<&Name>) -> Result<Count, Refused> {
        let admitted = name.map(|name| self.shared.names.admit(name));
        if admitted == Some(Admitted::Full) {
            return Err(Refused::NamesFull);
        }
        let ticket = self.ticket(waiter, Ask::Visit(name.cloned()), self.deadline);
        if let Err(reason) = self.submit(ticket) {
            if let (Some(name), Some(Admitted::New)) = (name, admitted) {
                self.shared.names.forget(name);
            }
            return Err(reason);
        }
        waiter.wait().map(|count| count.of(name))
    }

    /// The name of that text; `None` where the settings do not admit it.
    pub fn find_name(&self, text: &str) -> Option<Name> {
        self.shared.names.find(text)
    }

    /// Whether there are counters by name.
    pub fn has_names(&self) -> bool {
        self.shared.names.are_admitted()
    }

    /// Names in use.
    pub fn names_in_use(&self) -> usize {
        self.shared.names.count()
    }

    /// What each of the names stands at, without a visit, and with `history` its history. Waits at
    /// most that long, and never beyond a visit's deadline.
    ///
    /// # Errors
    /// As [`Visits::peek`].
    pub fn read_names(
        &self,
        waiter: &Arc<Waiter>,
        names: Vec<Name>,
        history: bool,
        at_most: Duration,
    ) -> Result<Vec<NameReading>, Refused> {
        let question = Arc::new(NamesQuestion {
            names,
            history,
            answer: OnceLock::new(),
        });
        let ask = Ask::Names(Arc::clone(&question));
        self.ask(waiter, ask, at_most.min(self.deadline))?;
        let readings = question.answer.get().ok_or(Refused::LedgerDown)?;
        let named = question.names.iter().zip(readings);
        let told = named.map(|(name, reading)| NameReading {
            count: Count::new(reading.totals, reading.cache).of(Some(name)),
            history: reading.history.clone(),
        });
        Ok(told.collect())
    }

    /// Up to `most` names after that text, in order, with their totals: the whole names of the
    /// settings, visited or not, and those that the settings admit and the ledger has.
    ///
    /// # Errors
    /// As [`Visits::peek`].
    pub fn list_names(
        &self,
        waiter: &Arc<Waiter>,
        after: &str,
        most: usize,
    ) -> Result<NameList, Refused> {
        let names = &self.shared.names;
        let mut whole = names.whole_after(after).peekable();
        let mut list = NameList {
            names: Vec::new(),
            next: Some(name::same_place(after)),
        };
        for _ in 0..MAX_LISTS {
            let Some(after) = list.next.take() else { break };
            let question = Arc::new(ListQuestion {
                after,
                most,
                answer: OnceLock::new(),
            });
            self.ask(waiter, Ask::List(Arc::clone(&question)), self.deadline)?;
            let listed = question.answer.get().ok_or(Refused::LedgerDown)?;
            let found = &mut list.names;
            for (text, totals) in listed {
                // Those before it have no visit.
                while let Some(name) = whole.next_if(|name| name.as_str() < text.as_str()) {
                    found.push((name, 0));
                }
                whole.next_if(|name| name.as_str() == text.as_str());
                if let Some(name) = names.find(text) {
                    found.push((name, totals.total));
                }
            }
            if let [.., (last, _)] = &listed[..]
                && listed.len() == most
            {
                list.next = Some(last.clone());
            } else {
                found.extend(whole.by_ref().map(|name| (name, 0)));
            }
            if found.len() > most {
                found.truncate(most);
                list.next = found.last().map(|(name, _)| name.to_string());
            }
            if list.names.len() == most {
                break;
            }
        }
        for (name, total) in &mut list.names {
            *total += name.start();
        }
        Ok(list)
    }

    /// Both numbers, without a visit.
    ///
    /// # Errors
    /// As [`Visits::visit`]; nothing is recorded.
    pub fn peek(&self, waiter: &Arc<Waiter>) -> Result<Count, Refused> {
        self.ask(waiter, Ask::Peek, self.deadline)
    }

    /// The newest numbers of all visits that any lane had; `None` before the first.
    pub fn last_count(&self) -> Option<Count> {
        self.shared.last_count()
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
        self.submit(self.ticket(waiter, ask, at_most))?;
        waiter.wait()
    }

    fn ticket(&self, waiter: &Arc<Waiter>, ask: Ask, at_most: Duration) -> Ticket {
        Ticket {
            waiter: Arc::clone(waiter),
            generation: waiter.begin(),
            ask,
            arrival: SystemTime::now(),
            deadline: Instant::now() + at_most,
        }
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

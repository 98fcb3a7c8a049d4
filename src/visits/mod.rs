//! One visit -> one row, one increment. Lanes group what waits into commits; nothing here knows of HTTP.
//!
//! A visit is a `ticket` in the inbox of a lane. The lane's thread (`lane`) takes all that waits, commits it as one batch,
//! increments the fast counter once (`counting`) and gives every visitor its own numbers back (`delivery`), with one
//! wake-up a worker. Waits are bounded: [`Visits::tick`] refuses whoever's deadline has passed, whatever the stores are
//! doing.

mod backoff;
pub mod counter;
mod counting;
mod delivery;
mod footing;
mod health;
mod historian;
pub mod history;
mod inbox;
mod lane;
pub mod ledger;
#[cfg(test)]
mod model;
mod resolver;
mod seat;
mod stats;
pub mod survey;
mod ticket;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use counter::Counter;
use counting::{Client, Counting, Keeper};
use footing::Footing;
pub use health::StoreState;
use health::{Health, Startup};
use historian::Historian;
use history::History;
use inbox::Inbox;
use lane::{Lane, LedgerStage};
use ledger::{Chronicle, Ledger};
pub use seat::Seat;
pub use stats::{Histogram, Stats};
use ticket::{Asks, Ticket};

/// How many lanes, how much may wait and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Lanes, each with a thread and clients of its own.
    pub lanes: usize,
    /// Visits that may wait for a commit, over all lanes.
    pub max_queue: usize,
    /// From a visit's arrival to its answer.
    pub deadline: Duration,
    /// Tries to reach each store at start; none: for ever.
    pub connect_attempts: Option<NonZeroUsize>,
    /// Time between two of them.
    pub connect_interval: Duration,
}

/// What a visitor is told: both numbers as they stand with this visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Rows in the ledger.
    pub total: u64,
    /// The fast counter; none while it is away, or when the fate of this visit's increment is not known.
    pub cache: Option<i64>,
}

/// Why a visit was not answered with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The stores were not reached yet. Nothing was recorded.
    Starting,
    /// The ledger cannot be reached, or refused the batch. Nothing was recorded, unless the visit was in a batch whose
    /// commit was under way when the ledger went away.
    LedgerAway,
    /// Too many visits wait. Nothing was recorded.
    Overloaded,
    /// The deadline passed first. The visit may still be recorded.
    Late,
    /// The process is stopping. Nothing was recorded.
    Closing,
}

/// What the stages tell whoever started them.
#[derive(Debug)]
pub enum Event {
    /// Every lane has reached its stores: visits are taken.
    Ready,
    /// A store could not be reached in the attempts allowed, or never can be; the sentence says which and why.
    Failed(String),
}

/// The visit counter: lanes over two stores. Shared by every connection.
pub struct Visits {
    lanes: Vec<Arc<Lane>>,
    deadline: Duration,
    startup: Arc<Startup>,
    ledger: Arc<Health>,
    counter: Arc<Health>,
    stats: Arc<Stats>,
    historian: Arc<Historian>,
}

impl fmt::Debug for Visits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visits").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

/// Makes the stores' clients: one ledger and one counter a lane, each used by one thread.
pub struct Stores {
    /// The ledger's name in log lines and in `/readyz`.
    pub ledger_name: &'static str,
    /// The counter's name there.
    pub counter_name: &'static str,
    /// A ledger for one lane, not yet connected.
    pub ledger: Box<dyn Fn() -> Box<dyn Ledger>>,
    /// A counter for one lane, not yet connected.
    pub counter: Box<dyn Fn() -> Box<dyn Counter>>,
    /// The ledger's history, not yet connected.
    pub chronicle: Box<dyn Fn() -> Box<dyn Chronicle>>,
}

impl Visits {
    /// Starts every lane's thread, and its counter's keeper. They reach for the stores at once and report through `tell`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        options: &Options,
        stores: &Stores,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> std::io::Result<Visits> {
        let stats = Arc::new(Stats::default());
        let health = |name| Arc::new(Health::new(name, options.lanes, options.connect_attempts));
        let (ledger, counter) = (health(stores.ledger_name), health(stores.counter_name));
        let capacity = options.max_queue.div_ceil(options.lanes);
        let lanes: Vec<Arc<Lane>> = (0..options.lanes).map(|_| Arc::new(Lane::new(capacity))).collect();
        let all_inboxes: Arc<[Arc<Inbox>]> = lanes.iter().map(|lane| Arc::clone(&lane.inbox)).collect();
        let historian = Arc::new(Historian::new(Arc::clone(&ledger)));
        let tell = {
            let historian = Arc::clone(&historian);
            move |event| {
                if matches!(event, Event::Ready) {
                    historian.start();
                }
                tell(event);
            }
        };
        let (stages, interval) = (2 * options.lanes, options.connect_interval);
        let startup = Arc::new(Startup::new(stages, interval, Arc::clone(&all_inboxes), Box::new(tell)));
        {
            let (historian, chronicle) = (Arc::clone(&historian), (stores.chronicle)());
            thread::Builder::new().name("historian".to_owned()).spawn(move || historian.run(chronicle))?;
        }
        for (number, lane) in lanes.iter().enumerate() {
            let counting = Arc::new(Counting::new(Arc::clone(lane), Arc::clone(&counter), Arc::clone(&stats)));
            let ledger_stage = LedgerStage {
                number,
                lane: Arc::clone(lane),
                all_inboxes: Arc::clone(&all_inboxes),
                ledger: (stores.ledger)(),
                counting: Arc::clone(&counting),
                health: Arc::clone(&ledger),
                startup: Arc::clone(&startup),
                stats: Arc::clone(&stats),
                footing: Footing::new(),
            };
            let keeper = Keeper { number, counting, startup: Arc::clone(&startup) };
            let client = Client { counter: (stores.counter)(), footing: Footing::new() };
            thread::Builder::new().name(format!("lane-{number}")).spawn(move || ledger_stage.run())?;
            thread::Builder::new().name(format!("counter-{number}")).spawn(move || keeper.run(client))?;
        }
        Ok(Visits { lanes, deadline: options.deadline, startup, ledger, counter, stats, historian })
    }

    /// Records a visit and waits for its numbers, at most until its deadline.
    ///
    /// # Errors
    /// The visit's row is there if and only if the batch it was in was committed; see [`Refused`] for each case.
    pub fn visit(&self, seat: &Arc<Seat>) -> Result<Count, Refused> {
        self.ask(seat, Asks::Visit)
    }

    /// Both numbers as they stand, without a visit.
    ///
    /// # Errors
    /// As [`Visits::visit`]; nothing is ever recorded.
    pub fn look(&self, seat: &Arc<Seat>) -> Result<Count, Refused> {
        self.ask(seat, Asks::Look)
    }

    /// The history as it stands, waiting for a look at it, at most that long and never beyond a visit's deadline.
    ///
    /// # Errors
    /// As [`Visits::look`].
    pub fn look_back(&self, seat: &Arc<Seat>, at_most: Duration) -> Result<Arc<History>, Refused> {
        self.historian.look(seat, Instant::now() + at_most.min(self.deadline))
    }

    /// Whether all rows from before the history are in it.
    pub fn history_complete(&self) -> bool {
        self.historian.is_complete()
    }

    /// Which look at the history was the last, and whether it was in the last seconds. Whoever asks has it looked at again
    /// soon.
    pub fn last_look(&self) -> (u64, bool) {
        self.historian.last_look()
    }

    /// The history as it was seen at the last look; none before the first.
    pub fn history_seen(&self) -> Option<Arc<History>> {
        self.historian.seen()
    }

    fn ask(&self, seat: &Arc<Seat>, asks: Asks) -> Result<Count, Refused> {
        let ticket = Ticket {
            seat: Arc::clone(seat),
            turn: seat.begin(),
            asks,
            arrival: SystemTime::now(),
            deadline: Instant::now() + self.deadline,
        };
        self.submit(ticket)?;
        seat.wait()
    }

    /// Puts the ticket into its own worker's lane, or, while that lane's ledger connection is away, into another.
    fn submit(&self, mut ticket: Ticket) -> Result<(), Refused> {
        let home = ticket.seat.worker();
        for step in 0..self.lanes.len() {
            let lane = &self.lanes[(home + step) % self.lanes.len()];
            match lane.inbox.put(ticket) {
                Ok(()) => return Ok(()),
                Err((back, Refused::LedgerAway)) => ticket = back,
                Err((_, other)) => return Err(other),
            }
        }
        Err(Refused::LedgerAway)
    }

    /// Answers every visit whose deadline has passed. To be called often: a visitor waits at most one call longer.
    pub fn tick(&self, now: Instant) {
        for lane in &self.lanes {
            lane.answer_late(now);
        }
        self.historian.tick(now);
        self.ledger.tick(now);
        self.counter.tick(now);
    }

    /// Whether every lane has reached its stores once.
    pub fn has_begun(&self) -> bool {
        self.startup.has_begun()
    }

    /// Whether visits are taken: the ledger is there.
    pub fn is_ready(&self) -> bool {
        self.has_begun() && self.ledger.state() == StoreState::Up
    }

    /// Each store by its name, with its state.
    pub fn store_states(&self) -> [(&'static str, StoreState); 2] {
        [(self.ledger.name(), self.ledger.state()), (self.counter.name(), self.counter.state())]
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Visits that wait for a commit now.
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.inbox.len()).sum()
    }

    /// Takes no more visits, finishes those that wait, and lets the stores go; waits for that at most until `until`.
    /// Gives back whether all was done by then.
    pub fn close(&self, until: Instant) -> bool {
        self.historian.close();
        for lane in &self.lanes {
            lane.inbox.close();
        }
        self.lanes.iter().all(|lane| lane.wait_ended(until))
    }
}

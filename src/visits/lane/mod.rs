//! A lane: a queue of visits and the thread that commits what waits as one batch, has it counted,
//! and answers it.

mod counting;
mod delivery;
mod queue;
mod waiter;

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::counter::Counter;
use super::history::reader::Reader;
use super::ledger::{CommitError, LastBatch, Ledger, OpenError, Totals};
use super::stats::{Stats, add};
use super::store::{Disconnect, State, Store};
use super::visit::{Ask, Batch};
use super::{Event, Refused};
use counting::{Counting, counting};
use delivery::Outcome;
use queue::Next;
pub(super) use queue::{Admission, Queue};
pub use waiter::Waiter;

/// Tries to commit a batch that ended with an error known to pass (a deadlock, say), before it is
/// refused.
const MAX_TRIES: usize = 3;

/// What all lanes share.
pub(super) struct Shared {
    pub(super) queues: Vec<Queue>,
    pub(super) ledger: Arc<Store>,
    pub(super) counter: Arc<Store>,
    pub(super) stats: Arc<Stats>,
    pub(super) history: Reader,
    pub(super) startup: Startup,
    /// Lanes whose thread runs.
    running: Mutex<usize>,
    ended: Condvar,
}

impl Shared {
    /// What `lanes` lanes share, that let `capacity` visits wait each.
    pub(super) fn new(
        lanes: usize,
        capacity: usize,
        stores: [Arc<Store>; 2],
        startup: Startup,
        stats: Arc<Stats>,
    ) -> Self {
        let [ledger, counter] = stores;
        Shared {
            queues: (0..lanes).map(|_| Queue::new(capacity)).collect(),
            ledger,
            counter,
            stats,
            history: Reader::new(),
            startup,
            running: Mutex::new(lanes),
            ended: Condvar::new(),
        }
    }

    /// Has each queue take what its lane's connection allows.
    pub(super) fn admit(&self) {
        if !self.startup.has_begun() {
            return;
        }
        for (lane, queue) in self.queues.iter().enumerate() {
            queue.admit(match self.ledger.lane(lane) {
                State::Starting => Admission::Refused(Refused::Starting),
                State::Up | State::HalfOpen | State::Reconnecting(_) => Admission::Open,
                State::Suspect => Admission::Probing,
                State::Down => Admission::Refused(Refused::LedgerDown),
            });
        }
    }

    /// Waits until every lane's thread has ended, at most until `until`; says whether they have.
    pub(super) fn wait_ended(&self, until: Instant) -> bool {
        let time = until.saturating_duration_since(Instant::now());
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(running, time, |running| *running > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

/// The start of all lanes: no visit is taken until every one has its ledger, and has tried its
/// counter once.
pub(super) struct Startup {
    /// Time between two attempts to reach the ledger.
    interval: Duration,
    missing: Mutex<usize>,
    all: Condvar,
    begun: std::sync::atomic::AtomicBool,
    schema: OnceLock<String>,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

impl Startup {
    /// A start that `parts` parts take part in.
    pub(super) fn new(
        parts: usize,
        interval: Duration,
        tell: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        let begun = std::sync::atomic::AtomicBool::new(false);
        Startup {
            interval,
            missing: Mutex::new(parts),
            all: Condvar::new(),
            begun,
            schema: OnceLock::new(),
            tell,
        }
    }

    /// A part is ready. Says whether it was the last one.
    fn ready(&self) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        *missing -= 1;
        if *missing > 0 {
            return false;
        }
        self.begun.store(true, std::sync::atomic::Ordering::Release);
        self.all.notify_all();
        true
    }

    /// Waits until all parts are ready.
    fn wait(&self) {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let _all = self.all.wait_while(missing, |missing| *missing > 0);
    }

    /// Whether visits are taken.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// Starts the lane of that number: its thread, and that of its counter's reconnector.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start(
    number: usize,
    shared: &Arc<Shared>,
    ledger: Box<dyn Ledger>,
    counter: Box<dyn Counter>,
) -> std::io::Result<()> {
    let (counting, reconnector) = counting(
        number,
        Arc::clone(&shared.counter),
        Arc::clone(&shared.stats),
    );
    let lane = Lane {
        number,
        shared: Arc::clone(shared),
        ledger,
        counting,
    };
    thread::Builder::new()
        .name(format!("lane-{number}"))
        .spawn(move || lane.run())?;
    let shared = Arc::clone(shared);
    let tried = move || part_ready(&shared);
    thread::Builder::new()
        .name(format!("counter-{number}"))
        .spawn(move || reconnector.run(counter, tried))?;
    Ok(())
}

fn part_ready(shared: &Shared) {
    if shared.startup.ready() {
        shared.admit();
        (shared.startup.tell)(Event::Ready(shared.startup.schema.get().cloned()));
    }
}

/// What a lane's thread owns.
struct Lane {
    number: usize,
    shared: Arc<Shared>,
    ledger: Box<dyn Ledger>,
    counting: Counting,
}

impl Lane {
    /// Reaches the ledger, then serves batches until the queue is closed and empty.
    fn run(mut self) {
        if self.reach() {
            if let Some(schema) = self.ledger.schema() {
                let _ = self.shared.startup.schema.set(schema.to_owned());
            }
            part_ready(&self.shared);
            self.shared.startup.wait();
            self.serve();
        }
        self.ledger.close();
        *self
            .shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= 1;
        self.shared.ended.notify_all();
    }

    fn queue(&self) -> &Queue {
        &self.shared.queues[self.number]
    }

    /// The attempts to reach the ledger at the start; says whether one succeeded.
    fn reach(&mut self) -> bool {
        let interval = self.shared.startup.interval;
        for attempt in 1.. {
            let end = match self.ledger.open() {
                Ok(_) => break,
                Err(OpenError::Transient(reason)) => self
                    .shared
                    .ledger
                    .attempt_failed(attempt, &reason, interval),
                Err(OpenError::Permanent(reason)) => {
                    Some(format!("{}: {reason}", self.shared.ledger.name()))
                }
            };
            if let Some(sentence) = end {
                (self.shared.startup.tell)(Event::Failed(sentence));
                return false;
            }
            if !self.queue().pause(interval) {
                return false;
            }
        }
        self.shared.ledger.opened(self.number);
        true
    }

    fn serve(&mut self) {
        let mut after_batch = false;
        loop {
            match self.queue().next(after_batch) {
                Next::End => return,
                Next::Probe => self.probe(),
                Next::History(batch) => self.settle(batch),
                Next::Batch(batch) => {
                    self.settle(batch);
                    self.ledger.maintain();
                    after_batch = true;
                    continue;
                }
            }
            after_batch = false;
        }
    }

    /// Another lane found the ledger down: finds out whether this lane's connection still works.
    fn probe(&mut self) {
        match self.ledger.peek() {
            Ok(_) => {
                self.shared.ledger.cleared(self.number);
                self.shared.admit();
            }
            Err(error) => {
                self.shared
                    .ledger
                    .lost(self.number, Disconnect::Idle, &error.to_string());
                self.reopen();
            }
        }
    }

    /// Does what the batch asks for, or finds out what became of it; answers it in every case.
    fn settle(&mut self, mut batch: Arc<Batch>) {
        for tries in 1.. {
            let visits = batch.arrivals().count();
            let began = Instant::now();
            let (how, reason) = match self.perform(&batch) {
                Ok(totals) => return self.committed(&batch, visits, totals, began),
                Err(CommitError::Transient(_)) if tries < MAX_TRIES => {
                    match self.queue().in_time(&batch) {
                        Some(rest) => {
                            batch = rest;
                            continue;
                        }
                        None => return,
                    }
                }
                Err(CommitError::Transient(reason) | CommitError::Rejected(reason)) => {
                    self.queue()
                        .finish(&batch, Outcome::Refused(Refused::LedgerDown));
                    if visits > 0 {
                        self.lost(Disconnect::Rejected, &reason);
                    } else {
                        log::warn!("{}: {reason}", self.shared.ledger.name());
                    }
                    return;
                }
                Err(CommitError::Idle(reason)) => {
                    // Those who wait for a connection wait in the queue, which knows for how long.
                    self.queue().put_back(&batch);
                    self.lost(Disconnect::Idle, &reason);
                    return;
                }
                Err(CommitError::InDoubt(reason)) => (Disconnect::MidCommand, reason),
                Err(CommitError::TimedOut(reason)) => (Disconnect::Timeout, reason),
            };
            add(
                &self.shared.stats.ambiguous_commits,
                usize::from(visits > 0),
            );
            // When the process stops before the ledger is back, nobody can tell.
            match self.lost(how, &reason).unwrap_or(LastBatch::Unknown) {
                LastBatch::Committed(totals) => {
                    return self.committed(&batch, visits, totals, began);
                }
                LastBatch::Unknown => {
                    return self.queue().finish(&batch, Outcome::Refused(Refused::Late));
                }
                LastBatch::NotCommitted => match self.queue().in_time(&batch) {
                    Some(rest) => batch = rest,
                    None => return,
                },
            }
        }
    }

    /// One call of the ledger for all of the batch.
    fn perform(&mut self, batch: &Batch) -> Result<Totals, CommitError> {
        let arrivals: Vec<SystemTime> = batch.arrivals().collect();
        if !arrivals.is_empty() {
            return self.ledger.commit(&arrivals);
        }
        if batch.any(Ask::Peek) {
            return self.ledger.peek();
        }
        let now = SystemTime::now();
        let buckets = self.ledger.history(now)?;
        self.shared.history.publish(now, &buckets);
        Ok(Totals::default())
    }

    /// The batch is committed: the counter is next, then its visitors.
    fn committed(&mut self, batch: &Arc<Batch>, visits: usize, totals: Totals, began: Instant) {
        if visits > 0 {
            self.shared.stats.committed(visits, began.elapsed());
            self.shared.ledger.worked(self.number);
        }
        let counts = visits > 0 || batch.any(Ask::Peek);
        let cache = if counts {
            self.counting.count(visits)
        } else {
            None
        };
        self.queue()
            .finish(batch, Outcome::Counted { totals, cache });
    }

    /// The connection is lost. One try to replace it at once, if it was good: that is no outage
    /// yet, and visits queue meanwhile. Else, and after that, the ledger is down until it is
    /// reached again. Tells what became of the last batch; `None` when the process stops first.
    fn lost(&mut self, how: Disconnect, reason: &str) -> Option<LastBatch> {
        if self.shared.ledger.lost(self.number, how, reason) {
            match self.ledger.open() {
                Ok(last) => {
                    add(&self.shared.stats.ledger_reconnects, 1);
                    self.shared.ledger.replaced(self.number, reason);
                    self.shared.admit();
                    return Some(last);
                }
                Err(error) => self
                    .shared
                    .ledger
                    .not_replaced(self.number, &error.to_string()),
            }
        }
        self.reopen()
    }

    /// The ledger is down: refuses visits until it is back.
    fn reopen(&mut self) -> Option<LastBatch> {
        self.shared.admit();
        while self.queue().pause(self.shared.ledger.wait(self.number)) {
            if let Ok(last) = self.ledger.open() {
                add(&self.shared.stats.ledger_reconnects, 1);
                self.shared.ledger.opened(self.number);
                self.shared.admit();
                return Some(last);
            }
        }
        None
    }
}

//! A lane: a queue of visits, and the thread that commits what waits as one batch, has it counted
//! and answers it.

mod batch;
mod completion;
mod counting;
mod delivery;
mod queue;
mod startup;
mod waiter;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use super::counter::Counter;
use super::history::reader::Reader;
use super::ledger::{CommitError, LastBatch, Ledger, OpenError, Totals};
use super::stats::{Stats, add};
use super::store::{Disconnect, State, Store};
use super::{Event, Refused};
use batch::Batch;
pub(super) use batch::{Ask, Ticket};
use completion::Completion;
use counting::counting;
use delivery::Outcome;
use queue::Next;
pub(super) use queue::{Admission, Queue};
pub(super) use startup::Startup;
pub use waiter::Waiter;

/// Tries to commit a batch after errors that pass, such as a deadlock. Then it is refused.
const MAX_TRIES: usize = 3;

/// What all lanes share.
pub(super) struct Shared {
    pub(super) queues: Vec<Queue>,
    pub(super) ledger: Arc<Store>,
    pub(super) counter: Arc<Store>,
    pub(super) stats: Arc<Stats>,
    pub(super) history: Reader,
    pub(super) startup: Startup,
    running: Mutex<usize>,
    ended: Condvar,
}

impl Shared {
    /// For that many lanes, each of which lets `capacity` visits wait.
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

    /// Sets each queue's admission by the state of its lane's connection.
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

    /// Waits until every lane has ended, at most until `until`; says whether they have.
    pub(super) fn wait_ended(&self, until: Instant) -> bool {
        let time = until.saturating_duration_since(Instant::now());
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(running, time, |running| *running > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

/// Starts a lane: its thread, and that of its counter's reconnector.
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
        completion: Completion::new(number, Arc::clone(shared), counting),
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
        let schema = shared.startup.schema.get().cloned();
        shared.startup.report(Event::Ready(schema));
    }
}

struct Lane {
    number: usize,
    shared: Arc<Shared>,
    ledger: Box<dyn Ledger>,
    completion: Completion,
}

impl Lane {
    /// Serves batches until the queue is closed and empty.
    fn run(mut self) {
        if self.connect() {
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

    /// Connects to the ledger at the start, in some attempts; says whether one succeeded.
    fn connect(&mut self) -> bool {
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
                self.shared.startup.report(Event::Failed(sentence));
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
            if self.completion.comes_first() {
                self.completion.finish();
            }
            let wait = !self.completion.is_due();
            match self.queue().next(after_batch, wait) {
                Next::Nothing => self.completion.finish(),
                Next::End => return,
                Next::Probe => self.probe(),
                Next::History(batch) => self.settle(batch),
                Next::Batch(batch) => {
                    self.settle(batch);
                    let completion = &mut self.completion;
                    let mut finish = || completion.finish();
                    self.ledger.maintain(Some(&mut finish));
                    after_batch = true;
                    continue;
                }
            }
            after_batch = false;
        }
    }

    /// Another lane found the ledger down: tries this lane's connection.
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

    /// Commits the batch, or reads what it asks for, and answers it in every case. A commit in
    /// doubt is resolved by the next connection:
    ///
    /// ```text
    /// perform ─┬─ Ok ──────────────────────────────────────────▶ count, answer
    ///          ├─ Transient ── again, up to MAX_TRIES ─────────▶ refuse
    ///          ├─ Rejected ────────────────────────────────────▶ refuse; the ledger is half-open
    ///          ├─ Idle: nothing was sent ──────────────────────▶ back to the queue, reconnect
    ///          └─ InDoubt, TimedOut ── reconnect ─┬─ Committed ▶ count, answer
    ///                                             ├─ Not ──────▶ perform again, while in time
    ///                                             └─ Unknown ──▶ answer that it is late
    /// ```
    fn settle(&mut self, mut batch: Arc<Batch>) {
        for tries in 1.. {
            let visits = batch.arrivals().count();
            let began = Instant::now();
            let performed = self.perform(&batch);
            // Where it was not finished meanwhile.
            self.completion.finish();
            let (how, reason) = match performed {
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
                    // In the queue each ticket waits until its own deadline.
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
            // Unknown too where the process stops before the ledger is back.
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
            let is_due = self.completion.is_due();
            let mut finish = || self.completion.finish();
            return self
                .ledger
                .commit(&arrivals, is_due.then_some(&mut finish as _));
        }
        self.completion.finish();
        if batch.any(Ask::Peek) {
            return self.ledger.peek();
        }
        let now = SystemTime::now();
        let buckets = self.ledger.history(now)?;
        self.shared.history.publish(now, &buckets);
        Ok(Totals::default())
    }

    /// The batch is committed: to be counted, then answered.
    fn committed(&mut self, batch: &Arc<Batch>, visits: usize, totals: Totals, began: Instant) {
        if visits > 0 {
            self.shared.stats.committed(visits, began.elapsed());
            self.shared.ledger.worked(self.number);
        }
        self.completion.begin(batch, visits, totals);
    }

    /// The connection is lost. A confirmed one is replaced at once, in one try, while visits queue.
    /// Otherwise, and after that try, the ledger is down until it is reached again. Returns what
    /// became of the last batch; `None` when the process stops first.
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

    /// The ledger is down: visits are refused until it is back.
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

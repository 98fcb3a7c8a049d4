//! A lane: a queue of visits, and the thread that commits what waits as one batch, has it counted
//! and answers it.

mod batch;
mod completion;
mod counting;
mod delivery;
mod queue;
mod startup;
mod waiter;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use super::counter::Counter;
use super::history::History;
use super::history::reader::Reader;
use super::ledger::{Arrivals, CommitError, LastBatch, Ledger, OpenError, Sums};
use super::name::{Admitted, Name, Names};
use super::question::{NamesQuestion, Reading};
use super::stats::{Stats, add};
use super::store::{Disconnect, State, Store};
use super::{Count, Event, Refused};
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
/// Names that the ledger lists at once.
const NAMES_A_LIST: usize = 1000;

/// What all lanes share.
pub(super) struct Shared {
    pub(super) queues: Vec<Queue>,
    pub(super) ledger: Arc<Store>,
    pub(super) counter: Arc<Store>,
    pub(super) stats: Arc<Stats>,
    pub(super) history: Reader,
    pub(super) names: Names,
    pub(super) startup: Startup,
    last_count: Mutex<Option<Count>>,
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
        names: Names,
    ) -> Self {
        let [ledger, counter] = stores;
        Shared {
            queues: (0..lanes).map(|_| Queue::new(capacity)).collect(),
            ledger,
            counter,
            stats,
            history: Reader::new(),
            names,
            startup,
            last_count: Mutex::new(None),
            running: Mutex::new(lanes),
            ended: Condvar::new(),
        }
    }

    /// The newest numbers of all visits; `None` before the first.
    pub(super) fn last_count(&self) -> Option<Count> {
        *self.lock_last_count()
    }

    fn counted(&self, count: Count) {
        *self.lock_last_count() = Some(count);
    }

    fn lock_last_count(&self) -> MutexGuard<'_, Option<Count>> {
        // It guards a value that is whole at any time.
        let last = self.last_count.lock();
        last.unwrap_or_else(PoisonError::into_inner)
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
            let opened = self.ledger.open().and_then(|_| self.load_names());
            let end = match opened {
                Ok(()) => break,
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

    /// The names that the ledger has are in use: one lane finds them for all.
    fn load_names(&mut self) -> Result<(), OpenError> {
        let names = &self.shared.names;
        if self.number > 0 || !names.are_admitted() {
            return Ok(());
        }
        let mut after = String::new();
        loop {
            let listed = self.ledger.list(&after, NAMES_A_LIST);
            let listed = listed.map_err(|error| OpenError::Transient(error.to_string()))?;
            let more = listed.len() == NAMES_A_LIST;
            for (text, _) in listed {
                let found = names.find(&text);
                if found.is_some_and(|name| names.admit(&name) == Admitted::Full) {
                    return Ok(());
                }
                after = text;
            }
            if !more {
                return Ok(());
            }
        }
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
                Next::Questions(batch) => self.settle(batch),
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
            let arrivals = batch.arrivals();
            let visits = arrivals.times.len();
            let began = Instant::now();
            let performed = self.perform(&batch, &arrivals);
            // Where it was not finished meanwhile.
            self.completion.finish();
            let (how, reason) = match performed {
                Ok(sums) => return self.committed(&batch, arrivals, sums, began),
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
                LastBatch::Committed(sums) => {
                    return self.committed(&batch, arrivals, sums, began);
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

    /// One call of the ledger for all visits of the batch, or for what it asks.
    fn perform(&mut self, batch: &Batch, arrivals: &Arrivals) -> Result<Sums, CommitError> {
        if !arrivals.times.is_empty() {
            let is_due = self.completion.is_due();
            let mut finish = || self.completion.finish();
            return self
                .ledger
                .commit(arrivals, is_due.then_some(&mut finish as _));
        }
        self.completion.finish();
        if batch.any(|ask| matches!(ask, Ask::Peek)) {
            let all = self.ledger.peek()?;
            return Ok(Sums {
                all,
                ..Sums::default()
            });
        }
        self.answer_questions(batch)?;
        Ok(Sums::default())
    }

    fn answer_questions(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if batch.refresh || batch.any(|ask| matches!(ask, Ask::History)) {
            let now = SystemTime::now();
            let buckets = self.ledger.history(now)?;
            self.shared.history.publish(now, &buckets);
        }
        let mut about_names = Vec::new();
        for ticket in &batch.tickets {
            match &ticket.ask {
                Ask::Names(question) => about_names.push(&**question),
                Ask::List(question) => {
                    let listed = self.ledger.list(&question.after, question.most)?;
                    // Only where it was answered before a connection was lost.
                    let _ = question.answer.set(listed);
                }
                _ => {}
            }
        }
        if about_names.is_empty() {
            return Ok(());
        }
        self.read_names(&about_names)
    }

    /// One statement for all questions about names.
    fn read_names(&mut self, questions: &[&NamesQuestion]) -> Result<(), CommitError> {
        let names: Vec<Name> = questions
            .iter()
            .flat_map(|question| question.names.iter().cloned())
            .collect();
        let now = SystemTime::now();
        let wants_history = questions.iter().any(|question| question.history);
        let found = self.ledger.names(&names, wants_history.then_some(now))?;
        let caches = self.completion.read_names(&names);
        let mut readings = found.into_iter().zip(caches);
        for question in questions {
            let answer = readings.by_ref().take(question.names.len());
            let answer = answer.map(|((totals, buckets), cache)| Reading {
                totals,
                cache,
                history: question
                    .history
                    .then(|| Arc::new(History::new(now, &buckets))),
            });
            let _ = question.answer.set(answer.collect());
        }
        Ok(())
    }

    /// The batch is committed: to be counted, then answered.
    fn committed(&mut self, batch: &Arc<Batch>, visits: Arrivals, sums: Sums, began: Instant) {
        if !visits.times.is_empty() {
            let took = began.elapsed();
            self.shared.stats.committed(visits.times.len(), took);
            self.shared.ledger.worked(self.number);
        }
        self.completion.begin(batch, visits, sums);
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

//! The historian: a thread that looks at the history for all who ask at once, and rolls up rows from before it.
//!
//! It has a connection of its own, so that neither is in a visit's way. Whoever only wants what was seen lately gets it
//! without waiting, and has the thread look again, at most once a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use may::coroutine;

use super::health::{Health, StoreState};
use super::history::History;
use super::ledger::{Chronicle, RolledUp};
use super::seat::Seat;
use super::{Count, Refused};
use crate::clock;

/// What was seen at the last look is new enough for this long.
const LATELY: Duration = Duration::from_secs(1);
/// A page shows what was seen this long ago, in milliseconds: a look, and a tick that finds it old, take their time.
const LATELY_MS: u64 = 2000;
/// After a failure nothing is tried for this long, and whoever asks is refused at once.
const QUIET: Duration = Duration::from_secs(1);
/// Nobody asked for this long: the connection is let go.
const REST: Duration = Duration::from_secs(60);
/// Failures in a row that are logged, while the lanes have no trouble: one can be the end of a connection.
const FAILURES_LOGGED: u32 = 3;
/// Time between two log lines about the roll-up.
const PROGRESS: Duration = Duration::from_secs(5);

/// One who waits for a look.
struct Waiting {
    seat: Arc<Seat>,
    turn: u64,
    deadline: Instant,
}

/// Where looks are asked for and their results kept.
pub(super) struct Historian {
    state: Mutex<State>,
    wake: Condvar,
    /// Somebody was given what was seen lately since the last tick.
    read: AtomicBool,
    /// Looks so far, and the coarse clock at the last.
    looks: AtomicU64,
    looked_ms: AtomicU64,
    /// Nothing is left to roll up.
    complete: AtomicBool,
    /// The ledger's health: while it is away nothing is tried.
    ledger: Arc<Health>,
}

struct State {
    seen: Option<(Arc<History>, Instant)>,
    waiting: Vec<Waiting>,
    wanted: bool,
    started: bool,
    closed: bool,
}

impl Historian {
    pub(super) fn new(ledger: Arc<Health>) -> Self {
        let state = State { seen: None, waiting: Vec::new(), wanted: false, started: false, closed: false };
        Historian {
            state: Mutex::new(state),
            wake: Condvar::new(),
            read: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            looked_ms: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            ledger,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Which look was the last, from 1, and whether it was lately: every page asks, so this takes no lock.
    pub(super) fn last_look(&self) -> (u64, bool) {
        // A store only where it changes something.
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
        let since = clock::monotonic_ms().saturating_sub(self.looked_ms.load(Ordering::Relaxed));
        let look = self.looks.load(Ordering::Acquire);
        (look, look > 0 && since < LATELY_MS)
    }

    /// What was seen at the last look; none before the first.
    pub(super) fn seen(&self) -> Option<Arc<History>> {
        self.lock().seen.as_ref().map(|(history, _)| Arc::clone(history))
    }

    /// Waits for a look that begins now.
    pub(super) fn look(&self, seat: &Arc<Seat>, deadline: Instant) -> Result<Arc<History>, Refused> {
        let turn = seat.begin();
        let mut state = self.lock();
        if !state.started {
            return Err(Refused::Starting);
        }
        if state.closed {
            return Err(Refused::Closing);
        }
        state.waiting.push(Waiting { seat: Arc::clone(seat), turn, deadline });
        drop(state);
        self.wake.notify_one();
        seat.wait()?;
        self.lock().seen.as_ref().map(|(history, _)| Arc::clone(history)).ok_or(Refused::LedgerAway)
    }

    /// Refuses whoever has waited too long, and has the thread look where somebody read what is not new.
    pub(super) fn tick(&self, now: Instant) {
        let mut state = self.lock();
        let late: Vec<Waiting> = {
            let (late, rest) = std::mem::take(&mut state.waiting).into_iter().partition(|one| one.deadline <= now);
            state.waiting = rest;
            late
        };
        let old = state.seen.as_ref().is_none_or(|(_, at)| at.elapsed() >= LATELY);
        if old && state.started && self.read.swap(false, Ordering::Relaxed) {
            state.wanted = true;
            self.wake.notify_one();
        }
        drop(state);
        answer(late, Err(Refused::Late));
    }

    /// The ledger was reached: looks may begin.
    pub(super) fn start(&self) {
        self.lock().started = true;
        self.wake.notify_one();
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// The thread.
    pub(super) fn run(&self, mut chronicle: Box<dyn Chronicle>) {
        let mut work = Work { left: true, logged: None, failed: None, failures: 0 };
        loop {
            let waiting = match self.next(&work) {
                Next::Look(waiting) => waiting,
                Next::RollUp => {
                    self.roll_up(chronicle.as_mut(), &mut work);
                    continue;
                }
                Next::Rest => {
                    chronicle.rest();
                    continue;
                }
                Next::End => return,
            };
            if self.is_away() || work.failed.is_some_and(|at| at.elapsed() < QUIET) {
                answer(waiting, Err(Refused::LedgerAway));
                continue;
            }
            let now = SystemTime::now();
            match chronicle.look(now) {
                Ok((buckets, complete)) => {
                    work.succeeded();
                    self.lock().seen = Some((Arc::new(History::new(now, &buckets, complete)), Instant::now()));
                    self.looked_ms.store(clock::monotonic_ms(), Ordering::Relaxed);
                    self.looks.fetch_add(1, Ordering::Release);
                    answer(waiting, Ok(()));
                }
                Err(reason) => {
                    if work.fails() && !self.is_away() {
                        log::warn!("the history cannot be read: {reason}");
                    }
                    answer(waiting, Err(Refused::LedgerAway));
                }
            }
        }
    }

    /// Waits for what is to be done next. A look goes first; the roll-up rests after each step.
    fn next(&self, work: &Work) -> Next {
        let mut state = self.lock();
        let time = if work.left { work.pause() } else { REST };
        let idle = |state: &mut State| !state.closed && (!state.started || (state.waiting.is_empty() && !state.wanted));
        let waited = self.wake.wait_timeout_while(state, time, idle);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.closed {
            return Next::End;
        }
        if !state.waiting.is_empty() || state.wanted {
            state.wanted = false;
            return Next::Look(std::mem::take(&mut state.waiting));
        }
        if work.left && state.started { Next::RollUp } else { Next::Rest }
    }

    /// A step of the roll-up, with a log line at its beginning, every few seconds, and at its end.
    fn roll_up(&self, chronicle: &mut dyn Chronicle, work: &mut Work) {
        if self.is_away() {
            return work.failed = Some(Instant::now());
        }
        let began = Instant::now();
        match chronicle.roll_up() {
            Ok(RolledUp::Nothing) => {
                self.complete(work);
                // Nobody may ever look.
                chronicle.rest();
            }
            Ok(RolledUp::Last) => {
                self.complete(work);
                log::info!("every row from before is in the history");
                self.lock().wanted = true;
            }
            Ok(RolledUp::UpTo { row, of }) => {
                if work.logged.is_none_or(|at| at.elapsed() >= PROGRESS) {
                    work.logged = Some(Instant::now());
                    log::info!("adding rows from before to the history: up to row {row} of {of}");
                }
                work.succeeded();
                // As long as the step took, so that visits have the store for themselves half of the time.
                self.pause(began.elapsed());
            }
            Err(reason) => {
                if work.fails() && !self.is_away() {
                    log::warn!("rows from before cannot be added to the history now, trying again: {reason}");
                }
            }
        }
    }

    /// Whether the lanes found the ledger away, and said so in the log.
    fn is_away(&self) -> bool {
        self.ledger.state() != StoreState::Up
    }

    fn complete(&self, work: &mut Work) {
        work.left = false;
        self.complete.store(true, Ordering::Relaxed);
    }

    /// Waits that long, or until there is something else to do.
    fn pause(&self, time: Duration) {
        let idle = |state: &mut State| !state.closed && state.waiting.is_empty() && !state.wanted;
        drop(self.wake.wait_timeout_while(self.lock(), time, idle));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at each statement of every method.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread knows of its own work.
struct Work {
    /// Rows from before may have to be rolled up.
    left: bool,
    logged: Option<Instant>,
    failed: Option<Instant>,
    /// In a row.
    failures: u32,
}

impl Work {
    fn succeeded(&mut self) {
        (self.failed, self.failures) = (None, 0);
    }

    /// Notes a failure; says whether it is the one to log.
    fn fails(&mut self) -> bool {
        self.failed = Some(Instant::now());
        self.failures += 1;
        self.failures == FAILURES_LOGGED
    }

    /// Time until the next step of the roll-up.
    fn pause(&self) -> Duration {
        self.failed.map_or(Duration::from_millis(1), |at| QUIET.saturating_sub(at.elapsed()))
    }
}

enum Next {
    Look(Vec<Waiting>),
    RollUp,
    Rest,
    End,
}

/// Wakes those who waited, each on its own worker.
fn answer(mut waiting: Vec<Waiting>, result: Result<(), Refused>) {
    // The numbers are not looked at: what was asked for is the history.
    let result = result.map(|()| Count { total: 0, cache: None });
    while let Some(worker) = waiting.first().map(|one| one.seat.worker()) {
        let (mine, others) = waiting.into_iter().partition(|one| one.seat.worker() == worker);
        waiting = others;
        let mine: Vec<Waiting> = mine;
        let wake = move || mine.iter().for_each(|one| one.seat.answer(one.turn, result));
        // SAFETY: as in delivery.rs: the coroutine never yields, so it holds no thread-local value over a wait.
        if let Err(error) = unsafe { coroutine::Builder::new().id(worker).spawn(wake) } {
            log::error!("answers could not be delivered to worker {worker}: {error}");
        }
    }
}

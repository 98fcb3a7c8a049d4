//! Whether a store is there, over all lanes: one log line for each change, however many lanes and visits notice it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Event;
use super::inbox::Inbox;

/// A store's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// Not reached yet.
    Starting = 0,
    /// At least one lane has it.
    Up = 1,
    /// No lane has it.
    Away = 2,
}

/// The health of one store, fed by every lane.
#[derive(Debug)]
pub(super) struct Health {
    name: &'static str,
    lanes: usize,
    attempts: Option<NonZeroUsize>,
    state: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    reached: usize,
    away: usize,
    away_since: Option<Instant>,
    /// The start attempt logged last: every lane makes them, one line each is enough.
    logged_attempt: usize,
}

impl Health {
    pub(super) fn new(name: &'static str, lanes: usize, attempts: Option<NonZeroUsize>) -> Self {
        let state = AtomicU8::new(StoreState::Starting as u8);
        Health { name, lanes, attempts, state, inner: Mutex::default() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn state(&self) -> StoreState {
        match self.state.load(Ordering::Relaxed) {
            0 => StoreState::Starting,
            1 => StoreState::Up,
            _ => StoreState::Away,
        }
    }

    /// A lane reached the store for the first time.
    pub(super) fn reached(&self) {
        let mut inner = self.lock();
        inner.reached += 1;
        self.settle(&inner);
    }

    /// A lane's attempt `attempt` at start failed. Gives the sentence to end with when there are no more attempts.
    pub(super) fn attempt_failed(&self, attempt: usize, reason: &str, wait: Duration) -> Option<String> {
        let mut inner = self.lock();
        let last = self.attempts.is_some_and(|most| attempt >= most.get());
        if inner.logged_attempt < attempt {
            inner.logged_attempt = attempt;
            let of = self.attempts.map_or(String::new(), |most| format!(" of {most}"));
            let next = if last { String::new() } else { format!("; next in {wait:?}") };
            log::warn!("{} not reached, attempt {attempt}{of}: {reason}{next}", self.name);
        }
        last.then(|| format!("{} could not be reached in {attempt} attempts: {reason}", self.name))
    }

    /// A lane lost the store and could not get it back at once.
    pub(super) fn lost(&self, reason: &str) {
        let mut inner = self.lock();
        if inner.away == 0 {
            inner.away_since = Some(Instant::now());
            log::warn!("{} is away: {reason}", self.name);
        }
        inner.away += 1;
        self.settle(&inner);
    }

    /// That lane has it again.
    pub(super) fn back(&self) {
        let mut inner = self.lock();
        inner.away -= 1;
        if inner.away == 0 {
            let away = inner.away_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            log::info!("{} is back after {:.1} s", self.name, away.as_secs_f64());
        }
        self.settle(&inner);
    }

    fn settle(&self, inner: &Inner) {
        let state = if inner.reached < self.lanes {
            StoreState::Starting
        } else if inner.away < self.lanes {
            StoreState::Up
        } else {
            StoreState::Away
        };
        self.state.store(state as u8, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of all lanes: no visit is taken until every stage has reached its store.
pub(super) struct Startup {
    missing: Mutex<usize>,
    all: Condvar,
    begun: AtomicBool,
    inboxes: Arc<[Arc<Inbox>]>,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

impl Startup {
    /// A start that `stages` stages take part in, after which these inboxes are open.
    pub(super) fn new(stages: usize, inboxes: Arc<[Arc<Inbox>]>, tell: Box<dyn Fn(Event) + Send + Sync>) -> Self {
        Startup { missing: Mutex::new(stages), all: Condvar::new(), begun: AtomicBool::new(false), inboxes, tell }
    }

    /// A stage reached its store. Waits for all others to; the last one opens the inboxes.
    pub(super) fn reached(&self) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        *missing -= 1;
        if *missing == 0 {
            self.inboxes.iter().for_each(|inbox| inbox.open());
            self.begun.store(true, Ordering::Release);
            self.all.notify_all();
            (self.tell)(Event::Ready);
        }
        let _all = self.all.wait_while(missing, |missing| *missing > 0);
    }

    /// Whether the inboxes were opened.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// A store cannot be reached: the process is to end with this sentence.
    pub(super) fn failed(&self, sentence: String) {
        (self.tell)(Event::Failed(sentence));
    }
}

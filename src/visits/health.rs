//! Whether a store is there, over all lanes: one log line for each change, however many lanes and visits notice it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Event;
use super::inbox::Inbox;
use super::ledger::OpenError;

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

/// Time in which connections that were lost and regained at once are told of by one line.
const REGAINED_SILENCE: Duration = Duration::from_secs(60);

/// An outage that comes so soon after the last one is the same: a disk with a little room takes a batch now and then.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// The health of one store, fed by every lane.
#[derive(Debug)]
pub(super) struct Health {
    name: &'static str,
    attempts: Option<NonZeroUsize>,
    state: AtomicU8,
    inner: Mutex<Inner>,
}

/// What one lane has of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Nothing yet.
    Starting,
    /// All.
    Has,
    /// A connection on which nothing was done yet, after one on which the store failed: it may fail again.
    OnTrial,
    /// Nothing.
    Away,
}

#[derive(Debug)]
struct Inner {
    lanes: Vec<Hold>,
    /// When the outage that was logged began; none while there is none.
    outage_since: Option<Instant>,
    /// Since when every lane has the store again, after that outage.
    back_since: Option<Instant>,
    /// The start attempt logged last: every lane makes them, one line each is enough.
    logged_attempt: usize,
    regained_logged: Option<Instant>,
}

impl Health {
    pub(super) fn new(name: &'static str, lanes: usize, attempts: Option<NonZeroUsize>) -> Self {
        let lanes = vec![Hold::Starting; lanes];
        let inner = Inner { lanes, outage_since: None, back_since: None, logged_attempt: 0, regained_logged: None };
        Health { name, attempts, state: AtomicU8::new(StoreState::Starting as u8), inner: Mutex::new(inner) }
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
    pub(super) fn reached(&self, lane: usize) {
        self.set(lane, Hold::Has);
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

    /// A lane lost its connection and has another one already. Told of once in a while: it is no outage, and a network
    /// that cuts every connection must not fill the log.
    pub(super) fn regained(&self, reason: &str) {
        let mut inner = self.lock();
        if inner.regained_logged.is_none_or(|logged| logged.elapsed() >= REGAINED_SILENCE) {
            inner.regained_logged = Some(Instant::now());
            log::info!(
                "{} reached again at once, after: {reason}; for {REGAINED_SILENCE:?} the metrics alone count more of these",
                self.name
            );
        }
    }

    /// A lane lost the store and could not get it back at once.
    pub(super) fn lost(&self, lane: usize, reason: &str) {
        self.set(lane, Hold::Away);
        let mut inner = self.lock();
        if inner.outage_since.is_none() {
            inner.outage_since = Some(Instant::now());
            log::warn!("{} is away: {reason}", self.name);
        }
    }

    /// That lane has it again. An outage is only over for a lane `on_trial` once [`Health::proven`]: a full disk may
    /// take a connection and a rehearsal, and refuse every batch.
    pub(super) fn back(&self, lane: usize, on_trial: bool) {
        self.set(lane, if on_trial { Hold::OnTrial } else { Hold::Has });
    }

    /// The store did what it is for.
    pub(super) fn proven(&self) {
        let mut inner = self.lock();
        inner.lanes.iter_mut().filter(|hold| **hold == Hold::OnTrial).for_each(|hold| *hold = Hold::Has);
        self.settle(&mut inner);
    }

    fn set(&self, lane: usize, hold: Hold) {
        let mut inner = self.lock();
        inner.lanes[lane] = hold;
        self.settle(&mut inner);
    }

    /// Works out the state of the store, and since when an outage seems to be over.
    fn settle(&self, inner: &mut Inner) {
        let any = |wanted: &[Hold]| inner.lanes.iter().any(|hold| wanted.contains(hold));
        let state = if any(&[Hold::Starting]) {
            StoreState::Starting
        } else if any(&[Hold::Has, Hold::OnTrial]) {
            StoreState::Up
        } else {
            StoreState::Away
        };
        self.state.store(state as u8, Ordering::Relaxed);
        let over = !any(&[Hold::Away, Hold::OnTrial]);
        inner.back_since = over.then(|| inner.back_since.unwrap_or_else(Instant::now));
    }

    /// Tells of the end of an outage once that has lasted. To be called often.
    pub(super) fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        let (Some(outage), Some(back)) = (inner.outage_since, inner.back_since) else { return };
        if now.saturating_duration_since(back) >= STABLE_AFTER {
            inner.outage_since = None;
            log::info!("{} is back after {:.1} s", self.name, back.saturating_duration_since(outage).as_secs_f64());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of all lanes: no visit is taken until every stage has reached its store.
pub(super) struct Startup {
    /// Time between two attempts to reach a store.
    interval: Duration,
    missing: Mutex<usize>,
    all: Condvar,
    begun: AtomicBool,
    inboxes: Arc<[Arc<Inbox>]>,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

impl Startup {
    /// A start that `stages` stages take part in, after which these inboxes are open.
    pub(super) fn new(
        stages: usize,
        interval: Duration,
        inboxes: Arc<[Arc<Inbox>]>,
        tell: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        let (missing, begun) = (Mutex::new(stages), AtomicBool::new(false));
        Startup { interval, missing, all: Condvar::new(), begun, inboxes, tell }
    }

    /// The attempts of that lane's stage to reach its store; says whether one succeeded. Between two of them it pauses,
    /// which says whether it is to go on.
    pub(super) fn reach(
        &self,
        health: &Health,
        lane: usize,
        mut open: impl FnMut() -> Result<(), OpenError>,
        pause: impl Fn(Duration) -> bool,
    ) -> bool {
        for attempt in 1.. {
            let end = match open() {
                Ok(()) => break,
                Err(OpenError::Again(reason)) => health.attempt_failed(attempt, &reason, self.interval),
                Err(OpenError::Never(reason)) => Some(format!("{}: {reason}", health.name())),
            };
            if let Some(sentence) = end {
                (self.tell)(Event::Failed(sentence));
                return false;
            }
            if !pause(self.interval) {
                return false;
            }
        }
        health.reached(lane);
        true
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(health: &Health) -> bool {
        health.lock().outage_since.is_some()
    }

    #[test]
    fn an_outage_is_over_when_every_lane_has_had_the_store_for_a_while() {
        let health = Health::new("the store", 2, None);
        (0..2).for_each(|lane| health.reached(lane));
        health.lost(0, "a reason");
        health.lost(1, "a reason");
        assert_eq!(health.state(), StoreState::Away);
        health.back(0, false);
        assert_eq!(health.state(), StoreState::Up);
        let later = || Instant::now() + STABLE_AFTER;
        health.tick(later());
        assert!(outage(&health), "one lane has it not");
        health.back(1, false);
        health.tick(Instant::now());
        assert!(outage(&health), "it may be lost again at once");
        health.lost(1, "a reason");
        health.tick(later());
        assert!(outage(&health), "it was lost again");
        health.back(1, false);
        health.tick(later());
        assert!(!outage(&health));
    }

    #[test]
    fn an_outage_of_a_store_on_trial_is_over_once_something_worked() {
        let health = Health::new("the store", 1, None);
        health.reached(0);
        health.lost(0, "a reason");
        health.back(0, true);
        assert_eq!(health.state(), StoreState::Up, "visits are taken: how else could anything work");
        health.tick(Instant::now() + STABLE_AFTER);
        assert!(outage(&health));
        health.proven();
        health.tick(Instant::now() + STABLE_AFTER);
        assert!(!outage(&health));
    }
}

//! A store over all lanes: its state, and one log line per change, however many lanes notice it.

mod backoff;
mod connection;
mod resolver;
mod secret;
mod wire;

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use connection::Connection;
pub(super) use connection::{Disconnect, State};
pub(super) use resolver::Resolver;
pub use secret::Secret;
pub(super) use wire::{Timed, Wire};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// Not reached yet.
    Starting,
    /// For at least one lane.
    Up,
    /// For every lane.
    Down,
}

/// Time between two log lines about connections that were replaced at once.
const REPLACED_SILENCE: Duration = Duration::from_secs(60);

/// An outage that follows the last one within this time is the same: a nearly full disk takes a
/// batch now and then.
const STABLE_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Store {
    name: &'static str,
    attempts: Option<NonZeroUsize>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    lanes: Vec<Connection>,
    /// When the logged outage began; `None` without one.
    outage_since: Option<Instant>,
    /// Since when every lane is up again.
    back_since: Option<Instant>,
    /// The last start attempt that was logged: all lanes make them, one line each suffices.
    logged_attempt: usize,
    replaced_logged: Option<Instant>,
}

impl Store {
    pub(super) fn new(name: &'static str, lanes: usize, attempts: Option<NonZeroUsize>) -> Self {
        let inner = Inner {
            lanes: (0..lanes).map(|_| Connection::new()).collect(),
            outage_since: None,
            back_since: None,
            logged_attempt: 0,
            replaced_logged: None,
        };
        Store {
            name,
            attempts,
            inner: Mutex::new(inner),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The state over all lanes.
    pub(super) fn state(&self) -> StoreState {
        let inner = self.lock();
        if inner.lanes.iter().any(|lane| lane.state == State::Starting) {
            StoreState::Starting
        } else if inner
            .lanes
            .iter()
            .any(|lane| lane.admits() || lane.state == State::Suspect)
        {
            StoreState::Up
        } else {
            StoreState::Down
        }
    }

    pub(super) fn lane(&self, lane: usize) -> State {
        self.lock().lanes[lane].state
    }

    /// A lane's attempt `attempt` at start failed. After the last one, returns the sentence to exit
    /// with.
    pub(super) fn attempt_failed(
        &self,
        attempt: usize,
        reason: &str,
        wait: Duration,
    ) -> Option<String> {
        let mut inner = self.lock();
        let last = self.attempts.is_some_and(|most| attempt >= most.get());
        if inner.logged_attempt < attempt {
            inner.logged_attempt = attempt;
            let of = self
                .attempts
                .map_or(String::new(), |most| format!(" of {most}"));
            let next = if last {
                String::new()
            } else {
                format!("; next in {wait:?}")
            };
            log::warn!(
                "{} not reached, attempt {attempt}{of}: {reason}{next}",
                self.name
            );
        }
        last.then(|| {
            format!(
                "{} could not be reached in {attempt} attempts: {reason}; visitas check says what to do",
                self.name
            )
        })
    }

    pub(super) fn opened(&self, lane: usize) {
        self.change(lane, Connection::opened);
    }

    /// A command worked.
    pub(super) fn worked(&self, lane: usize) {
        let mut inner = self.lock();
        inner.lanes[lane].worked();
        // Another lane's commands will work too.
        inner
            .lanes
            .iter_mut()
            .filter(|other| other.state == State::HalfOpen)
            .for_each(Connection::worked);
        inner.settle();
    }

    /// That lane lost its connection. Says whether it may be replaced at once; otherwise the store
    /// is down for it.
    pub(super) fn lost(&self, lane: usize, how: Disconnect, reason: &str) -> bool {
        let state = self.change(lane, |connection| connection.lost(how));
        let replaced_at_once = matches!(state, State::Reconnecting(_));
        if !replaced_at_once {
            self.down(lane, reason);
        }
        replaced_at_once
    }

    /// That lane's try to replace its connection at once failed.
    pub(super) fn not_replaced(&self, lane: usize, reason: &str) {
        self.change(lane, Connection::failed);
        self.down(lane, reason);
    }

    /// A lane lost its connection and has a new one. Logged now and then: it is no outage, and a
    /// network that cuts every connection must not fill the log.
    pub(super) fn replaced(&self, lane: usize, reason: &str) {
        self.opened(lane);
        let mut inner = self.lock();
        if inner
            .replaced_logged
            .is_none_or(|logged| logged.elapsed() >= REPLACED_SILENCE)
        {
            inner.replaced_logged = Some(Instant::now());
            log::info!(
                "{} reached again at once, after: {reason}; only the metrics count more of these \
                 within {REPLACED_SILENCE:?}",
                self.name
            );
        }
    }

    /// That lane's suspect connection works.
    pub(super) fn cleared(&self, lane: usize) {
        self.change(lane, Connection::cleared);
    }

    /// The wait before that lane's next try to connect.
    pub(super) fn wait(&self, lane: usize) -> Duration {
        self.lock().lanes[lane].wait()
    }

    /// The store is down for that lane, and suspect for all others.
    fn down(&self, lane: usize, reason: &str) {
        let mut inner = self.lock();
        inner
            .lanes
            .iter_mut()
            .enumerate()
            .filter(|(other, _)| *other != lane)
            .for_each(|(_, other)| other.suspect());
        if inner.outage_since.is_none() {
            inner.outage_since = Some(Instant::now());
            log::warn!("{} is down: {reason}", self.name);
        }
    }

    fn change(&self, lane: usize, transition: impl FnOnce(&mut Connection)) -> State {
        let mut inner = self.lock();
        transition(&mut inner.lanes[lane]);
        inner.settle();
        inner.lanes[lane].state
    }

    /// Ends graces, and logs the end of an outage once that has lasted.
    pub(super) fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        inner.lanes.iter_mut().for_each(|lane| {
            lane.tick(now);
        });
        inner.settle();
        let (Some(outage), Some(back)) = (inner.outage_since, inner.back_since) else {
            return;
        };
        if now.saturating_duration_since(back) >= STABLE_AFTER {
            inner.outage_since = None;
            log::info!(
                "{} is back after {:.1} s",
                self.name,
                back.saturating_duration_since(outage).as_secs_f64()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every transition leaves the state whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Notes since when every lane is up.
    fn settle(&mut self) {
        let over = self
            .lanes
            .iter()
            .all(|lane| matches!(lane.state, State::Up | State::Starting));
        self.back_since = over.then(|| self.back_since.unwrap_or_else(Instant::now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(store: &Store) -> bool {
        store.lock().outage_since.is_some()
    }

    fn up(lanes: usize) -> Store {
        let store = Store::new("the store", lanes, None);
        (0..lanes).for_each(|lane| {
            store.opened(lane);
            store.worked(lane);
        });
        store
    }

    #[test]
    fn an_outage_is_over_when_every_lane_has_had_the_store_for_a_while() {
        let store = up(2);
        store.lost(0, Disconnect::Timeout, "a reason");
        store.lost(1, Disconnect::Timeout, "a reason");
        assert_eq!(store.state(), StoreState::Down);
        store.opened(0);
        assert_eq!(store.state(), StoreState::Up);
        let later = || Instant::now() + STABLE_AFTER;
        store.tick(later());
        assert!(outage(&store), "one lane is down");
        store.opened(1);
        store.tick(Instant::now());
        assert!(outage(&store), "it may be lost again at once");
        store.lost(1, Disconnect::Timeout, "a reason");
        store.tick(later());
        assert!(outage(&store), "it was lost again");
        store.opened(0);
        store.opened(1);
        store.tick(later());
        assert!(!outage(&store));
    }

    #[test]
    fn an_outage_of_a_store_that_rejects_is_over_once_something_worked() {
        let store = up(1);
        store.lost(0, Disconnect::Rejected, "a reason");
        store.opened(0);
        assert_eq!(store.state(), StoreState::Up);
        store.tick(Instant::now() + STABLE_AFTER);
        assert!(outage(&store));
        store.worked(0);
        store.tick(Instant::now() + STABLE_AFTER);
        assert!(!outage(&store));
    }

    #[test]
    fn a_store_that_one_lane_finds_down_is_suspect_for_the_others() {
        let store = up(2);
        assert!(!store.lost(0, Disconnect::Timeout, "a reason"));
        assert_eq!(store.lane(1), State::Suspect);
        store.cleared(1);
        assert_eq!(store.lane(1), State::Up);
    }
}

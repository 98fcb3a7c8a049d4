//! The life of one lane's connection to a store: one state machine, from which admission, health,
//! logs and `/readyz` follow.
//!
//! ```text
//!                opened                       worked
//!   Starting ──────────────▶ Up ◀────────────────────────── HalfOpen
//!                          │ ▲ │ suspect       opened after   ▲ │
//!             lost,        │ │ ▼               a failure      │ │ lost
//!             confirmed    │ │ Suspect ──┐                    │ │
//!                          ▼ │ opened    │ lost               │ ▼
//!                    Reconnecting ───────┴──────────────────▶ Down
//!                                failed, or GRACE is over
//! ```
//!
//! A store may accept connections and still fail every command: a full disk, a server that dies in
//! each commit. So a connection is *confirmed* once a command worked on it. Only a confirmed one is
//! replaced at once, while visits queue. Otherwise a lane would reconnect without a pause, and log
//! an outage and its end for each visit.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// Time to replace a lost connection while visits queue. PostgreSQL takes some 10 ms for one, and
/// ten times that on busy cores; what takes much longer is an outage.
pub(in crate::visits) const GRACE: Duration = Duration::from_millis(500);

/// A connection that stood for this long unused is as good as confirmed.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Unconfirmed connections lost in a row that are no accident.
const FLAPPING_FROM: u32 = 2;

/// How a connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::visits) enum Disconnect {
    /// Found closed, with nothing in flight.
    Idle,
    /// Lost with a command in flight.
    MidCommand,
    /// The store did not answer in time.
    Timeout,
    /// The store rejected a command that it must accept.
    Rejected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::visits) enum State {
    /// Not connected yet.
    Starting,
    /// Connected.
    Up,
    /// Lost then, and being replaced; visits queue.
    Reconnecting(Instant),
    /// Another lane found the store down; this lane must probe its connection first.
    Suspect,
    /// No visit is taken.
    Down,
    /// Connected after the store failed, and not confirmed.
    HalfOpen,
}

/// One lane's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    opened: Instant,
    /// A command worked on it.
    confirmed: bool,
    /// The store failed; only a command that works ends that.
    half_open: bool,
    /// Unconfirmed connections lost in a row.
    unconfirmed: u32,
    backoff: Backoff,
    /// Skips the next wait.
    at_once: bool,
}

impl Connection {
    pub(super) fn new() -> Self {
        Connection {
            state: State::Starting,
            opened: Instant::now(),
            confirmed: true,
            half_open: false,
            unconfirmed: 0,
            backoff: Backoff::new(),
            at_once: false,
        }
    }

    /// Whether visits may queue.
    pub(super) fn admits(&self) -> bool {
        matches!(
            self.state,
            State::Up | State::HalfOpen | State::Reconnecting(_)
        )
    }

    pub(super) fn opened(&mut self) {
        self.opened = Instant::now();
        self.confirmed = false;
        self.state = if self.half_open {
            State::HalfOpen
        } else {
            State::Up
        };
    }

    /// A command worked.
    pub(super) fn worked(&mut self) {
        self.confirmed = true;
        self.unconfirmed = 0;
        self.half_open = false;
        self.state = State::Up;
    }

    /// The connection was lost: it is reconnecting where it may be replaced at once, otherwise
    /// down.
    pub(super) fn lost(&mut self, how: Disconnect) {
        let confirmed = self.is_confirmed();
        if confirmed && matches!(how, Disconnect::Idle | Disconnect::MidCommand) && self.admits() {
            self.state = State::Reconnecting(Instant::now());
            return;
        }
        if confirmed {
            self.backoff = Backoff::new();
        }
        // The time-out was pause enough.
        self.at_once = confirmed && how == Disconnect::Timeout;
        if how != Disconnect::Idle && !confirmed {
            self.unconfirmed += 1;
        }
        self.half_open |= how == Disconnect::Rejected || self.unconfirmed >= FLAPPING_FROM;
        self.state = State::Down;
    }

    /// The try to replace it at once failed.
    pub(super) fn failed(&mut self) {
        self.backoff = Backoff::new();
        self.state = State::Down;
    }

    /// Another lane found the store down.
    pub(super) fn suspect(&mut self) {
        if matches!(self.state, State::Up | State::HalfOpen) {
            self.state = State::Suspect;
        }
    }

    /// A suspect connection was probed and works.
    pub(super) fn cleared(&mut self) {
        if self.state == State::Suspect {
            self.state = if self.half_open {
                State::HalfOpen
            } else {
                State::Up
            };
        }
    }

    /// Ends the grace of a connection that takes too long to replace; says whether it is down by
    /// that.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let over = matches!(self.state, State::Reconnecting(since) if now >= since + GRACE);
        if over {
            self.state = State::Down;
        }
        over
    }

    /// The wait before the next try to connect.
    pub(super) fn wait(&mut self) -> Duration {
        if std::mem::take(&mut self.at_once) {
            Duration::ZERO
        } else {
            self.backoff.wait()
        }
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed || self.opened.elapsed() >= SETTLED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Connection {
        let mut connection = Connection::new();
        connection.opened();
        connection.worked();
        connection
    }

    fn is_reconnecting(connection: &Connection) -> bool {
        matches!(connection.state, State::Reconnecting(_))
    }

    #[test]
    fn a_confirmed_connection_is_replaced_at_once_and_another_one_is_not() {
        let mut connection = up();
        connection.lost(Disconnect::MidCommand);
        assert!(is_reconnecting(&connection) && connection.admits());
        connection.opened();
        assert_eq!(
            connection.state,
            State::Up,
            "no half-open without a failure"
        );
        connection.lost(Disconnect::MidCommand);
        assert_eq!(connection.state, State::Down);
        assert!(!connection.admits());
    }

    #[test]
    fn what_was_rejected_is_half_open_until_something_works() {
        let mut connection = up();
        connection.lost(Disconnect::Rejected);
        assert_eq!(connection.state, State::Down);
        connection.opened();
        assert_eq!(connection.state, State::HalfOpen);
        connection.lost(Disconnect::Idle);
        connection.opened();
        assert_eq!(
            connection.state,
            State::HalfOpen,
            "a lost connection confirms nothing"
        );
        connection.worked();
        assert_eq!(connection.state, State::Up);
    }

    #[test]
    fn a_store_that_breaks_every_connection_is_half_open() {
        let mut connection = up();
        connection.lost(Disconnect::MidCommand);
        connection.opened();
        connection.lost(Disconnect::MidCommand);
        connection.opened();
        assert_eq!(connection.state, State::Up, "once may be an accident");
        connection.lost(Disconnect::MidCommand);
        connection.opened();
        assert_eq!(
            connection.state,
            State::HalfOpen,
            "again and again without a command that worked"
        );
    }

    #[test]
    fn waits_grow_until_something_works() {
        let mut connection = up();
        let first = Duration::from_millis(50);
        for _ in 0..8 {
            connection.lost(Disconnect::Rejected);
            connection.wait();
            connection.opened();
        }
        connection.lost(Disconnect::Rejected);
        assert!(connection.wait() > first);
        connection.opened();
        connection.worked();
        connection.lost(Disconnect::Rejected);
        assert!(connection.wait() <= first);
    }

    #[test]
    fn after_a_time_out_the_next_try_is_now_and_the_one_after_is_not() {
        let mut connection = up();
        connection.lost(Disconnect::Timeout);
        assert_eq!(connection.wait(), Duration::ZERO);
        assert!(connection.wait() > Duration::ZERO);
    }

    #[test]
    fn grace_ends() {
        let mut connection = up();
        connection.lost(Disconnect::Idle);
        let now = Instant::now();
        assert!(!connection.tick(now));
        assert!(connection.tick(now + GRACE) && connection.state == State::Down);
        assert!(!connection.tick(now + GRACE));
    }

    #[test]
    fn a_suspect_takes_no_visits_until_it_was_probed() {
        let mut connection = up();
        connection.suspect();
        assert!(!connection.admits());
        connection.cleared();
        assert!(connection.admits());
        connection.suspect();
        connection.lost(Disconnect::Idle);
        assert_eq!(connection.state, State::Down);
    }
}

//! How a stage stands with its store: whether its connection has proven itself, and how long to wait for the next one.
//!
//! A store may take connections and still fail at its work: a full disk, a server that dies in every commit. Against
//! such a one a stage neither knocks without a pause nor logs an outage and a return for each visit.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// A connection that stood this long without being needed is as good as one that worked.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// So many connections in a row that broke before anything was done are no accident.
const FLAPPING_FROM: u32 = 2;

/// How a connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was found closed, with nothing under way.
    Found,
    /// While the store worked on it.
    Broke,
    /// The store did not answer in time.
    Silent,
    /// The store refused what it is for.
    Refused,
}

/// One stage's footing.
#[derive(Debug)]
pub(super) struct Footing {
    opened: Instant,
    /// Something was done on this connection.
    proven: bool,
    on_trial: bool,
    /// Connections lost in a row on which nothing was ever done.
    failures: u32,
    backoff: Backoff,
    /// The next wait is none.
    at_once: bool,
}

impl Footing {
    /// The footing of a stage that begins.
    pub(super) fn new() -> Self {
        Footing {
            opened: Instant::now(),
            proven: true,
            on_trial: false,
            failures: 0,
            backoff: Backoff::new(),
            at_once: false,
        }
    }

    /// Whether a connection that broke may be replaced without a pause.
    pub(super) fn is_firm(&self) -> bool {
        self.proven || self.opened.elapsed() >= SETTLED_AFTER
    }

    /// The connection was lost and could not be replaced at once, or was not to be.
    pub(super) fn lost(&mut self, how: Loss) {
        let firm = self.is_firm();
        if firm {
            self.backoff = Backoff::new();
        }
        // After silence the time for a pause is over already.
        self.at_once = firm && how == Loss::Silent;
        if how != Loss::Found && !firm {
            self.failures += 1;
        }
        self.on_trial |= how == Loss::Refused || self.failures >= FLAPPING_FROM;
    }

    /// The wait before the next try.
    pub(super) fn wait(&mut self) -> Duration {
        if std::mem::take(&mut self.at_once) { Duration::ZERO } else { self.backoff.wait() }
    }

    /// There is a new connection. Says whether the outage is over only once it has [`Footing::worked`].
    pub(super) fn opened(&mut self) -> bool {
        self.opened = Instant::now();
        self.proven = false;
        self.on_trial
    }

    /// Something was done on the connection. Says whether that ends a trial.
    pub(super) fn worked(&mut self) -> bool {
        self.proven = true;
        self.failures = 0;
        std::mem::take(&mut self.on_trial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_works_is_replaced_at_once_and_one_that_never_did_is_not() {
        let mut footing = Footing::new();
        assert!(footing.is_firm());
        assert!(!footing.opened(), "no trial without a failure");
        assert!(!footing.is_firm());
        footing.worked();
        assert!(footing.is_firm());
    }

    #[test]
    fn what_was_refused_is_on_trial_until_something_works() {
        let mut footing = Footing::new();
        footing.lost(Loss::Refused);
        assert!(footing.opened());
        footing.lost(Loss::Found);
        assert!(footing.opened(), "a lost connection does not end a trial");
        assert!(footing.worked());
        assert!(!footing.worked());
        footing.lost(Loss::Broke);
        assert!(!footing.opened(), "it had worked");
        footing.lost(Loss::Broke);
        assert!(!footing.opened(), "once may be an accident");
        footing.lost(Loss::Broke);
        assert!(footing.opened(), "again and again without anything done between");
    }

    #[test]
    fn waits_grow_until_something_works() {
        let mut footing = Footing::new();
        let first = Duration::from_millis(50);
        for _ in 0..8 {
            footing.lost(Loss::Refused);
            footing.wait();
            footing.opened();
        }
        footing.lost(Loss::Refused);
        assert!(footing.wait() > first);
        footing.opened();
        footing.worked();
        footing.lost(Loss::Refused);
        assert!(footing.wait() <= first);
    }

    #[test]
    fn after_silence_the_next_try_is_now_and_the_one_after_is_not() {
        let mut footing = Footing::new();
        footing.lost(Loss::Silent);
        assert_eq!(footing.wait(), Duration::ZERO);
        assert!(footing.wait() > Duration::ZERO);
    }
}

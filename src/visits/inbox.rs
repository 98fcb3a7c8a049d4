//! A lane's inbox: a bounded queue of tickets behind a gate that says whether more are taken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Refused;
use super::ticket::Ticket;

/// The most visits one commit takes. A batch of this size costs PostgreSQL about 2.5 ms, so that a visit that just
/// missed one waits that much longer at most, while the cost of the commit itself is already spread to nothing.
pub(super) const MAX_BATCH: usize = 1024;

/// Whether tickets are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Not yet: the stores were not reached.
    Starting,
    /// Yes.
    Open,
    /// No: another lane found the ledger away, and this lane has yet to check its own connection.
    Doubtful,
    /// No: the ledger is away.
    Away,
    /// Never again: the process is stopping.
    Closed,
}

/// What the ledger stage is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Commit what was taken.
    Batch,
    /// Check the connection: the gate is doubtful.
    Check,
    /// End: the gate is closed and nothing waits.
    End,
}

/// The queue of one lane.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    waiting: Vec<Ticket>,
    gate: Gate,
    /// The ledger stage sleeps and is to be woken.
    sleeping: bool,
}

impl Inbox {
    /// An inbox for at most `capacity` tickets.
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { waiting: Vec::new(), gate: Gate::Starting, sleeping: false };
        Inbox { state: Mutex::new(state), wake: Condvar::new(), capacity }
    }

    /// Puts a ticket into the queue, or gives it back with the reason.
    pub(super) fn put(&self, ticket: Ticket) -> Result<(), (Ticket, Refused)> {
        let mut state = self.lock();
        match state.gate {
            Gate::Open => {}
            Gate::Starting => return Err((ticket, Refused::Starting)),
            Gate::Doubtful | Gate::Away => return Err((ticket, Refused::LedgerAway)),
            Gate::Closed => return Err((ticket, Refused::Closing)),
        }
        if state.waiting.len() >= self.capacity {
            return Err((ticket, Refused::Overloaded));
        }
        state.waiting.push(ticket);
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to do; takes all that waits, up to [`MAX_BATCH`], into the empty `batch`.
    pub(super) fn take(&self, batch: &mut Vec<Ticket>) -> Next {
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() {
                break;
            }
            match state.gate {
                Gate::Closed => return Next::End,
                Gate::Doubtful => return Next::Check,
                _ => {}
            }
            state.sleeping = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeping = false;
        if state.waiting.len() <= MAX_BATCH {
            std::mem::swap(&mut state.waiting, batch);
        } else {
            batch.extend(state.waiting.drain(..MAX_BATCH));
        }
        Next::Batch
    }

    /// Puts tickets that were taken last back before the others, whatever the gate is.
    pub(super) fn put_back(&self, tickets: &[Ticket]) {
        self.lock().waiting.splice(0..0, tickets.iter().cloned());
    }

    /// Opens the gate, unless it is closed for good.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        if state.gate != Gate::Closed {
            state.gate = Gate::Open;
        }
    }

    /// Shuts the gate because the ledger is away, and gives back what waited.
    pub(super) fn shut(&self) -> Vec<Ticket> {
        let mut state = self.lock();
        if state.gate != Gate::Closed {
            state.gate = Gate::Away;
        }
        std::mem::take(&mut state.waiting)
    }

    /// Has the lane check its connection before it takes more.
    pub(super) fn doubt(&self) {
        let mut state = self.lock();
        if state.gate == Gate::Open {
            state.gate = Gate::Doubtful;
            self.wake.notify_one();
        }
    }

    /// Closes the gate for good; what waits is still served.
    pub(super) fn close(&self) {
        self.lock().gate = Gate::Closed;
        self.wake.notify_one();
    }

    /// Takes out the tickets whose deadline has passed. All tickets of a lane have the same time to wait, so those are
    /// the first ones.
    pub(super) fn late(&self, now: Instant) -> Vec<Ticket> {
        let mut state = self.lock();
        let late = state.waiting.iter().take_while(|ticket| ticket.deadline <= now).count();
        state.waiting.drain(..late).collect()
    }

    /// Waits that long, or until the gate is closed; says whether it is still not closed.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let closed = |state: &mut State| state.gate != Gate::Closed;
        let waited = self.wake.wait_timeout_while(self.lock(), time, closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.gate != Gate::Closed
    }

    /// How many tickets wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole at each of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

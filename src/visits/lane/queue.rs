//! A lane's queue: bounded, closed while the ledger is down, and the one place that answers whoever
//! waited too long.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::delivery::{Outcome, deliver};
use crate::visits::Refused;
use crate::visits::visit::{Ask, Batch, Ticket};

/// The most visits one commit takes. A batch of this size costs PostgreSQL about 2.5 ms, so that a
/// visit that just missed one waits that much longer at most, while the cost of the commit itself
/// is already spread to nothing.
pub(super) const MAX_BATCH: usize = 1024;

/// Whether tickets are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::visits) enum Admission {
    /// Yes.
    Open,
    /// Not now, and what is wrong.
    Refused(Refused),
    /// Not until the lane has probed its connection: another lane found the ledger down.
    Probing,
}

/// What the lane does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Commit what was taken: visits, and those who ask for numbers.
    Batch(Arc<Batch>),
    /// Read the history, for those who wait for it, if any.
    History(Arc<Batch>),
    /// Probe the connection.
    Probe,
    /// End: the queue is closed and nothing waits.
    End,
}

/// The queue of one lane.
#[derive(Debug)]
pub(in crate::visits) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    waiting: Vec<Ticket>,
    /// Those who wait for the history.
    readers: Vec<Ticket>,
    /// The history is to be read though nobody waits for it.
    refresh: bool,
    admission: Admission,
    closed: bool,
    /// The lane's thread sleeps.
    sleeping: bool,
    /// What was taken and not yet answered.
    in_flight: Vec<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    batch: Arc<Batch>,
    /// How many of its tickets, from the first, were answered because their deadline had passed.
    expired: usize,
}

impl Queue {
    /// A queue for at most `capacity` tickets.
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            waiting: Vec::new(),
            readers: Vec::new(),
            refresh: false,
            admission: Admission::Refused(Refused::Starting),
            closed: false,
            sleeping: false,
            in_flight: Vec::new(),
        };
        Queue {
            state: Mutex::new(state),
            wake: Condvar::new(),
            capacity,
        }
    }

    /// Puts a ticket into the queue, or gives it back with the reason.
    pub(in crate::visits) fn put(&self, ticket: Ticket) -> Result<(), (Ticket, Refused)> {
        let mut state = self.lock();
        match state.admission {
            _ if state.closed => return Err((ticket, Refused::Closing)),
            Admission::Open => {}
            Admission::Refused(reason) => return Err((ticket, reason)),
            Admission::Probing => return Err((ticket, Refused::LedgerDown)),
        }
        let queue = if ticket.ask == Ask::History {
            &mut state.readers
        } else {
            &mut state.waiting
        };
        if queue.len() >= self.capacity {
            return Err((ticket, Refused::Overloaded));
        }
        queue.push(ticket);
        self.wake(state);
        Ok(())
    }

    /// Has the history read soon. Says whether this lane can.
    pub(in crate::visits) fn refresh_history(&self) -> bool {
        let mut state = self.lock();
        let can = state.admission == Admission::Open && !state.closed;
        if can {
            state.refresh = true;
            self.wake(state);
        }
        can
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Waits until there is something to do. What is given is in flight until [`Queue::finish`] or
    /// [`Queue::put_back`]. After a batch the history has its turn, however many wait.
    pub(super) fn next(&self, after_batch: bool) -> Next {
        let mut state = self.lock();
        loop {
            let history = state.refresh || !state.readers.is_empty();
            if history && (after_batch || state.waiting.is_empty()) {
                state.refresh = false;
                let mut tickets = std::mem::take(&mut state.readers);
                tickets.sort_unstable_by_key(|ticket| ticket.deadline);
                return Next::History(state.begin(tickets));
            }
            if !state.waiting.is_empty() {
                let tickets = state.take_waiting();
                return Next::Batch(state.begin(tickets));
            }
            if state.closed {
                return Next::End;
            }
            if state.admission == Admission::Probing {
                return Next::Probe;
            }
            state.sleeping = true;
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.sleeping = false;
        }
    }

    /// Takes a batch out of flight and answers it.
    pub(super) fn finish(&self, batch: &Arc<Batch>, outcome: Outcome) {
        self.lock().land(batch);
        deliver(batch, outcome, 0..batch.tickets.len());
    }

    /// Takes a batch that was not sent out of flight, and puts it back before the others, whatever
    /// the admission is.
    pub(super) fn put_back(&self, batch: &Arc<Batch>) {
        let mut state = self.lock();
        state.land(batch);
        for ticket in batch.tickets.iter().rev() {
            let queue = if ticket.ask == Ask::History {
                &mut state.readers
            } else {
                &mut state.waiting
            };
            queue.insert(0, ticket.clone());
        }
    }

    /// Takes a batch that was not committed out of flight, and what of it can still be answered in
    /// time into it again. The others were answered at their deadline.
    pub(super) fn in_time(&self, batch: &Arc<Batch>) -> Option<Arc<Batch>> {
        let now = Instant::now();
        let late = batch
            .tickets
            .iter()
            .take_while(|ticket| ticket.deadline <= now)
            .count();
        if late == 0 {
            return Some(Arc::clone(batch));
        }
        let mut state = self.lock();
        state.land(batch);
        let rest = batch.tickets[late..].to_vec();
        let rest = (!rest.is_empty()).then(|| state.begin(rest));
        drop(state);
        deliver(batch, Outcome::Refused(Refused::Late), 0..late);
        rest
    }

    /// Sets the admission. What waits is refused where no more is taken; where the lane has to
    /// probe first, it is not.
    pub(in crate::visits) fn admit(&self, admission: Admission) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.admission, admission);
        let Admission::Refused(reason) = admission else {
            if before != admission {
                self.wake(state);
            }
            return;
        };
        let mut waiting = std::mem::take(&mut state.waiting);
        waiting.append(&mut state.readers);
        drop(state);
        refuse(waiting, reason);
    }

    /// Takes no more for good; what waits is still served.
    pub(in crate::visits) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Answers every ticket whose deadline has passed, wherever it is. All visits wait equally
    /// long, so those are the first ones; so are they in every batch.
    pub(in crate::visits) fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let State {
            waiting,
            readers,
            in_flight,
            ..
        } = &mut *state;
        let expired = waiting
            .iter()
            .take_while(|ticket| ticket.deadline <= now)
            .count();
        let mut late: Vec<Ticket> = waiting.drain(..expired).collect();
        late.extend(readers.extract_if(.., |ticket| ticket.deadline <= now));
        for InFlight { batch, expired } in in_flight {
            let upto = batch
                .tickets
                .iter()
                .take_while(|ticket| ticket.deadline <= now)
                .count();
            if upto > *expired {
                deliver(batch, Outcome::Refused(Refused::Late), *expired..upto);
                *expired = upto;
            }
        }
        drop(state);
        refuse(late, Refused::Late);
    }

    /// Waits that long, or until the queue is closed; says whether it is still not closed.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let waited = self
            .wake
            .wait_timeout_while(self.lock(), time, |state| !state.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// How many tickets wait.
    pub(in crate::visits) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole at each of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_waiting(&mut self) -> Vec<Ticket> {
        if self.waiting.len() <= MAX_BATCH {
            std::mem::take(&mut self.waiting)
        } else {
            self.waiting.drain(..MAX_BATCH).collect()
        }
    }

    fn begin(&mut self, tickets: Vec<Ticket>) -> Arc<Batch> {
        let batch = Arc::new(Batch { tickets });
        self.in_flight.push(InFlight {
            batch: Arc::clone(&batch),
            expired: 0,
        });
        batch
    }

    fn land(&mut self, batch: &Arc<Batch>) {
        self.in_flight
            .retain(|entry| !Arc::ptr_eq(&entry.batch, batch));
    }
}

/// Answers all these tickets with a refusal.
fn refuse(tickets: Vec<Ticket>, reason: Refused) {
    let all = 0..tickets.len();
    if !tickets.is_empty() {
        deliver(&Arc::new(Batch { tickets }), Outcome::Refused(reason), all);
    }
}

//! A lane's queue: bounded, closed while the ledger is down, and the only place that answers a
//! ticket at its deadline.
//!
//! Who may answer a ticket, and when:
//!
//! ```text
//!            put                 next                       finish
//!   visitor ─────▶ waiting ─────────────▶ in flight ─────────────────▶ answered by the lane
//!      │ refused      │ ▲                    │ │
//!      ▼              │ └──── put_back ──────┘ │ expire, in_time: deadline passed
//!   answered          │                        ▼
//!   at once           └── expire, admit ──▶ answered by the clock's thread, or by the lane
//! ```
//!
//! Both may answer a batch in flight. The waiter takes the first answer of its generation.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::batch::{Batch, Ticket};
use super::delivery::{Outcome, deliver};
use crate::visits::Refused;

/// Visits in one commit. Such a batch costs PostgreSQL about 2.5 ms: a visit that just missed one
/// waits that much longer, and the cost of the commit itself is spread to nothing.
pub(super) const MAX_BATCH: usize = 1024;
/// Questions that are answered between two batches: visits wait for them.
const MAX_QUESTIONS: usize = 64;

/// Whether tickets are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::visits) enum Admission {
    Open,
    Refused(Refused),
    /// Not before the lane has probed its connection: another lane found the ledger down.
    Probing,
}

/// What the lane does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Commit the visits, and read the numbers for those who only ask for them.
    Batch(Arc<Batch>),
    /// Read the history for those who wait for it, perhaps nobody; answer other questions.
    Questions(Arc<Batch>),
    Probe,
    /// Nothing waits.
    Nothing,
    /// The queue is closed and nothing waits.
    End,
}

#[derive(Debug)]
pub(in crate::visits) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    waiting: Vec<Ticket>,
    /// Tickets that wait for the history, or ask about names.
    questions: Vec<Ticket>,
    /// Read the history even if nobody waits for it.
    refresh: bool,
    admission: Admission,
    closed: bool,
    /// The lane's thread sleeps.
    sleeping: bool,
    /// Taken and not yet answered.
    in_flight: Vec<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    batch: Arc<Batch>,
    /// Tickets, from the first on, that were answered at their deadline.
    expired: usize,
}

impl Queue {
    /// A queue for `capacity` tickets.
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            waiting: Vec::new(),
            questions: Vec::new(),
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

    /// Queues a ticket, or returns it with the reason.
    pub(in crate::visits) fn put(&self, ticket: Ticket) -> Result<(), (Ticket, Refused)> {
        let mut state = self.lock();
        match state.admission {
            _ if state.closed => return Err((ticket, Refused::Closing)),
            Admission::Open => {}
            Admission::Refused(reason) => return Err((ticket, reason)),
            Admission::Probing => return Err((ticket, Refused::LedgerDown)),
        }
        let queue = if ticket.ask.is_question() {
            &mut state.questions
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

    /// Has the history read soon; says whether this lane can.
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

    /// What to do next; with `wait` not before there is something. A returned batch is in flight
    /// until [`Queue::finish`] or [`Queue::put_back`]. After a batch questions come next, however
    /// many visits wait.
    pub(super) fn next(&self, after_batch: bool, wait: bool) -> Next {
        let mut state = self.lock();
        loop {
            let questions = state.refresh || !state.questions.is_empty();
            if questions && (after_batch || state.waiting.is_empty()) {
                let refresh = std::mem::take(&mut state.refresh);
                let upto = state.questions.len().min(MAX_QUESTIONS);
                let mut tickets: Vec<Ticket> = state.questions.drain(..upto).collect();
                tickets.sort_unstable_by_key(|ticket| ticket.deadline);
                return Next::Questions(state.begin(tickets, refresh));
            }
            if !state.waiting.is_empty() {
                let tickets = state.take_waiting();
                return Next::Batch(state.begin(tickets, false));
            }
            if !wait {
                return Next::Nothing;
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

    /// Answers a batch, which is no longer in flight.
    pub(super) fn finish(&self, batch: &Arc<Batch>, outcome: Outcome) {
        self.lock().land(batch);
        deliver(batch, outcome, 0..batch.tickets.len());
    }

    /// Returns an unsent batch to the front of the queue, whatever the admission is.
    pub(super) fn put_back(&self, batch: &Arc<Batch>) {
        let mut state = self.lock();
        state.land(batch);
        for ticket in batch.tickets.iter().rev() {
            let queue = if ticket.ask.is_question() {
                &mut state.questions
            } else {
                &mut state.waiting
            };
            queue.insert(0, ticket.clone());
        }
    }

    /// The part of an uncommitted batch that can still be answered in time, in flight instead of
    /// it; the late tickets are answered.
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
        let rest = (!rest.is_empty()).then(|| state.begin(rest, batch.refresh));
        drop(state);
        deliver(batch, Outcome::Refused(Refused::Late), 0..late);
        rest
    }

    /// Sets the admission. [`Admission::Refused`] also refuses what waits.
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
        waiting.append(&mut state.questions);
        drop(state);
        refuse(waiting, reason);
    }

    /// Takes no more tickets; what waits is still served.
    pub(in crate::visits) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Answers every ticket whose deadline has passed. All visits may wait equally long, so those
    /// are the first ones in the queue and in every batch.
    pub(in crate::visits) fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let State {
            waiting,
            questions,
            in_flight,
            ..
        } = &mut *state;
        let expired = waiting
            .iter()
            .take_while(|ticket| ticket.deadline <= now)
            .count();
        let mut late: Vec<Ticket> = waiting.drain(..expired).collect();
        late.extend(questions.extract_if(.., |ticket| ticket.deadline <= now));
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

    /// Waits that long, or until the queue closes; says whether it is still open.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let waited = self
            .wake
            .wait_timeout_while(self.lock(), time, |state| !state.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    pub(in crate::visits) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every statement leaves the state whole.
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

    fn begin(&mut self, tickets: Vec<Ticket>, refresh: bool) -> Arc<Batch> {
        let batch = Arc::new(Batch { tickets, refresh });
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

fn refuse(tickets: Vec<Ticket>, reason: Refused) {
    let all = 0..tickets.len();
    if !tickets.is_empty() {
        let batch = Batch {
            tickets,
            refresh: false,
        };
        deliver(&Arc::new(batch), Outcome::Refused(reason), all);
    }
}

//! A seat: where one connection waits for its visit's numbers. Made once a connection, used for all its visits.

use std::sync::{Mutex, PoisonError};

use may::coroutine::{self, Coroutine};

use super::{Count, Refused};

/// One connection's waiting place. It belongs to the coroutine that made it, and that coroutine to one worker.
#[derive(Debug)]
pub struct Seat {
    worker: usize,
    coroutine: Coroutine,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Counts the visits begun, so that an answer that comes too late for one is not taken for the next.
    turn: u64,
    answer: Option<Result<Count, Refused>>,
}

impl Seat {
    /// A seat for the calling coroutine, which only ever runs on worker `worker`.
    ///
    /// # Panics
    /// When it is not called from a coroutine.
    pub fn new(worker: usize) -> Seat {
        Seat { worker, coroutine: coroutine::current(), state: Mutex::new(State { turn: 0, answer: None }) }
    }

    /// The worker its coroutine runs on.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// Begins a visit; gives its turn.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.turn += 1;
        state.answer = None;
        state.turn
    }

    /// Waits for the answer to the visit begun last. Whoever holds its ticket answers before its deadline, so this wait
    /// is bounded by [`super::Visits::tick`].
    pub(super) fn wait(&self) -> Result<Count, Refused> {
        loop {
            if let Some(answer) = self.lock().answer.take() {
                return answer;
            }
            coroutine::park();
        }
    }

    /// Answers the visit of that turn and wakes its coroutine; the first answer counts, later ones are dropped.
    /// To be called on the seat's own worker: a coroutine woken by another thread would run there.
    pub(super) fn answer(&self, turn: u64, answer: Result<Count, Refused>) {
        let mut state = self.lock();
        if state.turn != turn || state.answer.is_some() {
            return;
        }
        state.answer = Some(answer);
        drop(state);
        self.coroutine.unpark();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is whole between any two statements above, so a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

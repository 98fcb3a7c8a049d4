//! A waiter: where one connection waits for its visit's numbers. Each connection has one for all
//! its visits.

use std::sync::{Mutex, PoisonError};

use may::coroutine::{self, Coroutine};

use crate::visits::{Count, Refused};

/// Belongs to the coroutine that made it, which runs on one worker only.
#[derive(Debug)]
pub struct Waiter {
    worker: usize,
    coroutine: Coroutine,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Counts the visits begun: a late answer to one must not be taken for the next.
    generation: u64,
    answer: Option<Result<Count, Refused>>,
}

impl Waiter {
    /// A waiter for the calling coroutine, on that worker.
    ///
    /// # Panics
    /// When no coroutine calls it.
    pub fn new(worker: usize) -> Waiter {
        Waiter {
            worker,
            coroutine: coroutine::current(),
            state: Mutex::new(State {
                generation: 0,
                answer: None,
            }),
        }
    }

    pub(in crate::visits) fn worker(&self) -> usize {
        self.worker
    }

    /// Begins a visit and returns its generation.
    pub(in crate::visits) fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.generation += 1;
        state.answer = None;
        state.generation
    }

    /// Waits for the answer to the visit begun last. [`crate::visits::Visits::tick`] bounds the
    /// wait: it answers at the ticket's deadline.
    pub(in crate::visits) fn wait(&self) -> Result<Count, Refused> {
        loop {
            if let Some(answer) = self.lock().answer.take() {
                return answer;
            }
            coroutine::park();
        }
    }

    /// Answers the visit of that generation and wakes its coroutine. Only the first answer counts.
    /// Called on the waiter's own worker (see [`crate::workers`]).
    pub(super) fn answer(&self, generation: u64, answer: Result<Count, Refused>) {
        let mut state = self.lock();
        if state.generation != generation || state.answer.is_some() {
            return;
        }
        state.answer = Some(answer);
        drop(state);
        self.coroutine.unpark();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every statement leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

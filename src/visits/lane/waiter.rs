//! A waiter: where one connection waits for its visit's numbers. Made once a connection, used for
//! all its visits.

use std::sync::{Mutex, PoisonError};

use may::coroutine::{self, Coroutine};

use crate::visits::{Count, Refused};

/// One connection's waiter. It belongs to the coroutine that made it, and that coroutine to one
/// worker.
#[derive(Debug)]
pub struct Waiter {
    worker: usize,
    coroutine: Coroutine,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Counts the visits begun, so that an answer that comes too late for one is not taken for the
    /// next.
    generation: u64,
    answer: Option<Result<Count, Refused>>,
}

impl Waiter {
    /// A waiter for the calling coroutine, which only ever runs on worker `worker`.
    ///
    /// # Panics
    /// When it is not called from a coroutine.
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

    /// The worker its coroutine runs on.
    pub(in crate::visits) fn worker(&self) -> usize {
        self.worker
    }

    /// Begins a visit; gives its generation.
    pub(in crate::visits) fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.generation += 1;
        state.answer = None;
        state.generation
    }

    /// Waits for the answer to the visit begun last. The queue that holds its ticket answers by its
    /// deadline, so this wait is bounded by [`crate::visits::Visits::tick`].
    pub(in crate::visits) fn wait(&self) -> Result<Count, Refused> {
        loop {
            if let Some(answer) = self.lock().answer.take() {
                return answer;
            }
            coroutine::park();
        }
    }

    /// Answers the visit of that generation and wakes its coroutine; the first answer counts, later
    /// ones are dropped. Called on the waiter's own worker: a coroutine woken by another thread
    /// would run there.
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
        // The state is whole between any two statements above, so a panic elsewhere leaves nothing
        // half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A feed: one message at a time for everybody who follows it, each on a connection that stays open.
//!
//! A message is kept once, whatever the number of followers. Each writes the newest one when its socket has room, so one
//! that is slow misses messages and holds nothing back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use may::coroutine;
use may::io::WaitIoWaker;

/// The newest message, and who is to be woken for the next one.
#[derive(Debug)]
pub struct Feed {
    latest: Mutex<Message>,
    workers: Box<[Mutex<Vec<Follower>>]>,
    followers: AtomicUsize,
}

/// A message and its number, from 1.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) bytes: Arc<[u8]>,
}

struct Follower {
    id: usize,
    waker: WaitIoWaker,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Feed {
    /// A feed that nobody follows yet, for so many workers.
    pub fn new(workers: usize) -> Feed {
        let latest = Mutex::new(Message { number: 0, bytes: Arc::new([]) });
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Feed { latest, workers, followers: AtomicUsize::new(0) }
    }

    /// How many follow it.
    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// Sends a message to all of them: wakes each worker once, which then wakes its own connections.
    pub fn publish(self: &Arc<Self>, message: &[u8]) {
        {
            let mut latest = lock(&self.latest);
            *latest = Message { number: latest.number + 1, bytes: message.into() };
        }
        for worker in 0..self.workers.len() {
            if lock(&self.workers[worker]).is_empty() {
                continue;
            }
            let feed = Arc::clone(self);
            let wake = move || lock(&feed.workers[worker]).iter().for_each(|follower| follower.waker.wakeup());
            // SAFETY: the coroutine never yields, so it holds no thread-local value over a wait, and needs little stack.
            if let Err(error) = unsafe { coroutine::Builder::new().id(worker).spawn(wake) } {
                log::error!("worker {worker} could not be told of a message: {error}");
            }
        }
    }

    pub(super) fn latest(&self) -> Message {
        lock(&self.latest).clone()
    }

    /// A connection on that worker follows from now on, woken by `waker`.
    pub(super) fn join(&self, worker: usize, id: usize, waker: WaitIoWaker) {
        self.followers.fetch_add(1, Ordering::Relaxed);
        lock(&self.workers[worker]).push(Follower { id, waker });
    }

    /// It does not any more.
    pub(super) fn leave(&self, worker: usize, id: usize) {
        let mut followers = lock(&self.workers[worker]);
        if let Some(index) = followers.iter().position(|follower| follower.id == id) {
            followers.swap_remove(index);
            self.followers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guards a value that is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

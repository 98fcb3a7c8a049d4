//! A feed: one message at a time for everybody who follows it, each on a connection that stays
//! open.
//!
//! A message is kept once, whatever the number of followers. Each writes the newest one when its
//! socket has room, so one that is slow misses messages and holds nothing back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use may::coroutine;

use super::registry::Entry;

/// The newest message, and who is to be woken for the next one.
#[derive(Debug)]
pub struct Feed {
    latest: Mutex<Message>,
    /// Of each worker, the oldest first.
    workers: Box<[Mutex<VecDeque<Arc<Entry>>>]>,
    followers: AtomicUsize,
}

/// A message and its number, from 1.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) bytes: Arc<[u8]>,
}

impl Feed {
    /// A feed that nobody follows yet, for so many workers.
    pub fn new(workers: usize) -> Feed {
        let latest = Mutex::new(Message {
            number: 0,
            bytes: Arc::new([]),
        });
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Feed {
            latest,
            workers,
            followers: AtomicUsize::new(0),
        }
    }

    /// How many follow it.
    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// Sends a message to all of them: wakes each worker once, which then wakes its own
    /// connections.
    pub fn publish(self: &Arc<Self>, message: &[u8]) {
        {
            let mut latest = lock(&self.latest);
            *latest = Message {
                number: latest.number + 1,
                bytes: message.into(),
            };
        }
        for worker in 0..self.workers.len() {
            if lock(&self.workers[worker]).is_empty() {
                continue;
            }
            let feed = Arc::clone(self);
            let wake = move || {
                lock(&feed.workers[worker])
                    .iter()
                    .for_each(|follower| follower.wake_up())
            };
            // SAFETY: the coroutine never yields, so it holds no thread-local value over a wait,
            // and needs little stack.
            if let Err(error) = unsafe { coroutine::Builder::new().id(worker).spawn(wake) } {
                log::error!("worker {worker} could not be told of a message: {error}");
            }
        }
    }

    pub(super) fn latest(&self) -> Message {
        lock(&self.latest).clone()
    }

    /// A connection on that worker follows from now on. If there are more than `most` of that
    /// worker's now, the oldest ends; says whether one did. To be called on that worker.
    pub(super) fn join(&self, worker: usize, entry: &Arc<Entry>, most: usize) -> bool {
        let oldest = {
            let mut followers = lock(&self.workers[worker]);
            followers.push_back(Arc::clone(entry));
            if followers.len() > most {
                followers.pop_front()
            } else {
                None
            }
        };
        match &oldest {
            Some(oldest) => oldest.end_following(),
            None => _ = self.followers.fetch_add(1, Ordering::Relaxed),
        }
        oldest.is_some()
    }

    /// It does not any more, if it still did.
    pub(super) fn leave(&self, worker: usize, entry: &Arc<Entry>) {
        let mut followers = lock(&self.workers[worker]);
        if let Some(index) = followers
            .iter()
            .position(|follower| Arc::ptr_eq(follower, entry))
        {
            followers.remove(index);
            self.followers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guards a value that is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

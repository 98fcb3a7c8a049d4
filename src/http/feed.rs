//! A feed: one message at a time for every connection that follows it.
//!
//! A message is stored once, whatever the number of followers. Each follower writes the newest
//! message when its socket has room, so a slow one misses messages and delays nobody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::{CloseRequest, Entry};
use crate::workers;

/// The newest message, and the connections to wake for the next one.
#[derive(Debug)]
pub struct Feed {
    latest: Mutex<Message>,
    /// The followers on each worker, the oldest first.
    workers: Box<[Mutex<VecDeque<Arc<Entry>>>]>,
    followers: AtomicUsize,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    /// From 1.
    pub(super) number: u64,
    pub(super) bytes: Arc<[u8]>,
}

impl Feed {
    pub fn new(workers: usize) -> Feed {
        let nothing = Message {
            number: 0,
            bytes: Arc::new([]),
        };
        Feed {
            latest: Mutex::new(nothing),
            workers: (0..workers).map(|_| Mutex::default()).collect(),
            followers: AtomicUsize::new(0),
        }
    }

    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// Sends a message to all followers: one wake-up per worker, which wakes its own connections.
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
            if let Err(error) = workers::spawn(worker, wake) {
                log::error!("cannot wake the followers on worker {worker}: {error}");
            }
        }
    }

    /// The number of the newest message; 0 before the first.
    pub fn newest(&self) -> u64 {
        lock(&self.latest).number
    }

    pub(super) fn latest(&self) -> Message {
        lock(&self.latest).clone()
    }

    /// Adds a follower on that worker, on which this is called. With more than `most` there, the
    /// oldest ends; says whether one did.
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
            Some(oldest) => {
                oldest.request_close(CloseRequest::Evict);
                oldest.wake_up();
            }
            None => _ = self.followers.fetch_add(1, Ordering::Relaxed),
        }
        oldest.is_some()
    }

    /// Removes a follower, if it still is one.
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

//! The open connections and their deadlines. A sweep at each tick ends those that are overdue, so that no connection
//! needs a timer.
//!
//! A connection is ended by shutting its socket down: its coroutine, which waits for the socket, then finds the end of
//! the stream, on its own worker, and does the rest. The registry never closes a descriptor.

use std::mem::ManuallyDrop;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::stats::Stats;
use crate::clock;

/// What a connection is doing, and so what its deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a request to begin.
    Idle = 0,
    /// Waits for the rest of a request.
    Reading = 1,
    /// Is being served: the service bounds that wait.
    Serving = 2,
    /// Waits for the client to take an answer, or to close.
    Writing = 3,
}

/// One connection, as the sweep sees it.
#[derive(Debug)]
pub(super) struct Entry {
    descriptor: RawFd,
    phase: AtomicU8,
    /// On the coarse clock, in milliseconds; 0: none.
    deadline_ms: AtomicU64,
}

impl Entry {
    /// The connection does something else from now on, for at most `time` (none: as long as it takes).
    pub(super) fn enter(&self, phase: Phase, time: Option<Duration>) {
        let deadline =
            time.map_or(0, |time| clock::monotonic_ms() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2));
        self.deadline_ms.store(deadline, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// What it is doing.
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Idle,
            1 => Phase::Reading,
            2 => Phase::Serving,
            _ => Phase::Writing,
        }
    }

    /// Whether its time is up.
    pub(super) fn is_overdue(&self) -> bool {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        deadline != 0 && clock::monotonic_ms() >= deadline
    }

    /// Makes the connection's coroutine find the end of the stream, or an error.
    fn end(&self, how: Shutdown) {
        // SAFETY: the descriptor is open: a connection leaves the registry, under the lock that the caller holds,
        // before its socket is closed. ManuallyDrop keeps it open here.
        let socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(self.descriptor) });
        // An error means that the other side was faster.
        let _ = socket.shutdown(how);
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    entries: Mutex<Entries>,
    stats: Arc<Stats>,
    draining: AtomicBool,
    listening: AtomicBool,
}

#[derive(Debug, Default)]
struct Entries {
    places: Vec<Option<Arc<Entry>>>,
    free: Vec<usize>,
}

/// A connection's place in the registry; it leaves it when this is dropped, which must be before its socket is closed.
#[derive(Debug)]
pub(super) struct Place {
    index: usize,
    /// The client's address.
    pub(super) peer: IpAddr,
    pub(super) entry: Arc<Entry>,
}

impl Place {
    /// Its number among the open connections.
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

impl Registry {
    pub(super) fn new(stats: Arc<Stats>) -> Self {
        Registry {
            entries: Mutex::default(),
            stats,
            draining: AtomicBool::new(false),
            listening: AtomicBool::new(true),
        }
    }

    /// Enters a connection.
    pub(super) fn enter(&self, socket: &TcpStream, peer: IpAddr) -> Place {
        let entry = Arc::new(Entry {
            descriptor: socket.as_raw_fd(),
            phase: AtomicU8::new(Phase::Idle as u8),
            deadline_ms: AtomicU64::new(0),
        });
        self.stats.open.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.lock();
        let index = entries.free.pop().unwrap_or(entries.places.len());
        if index == entries.places.len() {
            entries.places.push(None);
        }
        entries.places[index] = Some(Arc::clone(&entry));
        Place { index, peer, entry }
    }

    /// Takes a connection out. Its socket may be closed from then on.
    pub(super) fn leave(&self, place: &Place) {
        let mut entries = self.lock();
        entries.places[place.index] = None;
        entries.free.push(place.index);
        drop(entries);
        self.stats.open.fetch_sub(1, Ordering::Release);
    }

    /// Ends what is overdue and, while draining, what is idle.
    pub(super) fn sweep(&self) {
        let draining = self.is_draining();
        for entry in self.lock().places.iter().flatten() {
            let phase = entry.phase();
            if entry.is_overdue() {
                entry.end(if phase == Phase::Writing { Shutdown::Both } else { Shutdown::Read });
            } else if draining && phase == Phase::Idle {
                entry.end(Shutdown::Read);
            }
        }
    }

    /// Ends up to `most` idle connections, to make room for others; gives how many.
    pub(super) fn end_idle(&self, most: usize) -> usize {
        let entries = self.lock();
        let idle = entries.places.iter().flatten().filter(|entry| entry.phase() == Phase::Idle).take(most);
        idle.map(|entry| entry.end(Shutdown::Read)).count()
    }

    /// Ends every connection that is not being served.
    pub(super) fn end_all_but_served(&self) {
        for entry in self.lock().places.iter().flatten().filter(|entry| entry.phase() != Phase::Serving) {
            entry.end(Shutdown::Both);
        }
    }

    /// Lets no connection stay.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.sweep();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Set once no connection is to stay.
    pub(super) fn draining(&self) -> &AtomicBool {
        &self.draining
    }

    /// The listener accepts no more.
    pub(super) fn stopped_listening(&self) {
        self.listening.store(false, Ordering::Release);
    }

    /// Whether nobody can come any more and nobody is there.
    pub(super) fn is_done(&self) -> bool {
        !self.listening.load(Ordering::Acquire) && self.open() == 0
    }

    pub(super) fn open(&self) -> usize {
        self.stats.open.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

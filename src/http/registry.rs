//! The open connections and their deadlines. A sweep at each tick wakes those that are overdue, so
//! that no connection needs a timer.
//!
//! Nobody but a connection's own coroutine touches its socket: the sweep has the connection's
//! worker wake it, and it finds out for itself that its time is up.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use may::coroutine;
use may::io::WaitIoWaker;

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
    /// Follows a feed.
    Following = 4,
}

impl Phase {
    /// All of them, each at its own number.
    pub(super) const ALL: [Phase; 5] = [
        Phase::Idle,
        Phase::Reading,
        Phase::Serving,
        Phase::Writing,
        Phase::Following,
    ];
}

/// Why connections are evicted, and so which of them go first. Among those of one phase the oldest
/// goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// Of places, descriptors or mappings: who does nothing makes room.
    Places,
    /// Of memory: who holds some for a request that does not come makes room.
    Memory,
}

impl Shortage {
    /// The rank at which a connection in that phase goes, the lowest first; `None`: never.
    fn rank(self, phase: Phase) -> Option<u8> {
        let order = match self {
            Shortage::Places => [
                Phase::Idle,
                Phase::Following,
                Phase::Reading,
                Phase::Writing,
            ],
            Shortage::Memory => [
                Phase::Reading,
                Phase::Idle,
                Phase::Following,
                Phase::Writing,
            ],
        };
        order
            .iter()
            .position(|one| *one == phase)
            .map(|rank| rank as u8)
    }
}

/// A client gets this long to take an answer before its connection is evicted, in milliseconds.
const WRITING_MS: u64 = 1000;
/// Entries that are looked at under one lock, so that a worker that closes a connection never waits
/// for all of them.
const CHUNK: usize = 256;

/// What a connection was asked to do, whatever its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Asked {
    Nothing = 0,
    /// To end when it next waits for a request to begin, or for a message.
    EndWhenIdle = 1,
    /// To end unless a whole request is there, since others need the room.
    Evict = 2,
    /// To end now.
    End = 3,
}

/// One connection, as the sweep sees it.
pub(super) struct Entry {
    worker: usize,
    phase: AtomicU8,
    asked: AtomicU8,
    /// On the coarse clock, in milliseconds; 0: none.
    deadline_ms: AtomicU64,
    waker: OnceLock<WaitIoWaker>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("worker", &self.worker)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// What wakes the connection's coroutine while it waits for its socket.
    pub(super) fn wake_by(&self, waker: WaitIoWaker) {
        // There is one socket for each entry, so this is the first.
        let _ = self.waker.set(waker);
    }

    /// The connection does something else from now on, for at most `time` (none: as long as it
    /// takes).
    pub(super) fn enter(&self, phase: Phase, time: Option<Duration>) {
        self.enter_until(
            phase,
            time.map_or(0, |time| clock::monotonic_ms() + milliseconds(time)),
        );
    }

    /// The same, until a time on the coarse clock in milliseconds (0: as long as it takes).
    pub(super) fn enter_until(&self, phase: Phase, deadline_ms: u64) {
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// What it is doing.
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Idle,
            1 => Phase::Reading,
            2 => Phase::Serving,
            4 => Phase::Following,
            _ => Phase::Writing,
        }
    }

    /// Whether its time is up.
    pub(super) fn is_overdue(&self) -> bool {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        deadline != 0 && clock::monotonic_ms() >= deadline
    }

    /// Whether it is to wait no longer: its time is up, or it was asked to end.
    pub(super) fn is_over(&self) -> bool {
        match self.asked.load(Ordering::Relaxed) {
            0 => self.is_overdue(),
            1 => self.is_overdue() || matches!(self.phase(), Phase::Idle | Phase::Following),
            2 => {
                self.is_overdue()
                    || matches!(
                        self.phase(),
                        Phase::Idle | Phase::Following | Phase::Reading
                    )
            }
            _ => true,
        }
    }

    /// Whether it is to make room for others.
    pub(super) fn is_evicted(&self) -> bool {
        self.asked.load(Ordering::Relaxed) == Asked::Evict as u8
    }

    /// Whether it was asked to end, now or soon: the next answer may say so.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) != 0
    }

    fn ask(&self, asked: Asked) {
        self.asked.fetch_max(asked as u8, Ordering::Relaxed);
    }

    /// Ends a connection that follows a feed. To be called on its own worker.
    pub(super) fn end_following(&self) {
        self.ask(Asked::Evict);
        self.wake_up();
    }

    /// Wakes its coroutine. To be called on its own worker.
    pub(super) fn wake_up(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wakeup();
        }
    }
}

/// Small enough that a sum of two fits.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    entries: Mutex<Entries>,
    /// For each worker, whether it was told to wake some of its connections and has not done so
    /// yet.
    waking: Arc<[AtomicBool]>,
    stats: Arc<Stats>,
    /// Connections beyond the limit, being told so.
    refusing: AtomicUsize,
    draining: AtomicBool,
    listening: AtomicBool,
    /// The time that an answer may take to be taken.
    writing_time_ms: u64,
}

#[derive(Debug, Default)]
struct Entries {
    places: Vec<Option<Arc<Entry>>>,
    free: Vec<usize>,
}

/// A connection's place in the registry, to be left when its socket is closed.
#[derive(Debug)]
pub(super) struct Place {
    index: usize,
    /// The peer's address.
    pub(super) peer: IpAddr,
    /// It is one too many, and only told so.
    pub(super) refused: bool,
    pub(super) entry: Arc<Entry>,
}

impl Registry {
    pub(super) fn new(workers: usize, stats: Arc<Stats>, writing_time: Duration) -> Self {
        Registry {
            writing_time_ms: milliseconds(writing_time),
            entries: Mutex::default(),
            waking: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            stats,
            refusing: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            listening: AtomicBool::new(true),
        }
    }

    /// Enters a connection that runs on `worker`.
    pub(super) fn enter(&self, worker: usize, peer: IpAddr, refused: bool) -> Place {
        let entry = Arc::new(Entry {
            worker,
            phase: AtomicU8::new(Phase::Idle as u8),
            asked: AtomicU8::new(Asked::Nothing as u8),
            deadline_ms: AtomicU64::new(0),
            waker: OnceLock::new(),
        });
        self.counter(refused).fetch_add(1, Ordering::Relaxed);
        let mut entries = self.lock();
        let index = entries.free.pop().unwrap_or(entries.places.len());
        if index == entries.places.len() {
            entries.places.push(None);
        }
        entries.places[index] = Some(Arc::clone(&entry));
        Place {
            index,
            peer,
            refused,
            entry,
        }
    }

    /// Takes a connection out, whose socket is closed.
    pub(super) fn leave(&self, place: &Place) {
        let mut entries = self.lock();
        entries.places[place.index] = None;
        entries.free.push(place.index);
        drop(entries);
        self.counter(place.refused).fetch_sub(1, Ordering::Release);
    }

    /// Wakes whatever is over: overdue, or asked to end.
    pub(super) fn sweep(&self) {
        let draining = self.is_draining();
        let mut over: Vec<Vec<Arc<Entry>>> = vec![Vec::new(); self.waking.len()];
        self.each(|_, entry| {
            if draining {
                entry.ask(Asked::EndWhenIdle);
            }
            if entry.is_over() {
                over[entry.worker].push(Arc::clone(entry));
            }
        });
        for (worker, entries) in over.into_iter().enumerate() {
            self.wake(worker, entries);
        }
    }

    /// Lends every entry, with its index. The lock is given up now and then: one that comes
    /// meanwhile may be missed.
    fn each(&self, mut lend: impl FnMut(usize, &Arc<Entry>)) {
        let mut from = 0;
        loop {
            let entries = self.lock();
            let Some(chunk) = entries.places.get(from..) else {
                return;
            };
            if chunk.is_empty() {
                return;
            }
            for (offset, entry) in chunk.iter().take(CHUNK).enumerate() {
                if let Some(entry) = entry {
                    lend(from + offset, entry);
                }
            }
            from += CHUNK;
        }
    }

    /// Has the worker wake these connections of its own: a coroutine that another thread woke would
    /// run there.
    fn wake(&self, worker: usize, entries: Vec<Arc<Entry>>) {
        // What is skipped because the worker is still at the last ones is found again by the next
        // sweep.
        if entries.is_empty() || self.waking[worker].swap(true, Ordering::AcqRel) {
            return;
        }
        let waking = Arc::clone(&self.waking);
        let wake_all = move || {
            waking[worker].store(false, Ordering::Release);
            entries.iter().for_each(|entry| entry.wake_up());
        };
        // SAFETY: `wake_all` never waits, keeps no thread-local value and needs little stack.
        if let Err(error) = unsafe { coroutine::Builder::new().id(worker).spawn(wake_all) } {
            self.waking[worker].store(false, Ordering::Release);
            log::error!("connections of worker {worker} could not be woken: {error}");
        }
    }

    /// Evicts up to `most` connections, so that others have room; gives how many there were.
    pub(super) fn evict(&self, most: usize, shortage: Shortage) -> usize {
        let mut candidates: Vec<(u8, u64, usize)> = Vec::new();
        let now = clock::monotonic_ms();
        self.each(|index, entry| {
            let (phase, deadline) = (entry.phase(), entry.deadline_ms.load(Ordering::Relaxed));
            // All of one phase have the same time, so the one whose time is up first is there for
            // the longest. One without a deadline was only just accepted.
            let is_due = !entry.is_asked() && deadline != 0;
            let is_due =
                is_due && (phase != Phase::Writing || now >= self.began_ms(deadline) + WRITING_MS);
            if let (true, Some(rank)) = (is_due, shortage.rank(phase)) {
                candidates.push((rank, deadline, index));
            }
        });
        if candidates.len() > most {
            candidates.select_nth_unstable(most);
            candidates.truncate(most);
        }
        let mut evicted = 0;
        for (rank, _, index) in candidates {
            let entry = self.lock().places.get(index).cloned().flatten();
            // Another one may be there by now, or it may be served.
            let Some(entry) = entry.filter(|entry| shortage.rank(entry.phase()) == Some(rank))
            else {
                continue;
            };
            let phase = entry.phase();
            entry.ask(match phase {
                Phase::Idle | Phase::Following | Phase::Reading => Asked::Evict,
                Phase::Serving | Phase::Writing => Asked::End,
            });
            self.stats.evicted(phase);
            evicted += 1;
        }
        self.sweep();
        evicted
    }

    fn began_ms(&self, writing_deadline_ms: u64) -> u64 {
        writing_deadline_ms.saturating_sub(self.writing_time_ms)
    }

    /// Ends every connection that is not being served.
    pub(super) fn end_all_but_served(&self) {
        self.each(|_, entry| {
            if entry.phase() != Phase::Serving {
                entry.ask(Asked::End);
            }
        });
        self.sweep();
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
        !self.listening.load(Ordering::Acquire) && self.open() == 0 && self.refusing() == 0
    }

    /// Connections that are served.
    pub(super) fn open(&self) -> usize {
        self.counter(false).load(Ordering::Acquire)
    }

    /// Connections that are being refused.
    pub(super) fn refusing(&self) -> usize {
        self.counter(true).load(Ordering::Acquire)
    }

    fn counter(&self, refused: bool) -> &AtomicUsize {
        if refused {
            &self.refusing
        } else {
            &self.stats.open
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One open connection, as its own coroutine and the registry both see it.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use may::io::WaitIoWaker;

use super::phase::Phase;
use crate::clock;

/// What a connection was asked to do, whatever its deadline. A later request only replaces a
/// weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CloseRequest {
    /// Close when it next waits for a request to begin, or for a message.
    WhenIdle = 1,
    /// Close unless a whole request is there: others need the room.
    Evict = 2,
    /// Close now.
    Now = 3,
}

/// A registry entry.
pub(super) struct Entry {
    pub(super) worker: usize,
    pub(super) peer: IpAddr,
    /// One connection too many: it only gets a 503.
    pub(super) refused: bool,
    /// Its index in the registry.
    pub(super) slot: usize,
    phase: AtomicU8,
    /// A [`CloseRequest`]; 0: none.
    close: AtomicU8,
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
    pub(super) fn new(worker: usize, peer: IpAddr, refused: bool, slot: usize) -> Entry {
        Entry {
            worker,
            peer,
            refused,
            slot,
            phase: AtomicU8::new(Phase::Idle as u8),
            close: AtomicU8::new(0),
            deadline_ms: AtomicU64::new(0),
            waker: OnceLock::new(),
        }
    }

    /// Sets what wakes the connection's coroutine while it waits for its socket.
    pub(super) fn wake_by(&self, waker: WaitIoWaker) {
        // One socket per entry, so nothing is set yet.
        let _ = self.waker.set(waker);
    }

    /// Enters a phase for at most `time`; `None`: without a deadline.
    pub(super) fn enter(&self, phase: Phase, time: Option<Duration>) {
        self.enter_until(
            phase,
            time.map_or(0, |time| clock::monotonic_ms() + milliseconds(time)),
        );
    }

    /// Enters a phase until a time on the coarse clock; 0: without a deadline.
    pub(super) fn enter_until(&self, phase: Phase, deadline_ms: u64) {
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Idle,
            1 => Phase::Reading,
            2 => Phase::Serving,
            4 => Phase::Following,
            _ => Phase::Writing,
        }
    }

    /// 0 where the phase has no deadline.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_overdue(&self) -> bool {
        let deadline = self.deadline_ms();
        deadline != 0 && clock::monotonic_ms() >= deadline
    }

    /// Whether it must wait no longer: its time is up, or it was asked to close.
    pub(super) fn is_over(&self) -> bool {
        let phase = || self.phase();
        let closes = match self.close.load(Ordering::Relaxed) {
            0 => false,
            1 => matches!(phase(), Phase::Idle | Phase::Following),
            2 => matches!(phase(), Phase::Idle | Phase::Following | Phase::Reading),
            _ => true,
        };
        closes || self.is_overdue()
    }

    /// Whether it must make room for others.
    pub(super) fn is_evicted(&self) -> bool {
        self.close.load(Ordering::Relaxed) == CloseRequest::Evict as u8
    }

    /// Whether it was asked to close, now or soon: the next answer may say so.
    pub(super) fn must_close(&self) -> bool {
        self.close.load(Ordering::Relaxed) != 0
    }

    pub(super) fn request_close(&self, request: CloseRequest) {
        self.close.fetch_max(request as u8, Ordering::Relaxed);
    }

    /// Wakes its coroutine. Call this on its own worker.
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

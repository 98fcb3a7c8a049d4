//! The coarse clock: one thread ticks it, and a read costs one memory access.
//!
//! Its ticks enforce the deadlines of all connections and visits, so none needs a timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time between two ticks: how late a deadline may be enforced. Short against every configurable
/// time-out, at 20 wake-ups a second.
pub const TICK: Duration = Duration::from_millis(50);

static MONOTONIC_MS: AtomicU64 = AtomicU64::new(0);
static UNIX_S: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since the clock started, as of the last tick; never 0.
pub fn monotonic_ms() -> u64 {
    MONOTONIC_MS.load(Ordering::Relaxed)
}

/// Seconds since 1970, as of the last tick.
pub fn unix_s() -> u64 {
    UNIX_S.load(Ordering::Relaxed)
}

/// Ticks without end on the calling thread; calls `on_tick` after each.
pub fn run(on_tick: impl Fn(Instant)) -> ! {
    let began = Instant::now();
    loop {
        let now = Instant::now();
        set(now - began);
        on_tick(now);
        std::thread::sleep(TICK);
    }
}

/// Sets the time, so that it is right before the first tick.
pub fn set(since_start: Duration) {
    // Not 0, which stands for "no deadline".
    MONOTONIC_MS.store(
        u64::try_from(since_start.as_millis())
            .unwrap_or(u64::MAX)
            .max(1),
        Ordering::Relaxed,
    );
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UNIX_S.store(unix.as_secs(), Ordering::Relaxed);
}

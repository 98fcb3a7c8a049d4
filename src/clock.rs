//! The process's coarse clock: read for the price of a memory access, kept by one thread that
//! ticks.
//!
//! Deadlines of connections and visits are all enforced at its ticks, so none needs a timer of its
//! own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time between two ticks: how late a deadline may be enforced. Short against every timeout that
/// can be set, and still only 20 wake-ups a second.
pub const TICK: Duration = Duration::from_millis(50);

static MONOTONIC_MS: AtomicU64 = AtomicU64::new(0);
static UNIX_S: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since the clock was started, as of the last tick.
pub fn monotonic_ms() -> u64 {
    MONOTONIC_MS.load(Ordering::Relaxed)
}

/// Seconds since 1970, as of the last tick.
pub fn unix_s() -> u64 {
    UNIX_S.load(Ordering::Relaxed)
}

/// Ticks for ever on the calling thread; calls `on_tick` after each.
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
    // 1 and not 0 at the start: 0 stands for "no deadline" where deadlines are kept.
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

//! Bounded waiting: asks again until the answer is there, and panics with what it waited for when
//! time is up.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two questions. Short beside everything that is measured, long beside what a
/// question costs.
const BETWEEN: Duration = Duration::from_millis(5);

/// Waits until `holds` is true.
///
/// # Panics
/// When it is not within `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    within_value(limit, what, || if holds() { Ok(()) } else { Err("not so") });
}

/// Waits until `ask` gives a value, and gives it back.
///
/// # Panics
/// When it gives none within `limit`; the message holds the last error.
#[track_caller]
pub fn within_value<T, E: Debug>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(error) if start.elapsed() >= limit => {
                panic!("waited {limit:?} in vain for {what}; last: {error:?}")
            }
            Err(_) => thread::sleep(BETWEEN),
        }
    }
}

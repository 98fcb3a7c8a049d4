//! Bounded waiting: asks again until there is an answer, and panics when time is up.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// Between two questions: short against everything measured, long against a question's cost.
const BETWEEN: Duration = Duration::from_millis(5);

/// The limit for everything that must happen some time, on a machine where compilers may run too.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `holds` is true.
///
/// # Panics
/// When it is not true within `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    within_value(limit, what, || if holds() { Ok(()) } else { Err("not so") });
}

/// Waits until `ask` gives a value.
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

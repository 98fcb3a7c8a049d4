//! `visitas check`: tries the configuration and both stores, and prints a table of what it found
//! and what to do.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::config::{Config, CounterPlace, LedgerPlace};
use crate::server;
use crate::visits::counter::diagnose_redis;
use crate::visits::diagnose::{Check, Severity};
use crate::visits::ledger::{
    Counted, diagnose_file, diagnose_postgres, recount_file, recount_postgres,
};

/// Time for the counter's connection, and for each of its answers.
const COUNTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two reports of a long count.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Checks everything and prints the table; says whether visits can be served.
#[cold]
pub fn run(config: &Config) -> bool {
    let mut checks = vec![
        Check::fine("configuration", "valid"),
        Check::fine(
            "listens on",
            format!("{}, with {} workers", config.listen, config.workers),
        ),
        connections(config),
        Check::fine("ledger", config.ledger.to_string()),
    ];
    checks.extend(match &config.ledger {
        LedgerPlace::Embedded { folder } => diagnose_file(folder),
        LedgerPlace::Postgres(place) => {
            let names = !config.names.is_empty();
            diagnose_postgres(place, server::ledger_connections(config), names)
        }
    });
    let ledger = failures(&checks);
    checks.push(Check::fine("counter", config.counter.to_string()));
    match &config.counter {
        CounterPlace::InProcess => {
            checks.push(Check::fine("its counter", "begins at 0 at each start"))
        }
        CounterPlace::Redis(place) => checks.extend(diagnose_redis(place, COUNTER_TIMEOUT)),
    }
    let all = failures(&checks);
    let text = table(&checks) + &summary(ledger, all - ledger);
    // A closed standard output is no reason to fail.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    all == 0
}

fn failures(checks: &[Check]) -> usize {
    checks
        .iter()
        .filter(|check| check.severity == Severity::Failure)
        .count()
}

/// What the failures mean: without a counter visits are served all the same.
fn summary(ledger: usize, counter: usize) -> String {
    let things = |count: usize| format!("{count} thing{} to do", if count == 1 { "" } else { "s" });
    match (ledger, counter) {
        (0, 0) => "visits can be served\n".to_owned(),
        (0, counter) => format!(
            "visits can be served, but not counted in Redis: {}\n",
            things(counter)
        ),
        (ledger, counter) => format!("visits cannot be served: {}\n", things(ledger + counter)),
    }
}

/// Compares the total and the history with the rows, and prints what it found. With `correct` it
/// sets both right. Says whether they agree now.
#[cold]
pub fn count(config: &Config, correct: bool) -> bool {
    let counted = match &config.ledger {
        LedgerPlace::Embedded { folder } => recount_file(folder, correct, &mut progress()),
        LedgerPlace::Postgres(place) => recount_postgres(place, correct, &mut progress()),
    };
    let (line, agrees) = match counted {
        Ok(counted) => (sentence(&counted, correct), counted.agrees() || correct),
        Err(reason) => (format!("the rows cannot be counted: {reason}"), false),
    };
    // A closed standard output is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{line}");
    agrees
}

fn sentence(counted: &Counted, correct: bool) -> String {
    match (counted.agrees(), correct) {
        (true, _) => format!(
            "{} rows; the total and the history agree with them",
            counted.rows
        ),
        (false, true) => format!("set right: {counted}"),
        (false, false) => format!("{counted}; run visitas recount to set it right"),
    }
}

/// Reports on standard error how far a long count is.
fn progress() -> impl FnMut(i64, i64) {
    let mut last = Instant::now();
    move |done, of| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            eprintln!("counting: {} %", 100 * done / of.max(1));
        }
    }
}

/// How many clients the system lets connect: the same limit that a running server has.
#[cold]
fn connections(config: &Config) -> Check {
    let (capacity, asked) = (server::capacity(config), config.max_connections);
    match capacity.bound {
        None => Check::fine("connections", format!("up to {asked}")),
        Some(bound) => Check::warns(
            "connections",
            format!(
                "up to {}, not the {asked} of MAX_CONNECTIONS",
                capacity.connections
            ),
            format!("raise the limit of {bound}, or lower MAX_CONNECTIONS"),
        ),
    }
}

/// The checks in columns, each with what to do below it.
#[cold]
fn table(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.what.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for Check {
        severity,
        what,
        found,
        todo,
    } in checks
    {
        let mark = match severity {
            Severity::Fine => "ok",
            Severity::Warning => "warn",
            Severity::Failure => "FAIL",
        };
        let found: String = found
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        text += &format!("{mark:<4}  {what:<width$}  {found}\n");
        if !todo.is_empty() {
            text += &format!("{:4}  {:width$}  -> {todo}\n", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_do_below_what_it_is_about() {
        let checks = [
            Check::fine("a", "b\nc"),
            Check::fails("long name", "broken", "mend it"),
        ];
        assert_eq!(
            table(&checks),
            "ok    a          b c\nFAIL  long name  broken\n                 -> mend it\n"
        );
        assert_eq!(summary(1, 0), "visits cannot be served: 1 thing to do\n");
        assert_eq!(
            summary(0, 2),
            "visits can be served, but not counted in Redis: 2 things to do\n"
        );
    }
}

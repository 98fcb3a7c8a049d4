//! `visitas check`: tries the configuration and both stores, and prints a table of what it found and what to do.

use std::fs;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::config::{Config, CounterPlace, LedgerPlace};
use crate::server;
use crate::visits::counter::survey_redis;
use crate::visits::ledger::{survey_file, survey_postgres};
use crate::visits::survey::{Finding, Weight};

/// Time for the counter's connection, and for each of its answers.
const COUNTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Descriptors a process needs beside its connections: stores, epoll, log, and some to spare.
const OTHER_DESCRIPTORS: usize = 64;

/// Looks at everything and prints the table; says whether visits could be served.
#[cold]
pub fn run(config: &Config) -> bool {
    let mut findings = vec![
        Finding::fine("configuration", "valid"),
        Finding::fine("listens on", format!("{}, with {} workers", config.listen, config.workers)),
        descriptors(config),
        Finding::fine("ledger", config.ledger.to_string()),
    ];
    findings.extend(match &config.ledger {
        LedgerPlace::Embedded { folder } => survey_file(folder),
        // A lane each, and the history.
        LedgerPlace::Postgres(place) => survey_postgres(place, server::lanes(config) as i64 + 1),
    });
    findings.push(Finding::fine("counter", config.counter.to_string()));
    match &config.counter {
        CounterPlace::InProcess => findings.push(Finding::fine("its counter", "begins at 0 at each start")),
        CounterPlace::Redis(place) => findings.extend(survey_redis(place, COUNTER_TIMEOUT)),
    }
    // A closed standard output is no reason to fail.
    let _ = io::stdout().lock().write_all(table(&findings).as_bytes());
    !findings.iter().any(|finding| finding.weight == Weight::Fails)
}

/// Whether so many connections may be open (proc(5), `/proc/self/limits`).
#[cold]
fn descriptors(config: &Config) -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let allowed = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|hard| hard.parse::<usize>().ok());
    let wanted = config.max_connections + OTHER_DESCRIPTORS;
    match allowed {
        Some(allowed) if allowed < wanted => Finding::mind(
            "connections",
            format!("MAX_CONNECTIONS is {}, but only {allowed} descriptors may be open", config.max_connections),
            format!("raise the limit (ulimit -n) to {wanted}, or lower MAX_CONNECTIONS"),
        ),
        _ => Finding::fine("connections", format!("up to {}", config.max_connections)),
    }
}

/// The findings in columns, and what to do below each that asks for it.
#[cold]
fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { weight, what, found, todo } in findings {
        let mark = match weight {
            Weight::Fine => "ok",
            Weight::Mind => "note",
            Weight::Fails => "FAIL",
        };
        let found: String = found.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text += &format!("{mark:<4}  {what:<width$}  {found}\n");
        if !todo.is_empty() {
            text += &format!("{:4}  {:width$}  -> {todo}\n", "", "");
        }
    }
    let fails = findings.iter().filter(|finding| finding.weight == Weight::Fails).count();
    text += &match fails {
        0 => "visits can be served\n".to_owned(),
        _ => format!("visits cannot be served: {fails} thing{} to do\n", if fails == 1 { "" } else { "s" }),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_do_below_what_it_is_about() {
        let findings = [Finding::fine("a", "b\nc"), Finding::fails("long name", "broken", "mend it")];
        assert_eq!(
            table(&findings),
            "ok    a          b c\nFAIL  long name  broken\n                 -> mend it\nvisits cannot be served: 1 thing to do\n"
        );
    }
}

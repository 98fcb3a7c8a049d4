//! Faults under load: what dies, hangs, fills up or jumps while a crowd visits, each in a scenario
//! that ends in an account.
//!
//! The short form runs with every test, many scenarios beside each other. The long form and the
//! soak run alone, by `scripts/test-faults`; the environment says which (`FAULT_SCENARIOS`), how
//! long (`FAULT_SECONDS`, `SOAK_SECONDS`), over how many processes (`FAULT_FLEETS`) and how many
//! beside each other (`FAULT_BESIDE`).

mod account;
mod counter;
mod database;
mod network;
mod play;
mod soak;
mod web;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::machine;
use account::Account;
use play::{Fleet, Form};

/// A scenario: what is done to whom while the crowd visits. It gives its account, or says why it
/// cannot run here.
type Scenario = fn(&Form) -> Result<Account, String>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("sessions-ended", database::sessions_ended),
    ("server-killed", database::server_killed),
    ("server-restarted", database::server_restarted),
    ("server-read-only", database::server_read_only),
    ("server-in-recovery", database::server_in_recovery),
    ("server-disk-full", database::server_disk_full),
    ("too-many-connections", database::too_many_connections),
    ("password-changed", database::password_changed),
    ("table-dropped", database::table_dropped),
    ("cut-at-every-byte", network::cut_at_every_byte),
    ("half-open", network::half_open),
    ("silence", network::silence),
    ("slow-answers", network::slow_answers),
    ("black-hole", network::black_hole),
    ("redis-killed", counter::killed),
    ("redis-frozen", counter::frozen),
    ("redis-full", counter::full),
    ("redis-replica", counter::replica),
    ("redis-cut-at-every-byte", counter::cut_at_every_byte),
    ("web-killed", web::killed),
    ("embedded-killed", web::embedded_killed),
    ("embedded-disk-full", web::embedded_disk_full),
    ("clock-jumps", web::clock_jumps),
];

/// So many scenarios run beside each other in the short form: mostly they wait for a server to
/// start or a clock to run.
const BESIDE: usize = 8;

#[test]
fn short_form() {
    let _machine = machine();
    // Each in another fleet than its neighbour, so that all are there.
    let form = |(index, (name, scenario)): (usize, &(&'static str, Scenario))| {
        let (time, pause) = (Duration::from_secs(10), Duration::from_millis(50));
        (
            Form {
                name,
                time,
                visitors: 24,
                pause,
                fleet: Fleet::ALL[index % Fleet::ALL.len()],
            },
            *scenario,
        )
    };
    all(SCENARIOS.iter().enumerate().map(form).collect(), BESIDE);
}

#[test]
#[ignore = "takes an hour and a half; scripts/test-faults runs it"]
fn long_form() {
    let _machine = machine();
    let chosen = words("FAULT_SCENARIOS");
    let fleets = words("FAULT_FLEETS");
    let (time, visitors) = (
        Duration::from_secs(number("FAULT_SECONDS", 60)),
        number("FAULT_VISITORS", 32) as usize,
    );
    let scenarios = SCENARIOS
        .iter()
        .filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|word| word == name));
    let forms = scenarios.flat_map(|(name, scenario)| {
        let wanted = Fleet::ALL
            .into_iter()
            .filter(|fleet| fleets.is_empty() || fleets.contains(&fleet.to_string()));
        wanted.map(|fleet| {
            (
                Form {
                    name,
                    time,
                    visitors,
                    pause: Duration::ZERO,
                    fleet,
                },
                *scenario,
            )
        })
    });
    println!("{}", Account::HEADER);
    all(forms.collect(), number("FAULT_BESIDE", 1) as usize);
}

/// Runs them all, so many beside each other, each to its end.
fn all(forms: Vec<(Form, Scenario)>, beside: usize) {
    let waiting = Mutex::new(forms.into_iter());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let run = |(form, scenario): (Form, Scenario)| {
        catch_unwind(AssertUnwindSafe(|| report(&form, scenario))).is_err()
    };
    let runner = || {
        std::iter::from_fn(next)
            .filter_map(|one| run(one).then_some(one.0.name))
            .collect::<Vec<_>>()
    };
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..beside).map(|_| scope.spawn(runner)).collect();
        runners
            .into_iter()
            .flat_map(|runner| runner.join().expect("a runner's end"))
            .collect()
    });
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

#[test]
#[ignore = "takes ten minutes; scripts/test-faults runs it"]
fn soak() {
    let _machine = machine();
    println!(
        "{}",
        soak::run(Duration::from_secs(number("SOAK_SECONDS", 600)))
    );
}

/// Runs one scenario and prints its account.
fn report(form: &Form, scenario: Scenario) {
    match scenario(form) {
        Ok(account) => {
            println!("{account}");
            account.check();
        }
        Err(why) => crate::support::skipped(form.name, &why),
    }
}

fn words(variable: &str) -> Vec<String> {
    std::env::var(variable)
        .unwrap_or_default()
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable}={text}"))
    })
}

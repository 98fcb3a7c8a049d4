//! Faults under load: something dies, hangs, fills up or jumps while clients visit. Each scenario
//! ends in a report.
//!
//! The short run belongs to the suite and has many scenarios at once. The long run and the soak
//! run alone, by `scripts/test-faults`. The environment chooses scenarios (`FAULT_SCENARIOS`),
//! their time (`FAULT_SECONDS`, `SOAK_SECONDS`), processes (`FAULT_TOPOLOGIES`), clients
//! (`FAULT_CLIENTS`), and how many scenarios run at once (`FAULT_PARALLEL`).

mod counter;
mod database;
mod network;
mod report;
mod run;
mod soak;
mod web;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::machine;
use report::Report;
use run::{Parameters, Topology};

/// Breaks something while clients visit. Gives its report, or says why it cannot run here.
type Scenario = fn(&Parameters) -> Result<Report, String>;

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

/// Scenarios at once in the short run. They mostly wait for a server to start, or for time to pass.
const PARALLEL: usize = 8;

#[test]
fn short_run() {
    let _machine = machine();
    // The topologies alternate, so that each one runs.
    let topologies = Topology::ALL.into_iter().cycle();
    let scenario = |((name, scenario), topology): (&(&'static str, Scenario), Topology)| {
        let parameters = Parameters {
            name,
            time: Duration::from_secs(6),
            clients: 16,
            pause: Duration::from_millis(50),
            topology,
        };
        (parameters, *scenario)
    };
    let all = SCENARIOS.iter().zip(topologies).map(scenario).collect();
    run_all(all, PARALLEL);
}

#[test]
#[ignore = "takes an hour and a half; scripts/test-faults runs it"]
fn long_run() {
    let _machine = machine();
    let (names, topologies) = (words("FAULT_SCENARIOS"), words("FAULT_TOPOLOGIES"));
    let chosen = |words: &[String], name: &str| words.is_empty() || words.iter().any(|w| w == name);
    let mut all = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| chosen(&names, name)) {
        for topology in Topology::ALL {
            if chosen(&topologies, &topology.to_string()) {
                let parameters = Parameters {
                    name,
                    time: Duration::from_secs(number("FAULT_SECONDS", 60)),
                    clients: number("FAULT_CLIENTS", 32) as usize,
                    pause: Duration::ZERO,
                    topology,
                };
                all.push((parameters, *scenario));
            }
        }
    }
    println!("{}", Report::header());
    run_all(all, number("FAULT_PARALLEL", 1) as usize);
}

#[test]
#[ignore = "takes ten minutes; scripts/test-faults runs it"]
fn soak() {
    let _machine = machine();
    let time = Duration::from_secs(number("SOAK_SECONDS", 600));
    println!("{}", soak::run(time));
}

/// Runs each scenario to its end, `parallel` of them at once.
fn run_all(all: Vec<(Parameters, Scenario)>, parallel: usize) {
    let waiting = Mutex::new(all.into_iter());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let fails = |parameters: &Parameters, scenario: Scenario| {
        catch_unwind(AssertUnwindSafe(|| run_one(parameters, scenario))).is_err()
    };
    let runner = || -> Vec<&str> {
        std::iter::from_fn(next)
            .filter(|(parameters, scenario)| fails(parameters, *scenario))
            .map(|(parameters, _)| parameters.name)
            .collect()
    };
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..parallel).map(|_| scope.spawn(runner)).collect();
        runners
            .into_iter()
            .flat_map(|runner| runner.join().expect("a runner's end"))
            .collect()
    });
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

/// Runs one scenario, then prints and checks its report.
fn run_one(parameters: &Parameters, scenario: Scenario) {
    match scenario(parameters) {
        Ok(report) => {
            println!("{report}");
            report.check();
        }
        Err(why) => crate::support::skipped(parameters.name, &why),
    }
}

fn words(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable}={text}"))
    })
}

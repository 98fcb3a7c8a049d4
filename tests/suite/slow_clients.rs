//! A thousand slow clients of each kind leave the visits of others alone, and are gone afterwards. Slow:
//! `scripts/test-clients` installs slowhttptest and runs this.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::metrics::metrics;
use crate::support::process::Process;
use crate::support::tools::tool;
use crate::support::{Client, Settings, Visitas, machine, within};

/// Visits measured at a time, with and without the slow clients in turn.
const SLICE: Duration = Duration::from_secs(2);
const SLICES: usize = 3;
/// Visitors whose visits are measured.
const VISITORS: usize = 4;
const SLOW: usize = 1000;

fn open_connections(visitas: &Visitas) -> f64 {
    metrics(visitas).sum("visitas_connections")
}

/// The time within which 99 of 100 visits are answered, in a slice.
fn p99(visitas: &Visitas) -> Duration {
    let end = Instant::now() + SLICE;
    let visitor = || {
        let (mut client, mut times) = (visitas.connect(), Vec::new());
        while Instant::now() < end {
            let start = Instant::now();
            client.try_visit().expect("an answer").counts();
            times.push(start.elapsed());
        }
        times
    };
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..VISITORS).map(|_| scope.spawn(visitor)).collect();
        visitors.into_iter().flat_map(|visitor| visitor.join().expect("a visitor")).collect()
    });
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Pairs of slices, without and with a thousand slow clients of this kind.
fn leave_others_alone(kind: &[&str]) {
    let Some(slowhttptest) = tool("slowhttptest") else { return };
    let _machine = machine();
    let visitas = Settings::new().set("HEADER_TIMEOUT", "5s").start();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        without.push(p99(&visitas));
        let url = format!("http://127.0.0.1:{}/", visitas.port());
        let (count, rate) = (SLOW.to_string(), (2 * SLOW).to_string());
        let common = ["-c", &count, "-r", &rate, "-i", "1", "-l", "30", "-u", &url];
        let mut attack = Process::start("slowhttptest", Command::new(&slowhttptest).args(kind).args(common), "KILL");
        within(Duration::from_secs(10), "the slow clients", || open_connections(&visitas) > 0.9 * SLOW as f64);
        with.push(p99(&visitas));
        // The server ends them, not the attack's end: that is still on.
        within(Duration::from_secs(15), "the slow clients to be gone", || open_connections(&visitas) < 10.0);
        attack.end("KILL", Duration::from_secs(5));
        within(Duration::from_secs(10), "a quiet server", || open_connections(&visitas) <= 1.0);
    }
    println!("{kind:?}: p99 without {without:?}, with {with:?}");
    let (without, with) = (median(without), median(with));
    assert!(with <= 2 * without, "{kind:?}: 99 of 100 visits within {without:?} without, {with:?} with slow clients");
    let mut client = Client::connect(visitas.port());
    assert_eq!(client.get("/livez").status, 200);
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn slow_headers_leave_others_alone() {
    leave_others_alone(&["-H", "-x", "24"]);
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn slow_bodies_leave_others_alone() {
    leave_others_alone(&["-B", "-s", "8192", "-x", "10"]);
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn range_attacks_leave_others_alone() {
    leave_others_alone(&["-R", "-a", "5", "-b", "2000"]);
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn slow_readers_leave_others_alone() {
    leave_others_alone(&["-X", "-k", "50", "-n", "2", "-w", "10", "-y", "20", "-z", "5"]);
}

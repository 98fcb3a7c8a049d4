//! A thousand slow clients of each kind do not slow other visits down, and are closed in time.
//! Slow: `scripts/test-clients` installs slowhttptest and runs this.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::metrics::metrics;
use crate::support::process::Process;
use crate::support::tools::tool;
use crate::support::{Client, LIMIT, Settings, Visitas, machine, within};

/// One measurement, with and without the slow clients in turn.
const SLICE: Duration = Duration::from_secs(2);
const SLICES: usize = 5;
/// The measured clients.
const VISITORS: usize = 4;
const SLOW: usize = 1000;

fn open_connections(visitas: &Visitas) -> f64 {
    metrics(visitas).sum("visitas_connections")
}

fn accepted(visitas: &Visitas) -> f64 {
    metrics(visitas).sum("visitas_connections_accepted_total")
}

/// The 99th percentile of visit times in one measurement.
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
        visitors
            .into_iter()
            .flat_map(|visitor| visitor.join().expect("a visitor"))
            .collect()
    });
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A mode of slowhttptest.
struct Kind {
    arguments: &'static [&'static str],
    path: &'static str,
    /// New connections per second.
    rate: usize,
    /// The least number of open connections during the attack.
    open: usize,
}

/// Measures in pairs, without and with a thousand slow clients of this kind.
fn leave_others_alone(kind: &Kind) {
    let Kind {
        arguments: kind,
        path,
        rate,
        open,
    } = kind;
    let Some(slowhttptest) = tool("slowhttptest") else {
        return;
    };
    let _machine = machine();
    let visitas = Settings::new()
        .set("HEADER_TIMEOUT", "5s")
        .set("IDLE_TIMEOUT", "5s")
        .start();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        without.push(p99(&visitas));
        let url = format!("http://127.0.0.1:{}{path}", visitas.port());
        let (count, rate, accepted) = (SLOW.to_string(), rate.to_string(), accepted(&visitas));
        let common = ["-c", &count, "-r", &rate, "-i", "1", "-l", "30", "-u", &url];
        let mut attack = Process::start(
            "slowhttptest",
            Command::new(&slowhttptest).args(*kind).args(common),
            "KILL",
        );
        within(LIMIT, "the slow clients", || {
            self::accepted(&visitas) - accepted > 100.0
                && open_connections(&visitas) >= *open as f64
        });
        with.push(p99(&visitas));
        // The server closes them, since the attack still runs.
        within(LIMIT, "the slow clients to be gone", || {
            open_connections(&visitas) < 10.0
        });
        attack.end("KILL", Duration::from_secs(5));
        within(LIMIT, "a quiet server", || {
            open_connections(&visitas) <= 1.0
        });
    }
    println!("{kind:?}: p99 without {without:?}, with {with:?}");
    let (without, with) = (median(without), median(with));
    assert!(
        with <= 2 * without,
        "{kind:?}: 99 of 100 visits within {without:?} without, {with:?} with slow clients"
    );
    let mut client = Client::connect(visitas.port());
    assert_eq!(client.get("/livez").status, 200);
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn slow_headers_leave_others_alone() {
    leave_others_alone(&Kind {
        arguments: &["-H", "-x", "24"],
        path: "/",
        rate: 2000,
        open: 900,
    });
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn slow_bodies_leave_others_alone() {
    leave_others_alone(&Kind {
        arguments: &["-B", "-s", "8192", "-x", "10"],
        path: "/",
        rate: 2000,
        open: 900,
    });
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn range_attacks_leave_others_alone() {
    // Ranges are ignored, so each request is answered and no connection stays.
    leave_others_alone(&Kind {
        arguments: &["-R", "-a", "5", "-b", "2000"],
        path: "/",
        rate: 300,
        open: 0,
    });
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn slow_readers_leave_others_alone() {
    // The system's buffers hold the answers, so each connection is idle for the server.
    let arguments = &[
        "-X", "-k", "10", "-n", "2", "-w", "10", "-y", "20", "-z", "5",
    ];
    leave_others_alone(&Kind {
        arguments,
        path: "/favicon.svg",
        rate: 2000,
        open: 900,
    });
}

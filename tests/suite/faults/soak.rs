//! The soak: full load for long, a fault every five seconds, and no growth of memory, descriptors
//! or threads.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use super::report::{Allow, Report, Store};
use super::run::{Parameters, Run, Topology, any, last};
use crate::support::{Cluster, Database, Proxy, Redis, Settings, Stop, Visitas};

const BETWEEN: Duration = Duration::from_secs(5);
/// The first and the last window are compared. In a short soak a window is a quarter of it.
const WINDOW: Duration = Duration::from_secs(60);
/// Before the first window every connection gets its buffers and every lane reconnects once.
const WARM_UP: Duration = Duration::from_secs(5);
const SAMPLE: Duration = Duration::from_millis(200);
/// Growth that is allowed: pages that the allocator does not give back.
const MORE_KIB: u64 = 1024;

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    after: Duration,
    resident_kib: u64,
    descriptors: u64,
    threads: u64,
}

impl Sample {
    fn of(pid: u32, after: Duration) -> Sample {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
        let field = |name: &str| -> u64 {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("a field of status");
            line.split_whitespace()
                .nth(1)
                .and_then(|value| value.parse().ok())
                .expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its descriptors")
            .count() as u64;
        Sample {
            after,
            resident_kib: field("VmRSS:"),
            descriptors,
            threads: field("Threads:"),
        }
    }
}

/// The result of a soak.
pub struct Soak {
    report: Report,
    first: Sample,
    last: Sample,
    window: Duration,
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Soak {
            report,
            first,
            last,
            window,
        } = self;
        writeln!(f, "{}\n{report}\n", Report::header())?;
        writeln!(
            f,
            "| window of {} s | most resident KiB | median descriptors | median threads |\n\
             |---|---|---|---|",
            window.as_secs()
        )?;
        for (name, sample) in [("first", first), ("last", last)] {
            writeln!(
                f,
                "| {name} | {} | {} | {} |",
                sample.resident_kib, sample.descriptors, sample.threads
            )?;
        }
        Ok(())
    }
}

/// Soaks one process for that long.
///
/// # Panics
/// When a visit was lost, or a resource grew.
pub fn run(time: Duration) -> Soak {
    let (cluster, mut redis) = (Cluster::start(), Redis::start());
    let database = cluster.default_database();
    database.prepare();
    let (to_database, to_redis) = (Proxy::to(database.port()), Proxy::to(redis.port()));
    let topology = Topology {
        processes: 1,
        workers: 2,
    };
    let parameters = Parameters {
        name: "soak",
        time,
        clients: 32,
        pause: Duration::ZERO,
        topology,
    };
    let mut run = Run::start_without_counts(&parameters, || {
        // By name, so that DNS is part of it.
        let url = database
            .url_at(to_database.port())
            .replace("127.0.0.1", "localhost");
        Settings::new()
            .set("DATABASE_URL", url)
            .set("REDIS_URL", redis.url_at(to_redis.port()))
    });
    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut turn = 0;
    run.repeat(1, |run| {
        let visitas = &run.web[0];
        fault(
            turn,
            &cluster,
            &database,
            &mut redis,
            [&to_database, &to_redis],
        );
        turn += 1;
        run.wait_for_visits();
        sample(visitas, began, &mut samples, began + BETWEEN * turn);
    });
    let allow = Allow {
        redis_forgets: true,
        ..Allow::default()
    };
    let report = run
        .end(&Store::Database(&database), Some(&redis))
        .allow(allow);
    report.check();
    let window = WINDOW.min(time / 4);
    let end = samples.last().expect("samples").after;
    let first = summary(&samples, WARM_UP..WARM_UP + window);
    let last = summary(&samples, end.saturating_sub(window)..end);
    let soak = Soak {
        report,
        first,
        last,
        window,
    };
    assert!(
        last.resident_kib <= first.resident_kib + first.resident_kib / 10 + MORE_KIB,
        "memory grew\n{soak}"
    );
    assert!(
        last.descriptors <= first.descriptors && last.threads <= first.threads,
        "descriptors or threads grew\n{soak}"
    );
    soak
}

/// One fault; it is over when this returns.
fn fault(
    turn: u32,
    cluster: &Cluster,
    database: &Database<'_>,
    redis: &mut Redis,
    proxies: [&Proxy; 2],
) {
    let [to_database, to_redis] = proxies;
    match turn % 12 {
        0 => drop(database.terminate_sessions()),
        1 => to_database.cut_all(),
        2 => {
            cluster.stop(Stop::Immediate);
            cluster.restart();
        }
        3 => {
            redis.stop();
            redis.restart();
        }
        4 => {
            to_database.swallow(true);
            last(Duration::from_secs(2));
            to_database.heal();
        }
        5 => {
            redis.pause();
            last(Duration::from_secs(1));
            redis.resume();
        }
        6 => {
            to_database.slow(Duration::from_millis(5 + any(50)));
            last(Duration::from_secs(1));
            to_database.heal();
        }
        7 => {
            cluster.configure("default_transaction_read_only = on");
            cluster.reload();
            last(Duration::from_millis(500));
            cluster.configure("default_transaction_read_only = off");
            cluster.reload();
        }
        8 => {
            redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
            last(Duration::from_millis(500));
            redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        9 => to_redis.cut_all(),
        10 => {
            cluster.stop(Stop::KillAll);
            cluster.restart();
        }
        _ => {
            to_redis.swallow(true);
            last(Duration::from_secs(1));
            to_redis.heal();
        }
    }
}

/// Samples the process until `until`.
fn sample(visitas: &Visitas, began: Instant, samples: &mut Vec<Sample>, until: Instant) {
    loop {
        samples.push(Sample::of(visitas.pid(), began.elapsed()));
        if Instant::now() >= until {
            return;
        }
        std::thread::sleep(SAMPLE);
    }
}

/// A window's highest memory, and its median number of descriptors and threads: a DNS lookup or a
/// new connection adds one for a moment.
fn summary(samples: &[Sample], window: std::ops::Range<Duration>) -> Sample {
    let within: Vec<&Sample> = samples
        .iter()
        .filter(|sample| window.contains(&sample.after))
        .collect();
    let median = |value: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = within.iter().map(|sample| value(sample)).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Sample {
        after: window.end,
        resident_kib: within
            .iter()
            .map(|sample| sample.resident_kib)
            .max()
            .expect("samples in the window"),
        descriptors: median(|sample| sample.descriptors),
        threads: median(|sample| sample.threads),
    }
}

//! The soak: a long time at full load, a fault every five seconds, and in the end the same memory,
//! descriptors and threads.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use super::account::{Account, Allow, Rows, prepare};
use super::play::{Fleet, Form, Play, any, last};
use crate::support::{Cluster, Database, Proxy, Redis, Settings, Stop, Visitas};

const BETWEEN: Duration = Duration::from_secs(5);
/// What is compared: the first and the last so long, or a quarter of a short soak.
const WINDOW: Duration = Duration::from_secs(60);
/// Before the first window every connection has its buffers, and every lane was lost once.
const WARM_UP: Duration = Duration::from_secs(5);
const SAMPLE: Duration = Duration::from_millis(200);
/// What may be there at the end and not at the beginning: what an allocator does not give back, a
/// few pages of it.
const MORE_KIB: u64 = 1024;

/// What a process has at one moment.
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

/// What a soak came to.
pub struct Soak {
    account: Account,
    first: Sample,
    last: Sample,
    window: Duration,
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Soak {
            account,
            first,
            last,
            window,
        } = self;
        writeln!(f, "{}\n{account}\n", Account::HEADER)?;
        writeln!(
            f,
            "| window of {} s | resident KiB, most | descriptors, usual | threads, usual |\n|---|---|---|---|",
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
/// When a visit was lost or anything grew.
pub fn run(time: Duration) -> Soak {
    let (cluster, mut redis) = (Cluster::start(), Redis::start());
    let database = cluster.default_database();
    prepare(&database);
    let (to_database, to_redis) = (Proxy::to(database.port()), Proxy::to(redis.port()));
    let fleet = Fleet {
        processes: 1,
        workers: 2,
    };
    let form = Form {
        name: "soak",
        time,
        visitors: 32,
        pause: Duration::ZERO,
        fleet,
    };
    let mut play = Play::start_without_numbers(&form, || {
        // By name, so that names are looked up too.
        let url = database
            .url_at(to_database.port())
            .replace("127.0.0.1", "localhost");
        Settings::new()
            .set("DATABASE_URL", url)
            .set("REDIS_URL", redis.url_at(to_redis.port()))
    });
    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut turn = 0;
    play.run(1, |play| {
        let visitas = &play.web[0];
        fault(
            turn,
            &cluster,
            &database,
            &mut redis,
            [&to_database, &to_redis],
        );
        turn += 1;
        play.visits_go_on();
        sample(visitas, began, &mut samples, began + BETWEEN * turn);
    });
    let allow = Allow {
        redis_forgets: true,
        ..Allow::default()
    };
    let account = play
        .end(&Rows::Database(&database), Some(&redis))
        .allow(allow);
    account.check();
    let window = WINDOW.min(time / 4);
    let end = samples.last().expect("samples").after;
    let first = summary(&samples, WARM_UP..WARM_UP + window);
    let last = summary(&samples, end.saturating_sub(window)..end);
    let soak = Soak {
        account,
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

/// A fault, over when this returns.
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

/// Looks at the process until `until`.
fn sample(visitas: &Visitas, began: Instant, samples: &mut Vec<Sample>, until: Instant) {
    loop {
        samples.push(Sample::of(visitas.pid(), began.elapsed()));
        if Instant::now() >= until {
            return;
        }
        std::thread::sleep(SAMPLE);
    }
}

/// The most memory of a window, and its usual number of descriptors and threads: a look-up or a new
/// connection adds one for a moment.
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

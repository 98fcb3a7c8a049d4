//! Ten thousand idle connections take at most 9 kB each and do not slow visits down. Slow:
//! `scripts/test-clients` runs this with the release build.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::request;
use crate::support::tools::{may_open, output, tool};
use crate::support::{LIMIT, Settings, Visitas, machine, within};

const COUNT: usize = 10_000;
/// The memory of an idle connection, with everything that belongs to it.
const BYTES_EACH: usize = 9_000;
/// Pairs of runs with and without idle connections. The best ones are compared, since other
/// programs only make a run slower.
const PAIRS: usize = 4;

fn resident_bytes(visitas: &Visitas) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", visitas.pid())).expect("its status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    1024 * line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<usize>().ok())
        .expect("a number")
}

/// An open connection after this request and its answer, or without any request. It is a plain
/// socket, since ten thousand must be made quickly.
fn stay(port: u16, sent: &str) -> TcpStream {
    let mut stream =
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time-out");
    if sent.is_empty() {
        return stream;
    }
    stream.write_all(sent.as_bytes()).expect("a request sent");
    let mut answer = [0; 16 * 1024];
    let length = stream.read(&mut answer).expect("an answer");
    assert!(
        answer[..length].starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&answer[..length])
    );
    stream
}

fn idle(visitas: &Visitas, sent: &str) -> Vec<TcpStream> {
    (0..COUNT).map(|_| stay(visitas.port(), sent)).collect()
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn an_idle_connection_takes_little_memory_after_any_request() {
    if !may_open(COUNT) {
        return;
    }
    let _machine = machine();
    let bodied =
        "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            .to_owned();
    let json = [
        ("Accept", "application/json"),
        ("Accept-Language", "en;q=0.5, pt"),
    ];
    for (access_log, sent) in [
        ("off", String::new()),
        ("off", request("GET", "/livez", &[])),
        ("off", request("GET", "/", &[("Accept", "text/html")])),
        ("off", request("GET", "/", &json)),
        ("off", request("GET", "/stats", &[])),
        ("off", request("GET", "/metrics", &[])),
        ("off", bodied),
        ("on", request("GET", "/?some=thing", &json)),
    ] {
        let settings = Settings::new()
            .set("ACCESS_LOG", access_log)
            .set("IDLE_TIMEOUT", "300s");
        let visitas = settings.start();
        // The process grows once for connections in parallel; that is not counted.
        drop(
            (0..300)
                .map(|_| stay(visitas.port(), &sent))
                .collect::<Vec<_>>(),
        );
        within(LIMIT, "these to be gone", || {
            crate::metrics::metrics(&visitas).sum("visitas_connections") <= 1.0
        });
        let before = resident_bytes(&visitas);
        let idle = idle(&visitas, &sent);
        within(LIMIT, "all of them to be accepted", || {
            crate::metrics::metrics(&visitas).sum("visitas_connections") >= COUNT as f64
        });
        let each = (resident_bytes(&visitas) - before) / idle.len();
        println!(
            "{each} bytes for each of {COUNT} connections after {:?}",
            sent.lines().next()
        );
        assert!(
            each <= BYTES_EACH,
            "{each} bytes for each connection after {sent:?}"
        );
    }
}

/// Visits per second by 64 clients.
fn rate(visitas: &Visitas, wrk: &std::path::Path) -> f64 {
    let url = format!("http://127.0.0.1:{}/", visitas.port());
    let report = output(Command::new(wrk).args(["-t2", "-c64", "-d2s", &url]));
    assert!(
        !report.contains("Non-2xx") && !report.contains("Socket errors"),
        "{report}"
    );
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"))
        .expect("a rate");
    line.trim().parse().expect("a number")
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn idle_connections_do_not_slow_visits_down() {
    let Some(wrk) = tool("wrk") else { return };
    if !may_open(COUNT) {
        return;
    }
    let _machine = machine();
    let visitas = Settings::new().set("IDLE_TIMEOUT", "300s").start();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        without.push(rate(&visitas, &wrk));
        let idle = idle(&visitas, &request("GET", "/livez", &[]));
        with.push(rate(&visitas, &wrk));
        drop(idle);
        within(LIMIT, "the connections to be closed", || {
            crate::metrics::metrics(&visitas).sum("visitas_connections") <= 1.0
        });
    }
    println!("visits a second without {without:.0?}, with {COUNT} idle connections {with:.0?}");
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    assert!(
        best(&with) >= 0.9 * best(&without),
        "visits a second without {without:.0?}, with {with:.0?}"
    );
}

/// Clients that send requests without end and without waiting for answers.
const GREEDY: usize = 8;
const SLICE: Duration = Duration::from_secs(2);

/// Rounds, in each of which every route is requested. The best of each route's are compared, since
/// other programs only make a round slower.
const ROUNDS: usize = 3;

/// The 99th percentile of visit times while greedy clients request this path.
fn p99_beside(visitas: &Visitas, path: &str) -> Duration {
    let many = request("GET", path, &[]).repeat(64);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..GREEDY {
            let stream =
                TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, visitas.port())));
            let mut stream = stream.expect("a connection");
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("a time-out");
            let mut writer = stream.try_clone().expect("the same connection");
            let (many, stop) = (&many, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && writer.write_all(many.as_bytes()).is_ok() {}
                let _ = writer.shutdown(std::net::Shutdown::Both);
            });
            scope.spawn(move || {
                let mut answers = [0; 64 * 1024];
                while matches!(stream.read(&mut answers), Ok(1..)) {}
            });
        }
        let end = Instant::now() + SLICE;
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let (mut client, mut times) = (visitas.connect(), Vec::new());
                    while Instant::now() < end {
                        let start = Instant::now();
                        client.try_visit().expect("an answer").counts();
                        times.push(start.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times: Vec<Duration> = visitors
            .into_iter()
            .flat_map(|visitor| visitor.join().expect("a visitor"))
            .collect();
        stop.store(true, Ordering::Relaxed);
        times.sort_unstable();
        times[times.len() * 99 / 100]
    })
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn no_route_requested_without_end_slows_visits_down() {
    if !may_open(COUNT) {
        return;
    }
    let _machine = machine();
    let settings = Settings::new().set("IDLE_TIMEOUT", "600s");
    let visitas = settings.set("COUNTERS", "*").start();
    let _idle = idle(&visitas, &request("GET", "/livez", &[]));
    let paths = [
        "/livez",
        "/counters",
        "/c/a",
        "/c/a/history",
        "/metrics",
        "/stats",
        "/history",
        "/history?by=day",
        "/history?format=html",
        "/badge.svg",
        "/",
        "/readyz?verbose",
    ];
    let mut best = paths.map(|_| Duration::MAX);
    for _ in 0..ROUNDS {
        for (path, best) in paths.iter().zip(&mut best) {
            *best = p99_beside(&visitas, path).min(*best);
        }
    }
    println!("99 of 100 visits take, beside each: {paths:?} {best:?}");
    for (path, beside) in paths.iter().zip(best).skip(1) {
        assert!(
            beside <= 3 * best[0],
            "{path}: {beside:?}, beside {}: {:?}",
            paths[0],
            best[0]
        );
    }
}

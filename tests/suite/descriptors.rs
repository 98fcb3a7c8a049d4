//! Out of file descriptors: idle connections make room, one log line, no busy loop, and recovery.

use std::process::Command;
use std::time::Duration;

use crate::metrics::metrics;
use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::process::cpu_time;
use crate::support::{Client, Cluster, LIMIT, Settings, Visitas, machine, within};

const PRLIMIT: &str = "/usr/bin/prlimit";

/// Sets the limit of a running process on open files, up to its hard limit.
fn allow(visitas: &Visitas, files: usize) {
    let status = Command::new(PRLIMIT)
        .args([
            format!("--pid={}", visitas.pid()),
            format!("--nofile={files}:"),
        ])
        .status()
        .expect("prlimit runs");
    assert!(status.success(), "prlimit: {status}");
}

fn open_files(visitas: &Visitas) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", visitas.pid()))
        .expect("its open files")
        .count()
}

/// Allows it no more open files than it has.
fn allow_no_more(visitas: &Visitas) {
    let free = || {
        let names = std::fs::read_dir(format!("/proc/{}/fd", visitas.pid()))
            .expect("its open files")
            .flatten();
        let open: Vec<usize> = names
            .filter_map(|name| name.file_name().to_str()?.parse().ok())
            .collect();
        (0..)
            .find(|number| !open.contains(number))
            .expect("a free number")
    };
    // The next file gets the lowest free number. Now and then it opens one for a moment, to measure
    // itself.
    allow(visitas, (0..100).map(|_| free()).min().expect("a number"));
}

fn lines_about<'a>(lines: &'a [String], what: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.contains(what)).collect()
}

#[test]
fn fewer_connections_than_configured_are_logged_at_start() {
    let visitas = Settings::new()
        .through(&[PRLIMIT, "--nofile=100:100"])
        .start();
    let said = "connections are served";
    visitas.logged(&[said, "16384", "RLIMIT_NOFILE"]);
    let lines = visitas.stderr().all();
    assert_eq!(lines_about(&lines, said).len(), 1, "{lines:#?}");
    let enough = Settings::new()
        .through(&[PRLIMIT, "--nofile=100:100"])
        .set("MAX_CONNECTIONS", 10)
        .start();
    assert!(
        lines_about(&enough.stderr().all(), "connections are served").is_empty(),
        "{}",
        enough.output()
    );
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let visitas = Settings::new()
        .through(&[PRLIMIT, "--nofile=50:2000"])
        .set("MAX_CONNECTIONS", 300)
        .start();
    let mut clients: Vec<Client> = (0..200).map(|_| visitas.connect()).collect();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.get("/livez").status, 200));
    assert!(
        lines_about(&visitas.stderr().all(), "connections are served").is_empty(),
        "{}",
        visitas.output()
    );
}

#[test]
fn too_few_for_one_connection_is_an_error() {
    let ended = Settings::new().through(&[PRLIMIT, "--nofile=34:34"]).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("RLIMIT_NOFILE"), "{ended:?}");
}

#[test]
fn with_few_descriptors_idle_connections_are_evicted() {
    let visitas = Settings::new()
        .through(&[PRLIMIT, "--nofile=80:80"])
        .start();
    // Far more than fit: each one is served, and the longest idle ones are closed.
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..300 {
        let mut client = visitas.connect();
        let response = client
            .try_visit()
            .unwrap_or_else(|why| panic!("client {number}: {why:?}\n{}", visitas.output()));
        assert_eq!(response.status, 200, "client {number}: {response:?}");
        clients.push(client);
    }
    assert_eq!(visitas.stats().total, 300);
    assert!(open_files(&visitas) <= 80);
    assert_eq!(
        clients[0].closed_within(ANSWER_LIMIT),
        b"",
        "the first is closed without an answer"
    );
    assert_eq!(
        clients[299].try_visit().expect("the last stayed").status,
        200
    );
}

#[test]
fn without_descriptors_idle_connections_are_evicted_and_nothing_spins() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", "30s")
        .start();
    let mut clients = vec![visitas.connect()];
    assert_eq!(clients[0].get("/livez").status, 200);
    assert!(
        clients[0].silent_for(Duration::from_millis(150)),
        "idle for longer than all others"
    );
    clients.extend((1..40).map(|_| visitas.connect()));
    clients
        .iter_mut()
        .skip(1)
        .for_each(|client| assert_eq!(client.get("/livez").status, 200));
    let mark = visitas.stderr().mark();
    allow_no_more(&visitas);
    // Without newcomers nothing is closed and nothing is logged.
    assert!(
        clients[0].silent_for(Duration::from_millis(300)),
        "closed without a newcomer"
    );
    assert_eq!(visitas.stderr().since(mark), Vec::<String>::new());
    assert_eq!(
        clients[39].get("/livez").status,
        200,
        "idle for the shortest"
    );
    // A newcomer closes the longest idle one. A store's connection may have been closed, and its
    // descriptor serves the first newcomer.
    let mut newcomers: Vec<Client> = Vec::new();
    within(LIMIT, "the first to go", || {
        newcomers.push(visitas.connect());
        assert_eq!(
            newcomers
                .last_mut()
                .map(|client| client.get("/livez").status),
            Some(200)
        );
        !clients[0].silent_for(Duration::from_millis(1))
    });
    assert!(
        newcomers.len() < 5,
        "{} newcomers before one was closed",
        newcomers.len()
    );
    drop(newcomers);
    assert_eq!(visitas.visit().total, 1);
    assert_eq!(clients[39].get("/livez").status, 200, "the last one stays");
    // With no idle connection newcomers wait.
    let most = 20_000.min(hard_limit(&visitas));
    allow(&visitas, most);
    let (mut watcher, held) = (database.superuser(), database.hold_inserts());
    let mut busy: Vec<Client> = clients.drain(20..).collect();
    // Several may have been closed.
    busy.retain_mut(|client| client.try_request("GET", "/livez", &[]).is_ok());
    let visits = busy.len() as u64;
    assert!(visits > 10, "only {visits} clients left");
    let visit = request("GET", "/", &[("Accept", "application/json")]);
    busy[0].send(&visit);
    within(LIMIT, "the first to be committed", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    busy[1..].iter_mut().for_each(|client| client.send(&visit));
    within(LIMIT, "the others to wait", || {
        crate::metrics::queued(&visitas) == (visits - 1) as f64
    });
    allow(&visitas, 4);
    drop(clients);
    // accept(2) may hold a descriptor that it reserved before; this connection gets it.
    let _first = visitas.connect();
    let mut waiting: Vec<Client> = (0..10).map(|_| visitas.connect()).collect();
    waiting
        .iter_mut()
        .for_each(|client| client.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
    let before = cpu_time(visitas.pid());
    assert!(
        waiting[9].silent_for(Duration::from_secs(2)),
        "an answer without a descriptor"
    );
    let spent = cpu_time(visitas.pid()) - before;
    assert!(
        spent <= Duration::from_millis(100),
        "{spent:?} of CPU time in 2 s without work"
    );
    held.release();
    busy.iter_mut()
        .for_each(|client| assert_eq!(client.read().status, 200, "a connected client"));
    allow(&visitas, most);
    for client in &mut waiting {
        let answer = client
            .try_read(false)
            .unwrap_or_else(|why| panic!("{why:?}\n{}", visitas.output()));
        assert_eq!(answer.status, 200);
    }
    assert_eq!(
        visitas.visit().total,
        visits + 2,
        "two by newcomers, the others by the busy ones"
    );
    let lines = visitas.stderr().since(mark);
    assert_eq!(
        lines_about(&lines, "cannot be accepted").len(),
        1,
        "{lines:#?}"
    );
    within(LIMIT, "all but the busy and the waiting to be gone", || {
        metrics(&visitas).sum("visitas_connections") <= 33.0
    });
}

fn hard_limit(visitas: &Visitas) -> usize {
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", visitas.pid())).expect("its limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a limit on files");
    line.split_whitespace()
        .nth(4)
        .and_then(|hard| hard.parse().ok())
        .expect("a number")
}

#[test]
fn too_little_memory_for_the_stacks_is_logged_and_survived() {
    // Address space for a few hundred stacks.
    let visitas = Settings::new()
        .through(&[PRLIMIT, "--as=1200000000"])
        .start();
    visitas.logged(&["RLIMIT_AS"]);
    let lines = visitas.stderr().all();
    assert_eq!(lines_about(&lines, "RLIMIT_AS").len(), 1, "{lines:#?}");
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3000 {
        let mut client = visitas.connect();
        assert_eq!(client.get("/livez").status, 200, "{}", visitas.output());
        clients.push(client);
    }
    assert_eq!(visitas.visit().total, 1);
}

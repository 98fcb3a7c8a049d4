//! Ten thousand connections visit at once: each one is answered, each 200 is a row, and later
//! visits are as fast as before.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::client::request;
use crate::support::tools::may_open;
use crate::support::{Cluster, LIMIT, Settings, Visitas, machine, within};

const VISITORS: usize = 10_000;
/// A short queue, and the visits that may be in flight besides (`MAX_BATCH` in src/visits/lane).
const QUEUE: usize = 1000;
const LARGEST_BATCH: usize = 1024;

fn connect(port: u16) -> TcpStream {
    let stream =
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a time-out");
    stream
}

/// The status of the answer.
fn status(stream: &mut TcpStream) -> u16 {
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let length = stream.read(&mut chunk).expect("an answer");
        assert!(
            length > 0,
            "closed without an answer: {}",
            String::from_utf8_lossy(&answer)
        );
        answer.extend_from_slice(&chunk[..length]);
    }
    let line = String::from_utf8_lossy(&answer);
    line.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status: {line}"))
}

/// The median time of fifty visits in a row.
fn usual(visitas: &Visitas) -> Duration {
    let mut client = visitas.connect();
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(client.try_visit().expect("an answer").status, 200);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Sends one visit over each connection.
fn storm(visitas: &Visitas) -> Vec<TcpStream> {
    let sent = request("GET", "/", &[("Accept", "application/json")]);
    let mut visitors: Vec<TcpStream> = (0..VISITORS).map(|_| connect(visitas.port())).collect();
    visitors
        .iter_mut()
        .for_each(|visitor| visitor.write_all(sent.as_bytes()).expect("a visit sent"));
    visitors
}

/// Whether there is something to read.
fn is_answered(visitor: &TcpStream) -> bool {
    visitor.set_nonblocking(true).expect("a socket");
    let answered = visitor.peek(&mut [0]).is_ok();
    visitor.set_nonblocking(false).expect("a socket");
    answered
}

/// The number of counted visits; all others must be refused.
fn counted(visitors: &mut [TcpStream]) -> u64 {
    let statuses: Vec<u16> = visitors.iter_mut().map(status).collect();
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 503)),
        "answers of another kind"
    );
    statuses.iter().filter(|status| **status == 200).count() as u64
}

#[test]
fn ten_thousand_visits_at_once_are_all_counted() {
    if !may_open(VISITORS) {
        return;
    }
    let _machine = machine();
    let database = Cluster::shared().database();
    // A long deadline: a loaded machine may take its time.
    let visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", "30s")
        .start();
    let before = usual(&visitas);
    let rows = database.rows();
    assert_eq!(
        counted(&mut storm(&visitas)),
        VISITORS as u64,
        "the queue has room for all"
    );
    assert_eq!(
        database.rows(),
        rows + VISITORS as u64,
        "every 200 is a row, and there is no other"
    );
    // Closing ten thousand connections takes a moment.
    let is_quick = || usual(&visitas) <= before * 3 + Duration::from_millis(5);
    within(LIMIT, "visits to be as quick as they were", is_quick);
    assert_eq!(visitas.stats().total, database.rows());
}

#[test]
fn visits_beyond_a_short_queue_are_refused_at_once() {
    if !may_open(VISITORS) {
        return;
    }
    let _machine = machine();
    let database = Cluster::shared().database();
    let settings = Settings::new()
        .postgres(&database)
        .set("MAX_QUEUE", QUEUE)
        .set("REQUEST_TIMEOUT", "30s");
    let visitas = settings.start();
    let held = database.hold_inserts();
    let mut visitors = storm(&visitas);
    // Nothing can be committed, so all but the queue and the batch in flight are refused.
    let at_least = VISITORS - QUEUE - LARGEST_BATCH;
    let refused = || {
        visitors
            .iter()
            .filter(|visitor| is_answered(visitor))
            .count()
            >= at_least
    };
    within(LIMIT, "refusals", refused);
    held.release();
    let counted = counted(&mut visitors);
    assert!(
        (QUEUE..=QUEUE + LARGEST_BATCH).contains(&(counted as usize)),
        "{counted} were counted"
    );
    assert_eq!(
        database.rows(),
        counted,
        "every 200 is a row, and there is no other"
    );
}

//! Limits of one connection: sizes, deadlines, fairness and memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, LIMIT, Settings, Visitas, machine, within};

const LINE: usize = 8 * 1024;
const FIELDS: usize = 32 * 1024;
const COUNT: usize = 128;
const BODY: usize = 64 * 1024;
/// Longer than the time-outs that these tests set, and below the defaults.
const BELOW_DEFAULTS: Duration = Duration::from_secs(8);

/// A request for a missing page, with a request line and a header section of these lengths.
fn sized(line: usize, fields: usize, count: usize) -> String {
    let line = format!(
        "GET /{} HTTP/1.1\r\n",
        "a".repeat(line - "GET / HTTP/1.1".len())
    );
    let many = "X:\r\n".repeat(count - 2);
    let last = fields - "Host: a\r\n".len() - many.len() - "X: \r\n\r\n".len();
    format!("{line}Host: a\r\n{many}X: {}\r\n\r\n", "a".repeat(last))
}

#[track_caller]
fn status_of(visitas: &Visitas, sent: &str) -> u16 {
    let mut client = visitas.connect();
    let _ = client.try_send(sent);
    let response = client
        .try_read(false)
        .unwrap_or_else(|why| panic!("{why:?} to {} bytes", sent.len()));
    if response.status != 404 {
        response.sentence();
        assert_eq!(
            client.closed_within(ANSWER_LIMIT),
            b"",
            "{}: more than a refusal",
            response.status
        );
    }
    response.status
}

#[test]
fn sizes_are_bounded_to_the_byte() {
    let visitas = Settings::new().start();
    assert_eq!(status_of(&visitas, &sized(LINE, FIELDS, COUNT)), 404);
    assert_eq!(status_of(&visitas, &sized(LINE + 1, 100, 3)), 414);
    assert_eq!(status_of(&visitas, &sized(100, FIELDS + 1, 3)), 431);
    assert_eq!(status_of(&visitas, &sized(100, 2000, COUNT + 1)), 431);
    let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\n";
    let body = "x".repeat(BODY);
    assert_eq!(
        status_of(
            &visitas,
            &format!("{head}Content-Length: {BODY}\r\n\r\n{body}")
        ),
        404
    );
    assert_eq!(
        status_of(
            &visitas,
            &format!("{head}Content-Length: {}\r\n\r\n{body}x", BODY + 1)
        ),
        413
    );
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!(
        status_of(
            &visitas,
            &format!("{chunked}{BODY:x}\r\n{body}\r\n0\r\n\r\n")
        ),
        404
    );
    assert_eq!(
        status_of(
            &visitas,
            &format!("{chunked}{BODY:x}\r\n{body}\r\n1\r\nx\r\n0\r\n\r\n")
        ),
        413
    );
    assert_eq!(
        status_of(&visitas, &format!("{chunked}1;{body}")),
        413,
        "an extension that takes more than any data"
    );
    assert_eq!(
        status_of(
            &visitas,
            &format!("{chunked}0\r\n{}", "a:b\r\n".repeat(BODY / 5))
        ),
        413,
        "trailers"
    );
}

#[test]
fn a_client_that_still_sends_can_read_its_refusal() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    // More than all buffers hold unless the server reads it.
    for _ in 0..15 {
        client.send("x".repeat(8 * 1024));
    }
    let response = client.read();
    assert_eq!(response.status, 413, "{response:?}");
    client.send("x".repeat(8 * 1024));
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
}

#[test]
fn a_slow_client_can_read_its_refusal() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "200ms").start();
    let mut client = visitas.connect();
    client.send("GET / HTTP/1.1\r\nX: ");
    assert_eq!(client.read().status, 408);
    // It keeps sending, like a client that has not read the answer yet.
    for _ in 0..10 {
        assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
        client.send("x");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_body_has_a_deadline_however_it_drips() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "400ms").start();
    for (head, drop) in [
        ("Content-Length: 1000", "x"),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n"),
    ] {
        let mut client = visitas.connect();
        let start = Instant::now();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"));
        while client.silent_for(Duration::from_millis(20)) {
            assert!(
                start.elapsed() < BELOW_DEFAULTS,
                "still accepted after {:?}",
                start.elapsed()
            );
            client.send(drop);
        }
        assert!(
            start.elapsed() >= Duration::from_millis(350),
            "{head}: {:?}",
            start.elapsed()
        );
        assert_eq!(client.read().status, 408, "{head}");
    }
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn the_deadline_of_a_head_begins_with_its_first_byte() {
    let visitas = Settings::new()
        .set("HEADER_TIMEOUT", "400ms")
        .set("IDLE_TIMEOUT", "10s")
        .start();
    let mut client = visitas.connect();
    // The deadline does not run without a request, neither before the first one nor after it.
    assert!(client.silent_for(Duration::from_millis(600)));
    assert_eq!(client.get("/livez").status, 200);
    assert!(client.silent_for(Duration::from_millis(600)));
    let start = Instant::now();
    client.send("\r\n");
    assert_eq!(
        client.closed_within(ANSWER_LIMIT),
        b"",
        "an answer without a request"
    );
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(350)..BELOW_DEFAULTS).contains(&took),
        "closed after {took:?}"
    );
}

fn open_connections(visitas: &Visitas) -> f64 {
    crate::metrics::metrics(visitas).sum("visitas_connections")
}

#[test]
fn a_client_that_reads_nothing_is_closed() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "500ms").start();
    let before = open_connections(&visitas);
    let many = request("GET", "/metrics", &[]).repeat(4000);
    let mut deaf: Vec<Client> = (0..4).map(|_| visitas.connect()).collect();
    let senders: Vec<_> = deaf
        .drain(..)
        .map(|mut client| {
            let many = many.clone();
            std::thread::spawn(move || (client.try_send(&many).is_err(), client))
        })
        .collect();
    within(LIMIT, "all of them to be closed", || {
        open_connections(&visitas) <= before
    });
    // The rest is dropped, and the client sees the end.
    for sender in senders {
        let (_, mut client) = sender.join().expect("a sender");
        client.closed_within(ANSWER_LIMIT);
    }
}

#[test]
fn a_client_that_never_closes_is_closed() {
    let visitas = Settings::new().start();
    let before = open_connections(&visitas);
    let mut client = visitas.connect();
    client.send(request("GET", "/livez", &[("Connection", "close")]));
    assert_eq!(client.read().status, 200);
    within(LIMIT, "the connection to be closed", || {
        open_connections(&visitas) <= before
    });
}

/// One client sends a thousand requests at once, another one after the other. Gives whether one of
/// the latter is answered among the thousand, by the order of the log. The answers fit into the
/// system's buffers, so nothing waits for a reader.
fn is_overtaken(visitas: &Visitas) -> bool {
    const MANY: usize = 1000;
    let (mut greedy, mut modest) = (visitas.connect(), visitas.connect());
    let mark = visitas.stderr().mark();
    let is_many = |line: &String| line.contains(" HEAD /many ");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(modest.request("HEAD", "/one", &[]).status, 404);
            }
        });
        within(LIMIT, "the modest one", || {
            visitas.stderr().mark() > mark + 5
        });
        greedy.send("HEAD /many HTTP/1.1\r\nHost:\r\n\r\n".repeat(MANY));
        within(LIMIT, "all", || {
            visitas
                .stderr()
                .since(mark)
                .iter()
                .filter(|line| is_many(line))
                .count()
                == MANY
        });
        done.store(true, Ordering::Relaxed);
    });
    let log = visitas.stderr().since(mark);
    let (first, last) = (log.iter().position(is_many), log.iter().rposition(is_many));
    last.zip(first)
        .is_some_and(|(last, first)| last - first >= MANY)
}

#[test]
fn a_connection_with_many_requests_yields_to_others() {
    let _machine = machine();
    let visitas = Settings::new()
        .set("WORKERS", 1)
        .set("ACCESS_LOG", "on")
        .start();
    let overtaken = (0..20).filter(|_| is_overtaken(&visitas)).count();
    // Without a yield this is 0. On a loaded machine the other client may often be too late.
    assert!(overtaken >= 3, "in {overtaken} of 20 tries");
}

#[test]
fn a_head_in_many_pieces_costs_little() {
    let visitas = Settings::new().set("WORKERS", 1).start();
    let cpu = || crate::support::process::cpu_time(visitas.pid());
    let mut client = visitas.connect();
    let head = sized(4000, 20_000, 100);
    let before = cpu();
    for byte in head.as_bytes().chunks(7) {
        client.send(byte);
    }
    assert_eq!(client.read().status, 404);
    let spent = cpu() - before;
    // Parsing it again for every piece would parse some hundred megabytes.
    assert!(
        spent < Duration::from_millis(400),
        "{spent:?} of processor time"
    );
}

//! Where a request ends: a body is never taken for a request, and endless input is refused.

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Settings, Visitas};

/// A request for a visit that must not be answered, since it is part of a body.
const SMUGGLED: &str = "GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n";

/// `sent` gets one answer with this status and adds `visits` to the total. The next request on the
/// connection gets its own answer.
#[track_caller]
fn is_one_request(visitas: &Visitas, sent: &str, status: u16, visits: u64) {
    let before = visitas.stats().total;
    let mut client = visitas.connect();
    client.send(sent);
    client.send(request("GET", "/robots.txt", &[]));
    let first = client.read();
    assert_eq!(first.status, status, "{sent:?}: {first:?}");
    let next = client.read();
    assert!(
        next.text().starts_with("User-agent"),
        "{sent:?}: the next answer: {next:?}"
    );
    assert_eq!(visitas.stats().total - before, visits, "{sent:?}");
}

fn with_length(line: &str, body: &str) -> String {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The body in two chunks with an extension each.
fn chunked(line: &str, body: &str, trailer: &str) -> String {
    let (one, two) = body.split_at(body.len() / 2);
    let chunk = |part: &str| format!("{:x};note=\"1\"\r\n{part}\r\n", part.len());
    let chunks = chunk(one) + &chunk(two) + "0\r\n";
    format!("{line} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{trailer}\r\n")
}

#[test]
fn a_body_is_not_a_request() {
    let visitas = Settings::new().start();
    for body in [SMUGGLED, "x", "\r\n\r\n"] {
        is_one_request(&visitas, &with_length("GET /", body), 200, 1);
        is_one_request(&visitas, &with_length("POST /", body), 405, 0);
        is_one_request(&visitas, &with_length("GET /nowhere", body), 404, 0);
    }
    for trailer in ["", "X-Trailer: GET / HTTP/1.1\r\n"] {
        is_one_request(&visitas, &chunked("GET /", SMUGGLED, trailer), 200, 1);
        is_one_request(&visitas, &chunked("POST /", SMUGGLED, trailer), 405, 0);
    }
}

/// `sent` gets one answer, a refusal with a sentence, and then the connection is closed.
#[track_caller]
fn is_refused(visitas: &Visitas, sent: impl AsRef<[u8]>, status: u16) {
    let mut client = visitas.connect();
    // The server may close the connection before everything is sent.
    let _ = client.try_send(&sent);
    let response = client.read();
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.header("Connection"), Some("close"), "{response:?}");
    response.sentence();
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"", "a second answer");
}

#[test]
fn endless_input_is_refused_before_its_end() {
    let visitas = Settings::new().start();
    let long = "x".repeat(1 << 20);
    is_refused(&visitas, format!("GET /?{long}"), 414);
    let head = "GET / HTTP/1.1\r\nHost: x\r\n";
    is_refused(&visitas, format!("{head}X: {long}"), 431);
    is_refused(&visitas, head.to_owned() + &"X: y\r\n".repeat(5000), 431);
    let chunk = "8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n";
    let chunks = chunk.repeat(200);
    let endless = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    is_refused(&visitas, endless, 413);
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn a_tls_handshake_is_refused() {
    let visitas = Settings::new().start();
    let client_hello = [
        0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, b'\r', b'\n', b'\r', b'\n',
    ];
    is_refused(&visitas, client_hello, 400);
}

#[test]
fn a_large_header_takes_no_memory() {
    let visitas = Settings::new().start();
    let resident_kib = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", visitas.pid()));
        let status = status.expect("its status");
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|kib| kib.parse().ok()).expect("its memory")
    };
    let before = resident_kib();
    let long = "x".repeat(1 << 20);
    let mut senders: Vec<Client> = (0..20).map(|_| visitas.connect()).collect();
    for client in &mut senders {
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: x\r\nX: ");
        let _ = client.try_send(&long);
    }
    assert_eq!(visitas.get("/livez").status, 200);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more for 20 headers of 1 MiB");
}

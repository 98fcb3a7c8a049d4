//! Where a request ends: bodies are read and not taken for requests, and whatever leaves a doubt is
//! refused and closed.

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Settings, Visitas};

/// Sends that, and reads the one answer there has to be: a refusal with a sentence, after which the
/// connection closes.
#[track_caller]
fn is_refused(visitas: &Visitas, sent: impl AsRef<[u8]>, statuses: &[u16]) {
    let shown =
        String::from_utf8_lossy(&sent.as_ref()[..sent.as_ref().len().min(200)]).into_owned();
    let mut client = visitas.connect();
    // The server may refuse and close before it has all of it.
    let _ = client.try_send(&sent);
    let response = client
        .try_read(false)
        .unwrap_or_else(|why| panic!("{shown:?}: {why:?}\n{}", visitas.output()));
    assert!(
        statuses.contains(&response.status),
        "{shown:?}: {response:?}"
    );
    assert_eq!(
        response.header("Connection"),
        Some("close"),
        "{shown:?}: {response:?}"
    );
    response.sentence();
    assert_eq!(
        client.closed_within(ANSWER_LIMIT),
        b"",
        "{shown:?}: more than one answer"
    );
}

#[test]
fn malformed_requests_are_refused() {
    let visitas = Settings::new().start();
    for malformed in [
        "\0\0\0\0\r\n\r\n",
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        is_refused(&visitas, malformed, &[400]);
    }
    is_refused(
        &visitas,
        [
            0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, b'\r', b'\n', b'\r', b'\n',
        ],
        &[400],
    );
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn a_request_needs_one_host() {
    let visitas = Settings::new().start();
    is_refused(&visitas, "GET / HTTP/1.1\r\n\r\n", &[400]);
    is_refused(
        &visitas,
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        &[400],
    );
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn other_versions_are_refused() {
    let visitas = Settings::new().start();
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2x", "http/1.1"] {
        is_refused(
            &visitas,
            format!("GET / {version}\r\nHost: x\r\n\r\n"),
            &[400, 505],
        );
    }
    is_refused(&visitas, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]);
    assert_eq!(visitas.stats().total, 0);
}

/// A request for a visit that must never be answered, since it is part of a body.
const SMUGGLED: &str = "GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n";

/// After `sent` the next request on the connection is answered as itself, and nothing was counted
/// but `visits`.
#[track_caller]
fn is_one_request(visitas: &Visitas, sent: &str, status: u16, visits: u64) {
    let before = visitas.stats().total;
    let mut client = visitas.connect();
    client.send(sent);
    client.send(request("GET", "/robots.txt", &[]));
    let first = client
        .try_read(false)
        .unwrap_or_else(|why| panic!("{sent:?}: {why:?}"));
    assert_eq!(first.status, status, "{sent:?}: {first:?}");
    if first.header("Connection") == Some("close") {
        assert_eq!(
            client.closed_within(ANSWER_LIMIT),
            b"",
            "{sent:?}: an answer after the last one"
        );
    } else {
        assert!(
            client
                .read()
                .text()
                .to_lowercase()
                .starts_with("user-agent"),
            "{sent:?}: the next answer"
        );
    }
    assert_eq!(visitas.stats().total - before, visits, "{sent:?}");
}

fn with_length(line: &str, body: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunked(line: &str, body: &str, trailer: &str) -> String {
    let (one, two) = body.split_at(body.len() / 2);
    let chunk = |part: &str| format!("{:x};note=\"1\"\r\n{part}\r\n", part.len());
    format!(
        "{line} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n{trailer}\r\n",
        chunk(one),
        chunk(two)
    )
}

#[test]
fn a_body_is_not_a_request() {
    let visitas = Settings::new().start();
    for body in [SMUGGLED, "x", "\r\n\r\n"] {
        is_one_request(&visitas, &with_length("GET /", body), 200, 1);
        is_one_request(&visitas, &with_length("POST /", body), 405, 0);
        is_one_request(&visitas, &with_length("GET /nowhere", body), 404, 0);
    }
    is_one_request(&visitas, &with_length("GET /", ""), 200, 1);
    for trailer in ["", "X-Trailer: GET / HTTP/1.1\r\n"] {
        is_one_request(&visitas, &chunked("GET /", SMUGGLED, trailer), 200, 1);
        is_one_request(&visitas, &chunked("POST /", SMUGGLED, trailer), 405, 0);
    }
    is_one_request(
        &visitas,
        "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        200,
        0,
    );
}

#[test]
fn a_body_may_come_in_any_pieces() {
    let visitas = Settings::new().start();
    let body = "GET / HTTP/1.1\r\n\r\n";
    for sent in [with_length("POST /", body), chunked("POST /", body, "")] {
        for cut in 1..sent.len() {
            let mut client = visitas.connect();
            client.send(&sent[..cut]);
            client.send(&sent[cut..]);
            client.send(request("GET", "/livez", &[("Connection", "close")]));
            assert_eq!(client.read().status, 405, "cut at {cut}: {sent:?}");
            client.closed_within(ANSWER_LIMIT);
        }
    }
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn a_doubt_about_the_body_is_refused() {
    let visitas = Settings::new().start();
    let head =
        |fields: &str, body: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}");
    for (fields, body) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n",
        ),
        ("Content-Length: 5\r\nContent-Length: 6", "hello!"),
        ("Content-Length: 5, 6", "hello!"),
        ("Content-Length: -5", "hello"),
        ("Content-Length: +5", "hello"),
        ("Content-Length: 0x5", "hello"),
        ("Content-Length: five", "hello"),
        ("Content-Length:", "hello"),
        ("Content-Length: 99999999999999999999999999", "hello"),
        ("Transfer-Encoding: chunked", "x\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhello0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "-1\r\nhello\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked",
            "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked", "\r\n\r\n"),
    ] {
        is_refused(&visitas, head(fields, body), &[400, 413]);
    }
    for coding in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "xchunked",
        "chunked, chunked",
        "identity",
    ] {
        is_refused(
            &visitas,
            head(&format!("Transfer-Encoding: {coding}"), "0\r\n\r\n"),
            &[400, 501],
        );
    }
    // HTTP/1.0 has no transfer codings, so nobody can tell where this one ends.
    is_refused(
        &visitas,
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    );
    assert_eq!(visitas.stats().total, 0, "none of them is a visit");
}

#[test]
fn what_is_too_large_is_refused() {
    let visitas = Settings::new().start();
    let long = "x".repeat(1 << 20);
    is_refused(
        &visitas,
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        &[414],
    );
    is_refused(&visitas, format!("GET /?{long}"), &[414]);
    is_refused(
        &visitas,
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        &[431],
    );
    is_refused(
        &visitas,
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}"),
        &[431],
    );
    let many = "X: y\r\n".repeat(5000);
    is_refused(
        &visitas,
        format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        &[431],
    );
    is_refused(
        &visitas,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n",
        &[413],
    );
    is_refused(
        &visitas,
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n",
        &[413],
    );
    let endless = "8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n";
    let sent = "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
        + &endless.repeat(200);
    is_refused(&visitas, sent, &[413]);
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn a_large_header_takes_no_memory() {
    let visitas = Settings::new().start();
    let resident_kib = || -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", visitas.pid())).expect("its status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("its memory");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
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

#[test]
fn who_asks_before_sending_a_body_is_not_left_waiting() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let first = client.read();
    if first.status == 100 {
        client.send("hello");
        assert_eq!(client.read().status, 405);
    } else {
        assert!(matches!(first.status, 405 | 417), "{first:?}");
        assert_eq!(
            first.header("Connection"),
            Some("close"),
            "whether the body comes is not known: {first:?}"
        );
    }
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn after_a_refusal_nothing_more_is_read() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    let _ = client.try_send(format!("nonsense\r\n\r\n{SMUGGLED}{SMUGGLED}"));
    assert_eq!(client.read().status, 400);
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
    assert_eq!(visitas.stats().total, 0);
}

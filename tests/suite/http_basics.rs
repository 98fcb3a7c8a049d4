//! What clients rely on in HTTP/1.1: persistence, pipelining, dates, lengths, HEAD, deadlines.

use std::time::{Duration, Instant, SystemTime};

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{LIMIT, Settings, within};

/// Longer than the time-outs that these tests set, and below the defaults.
const BELOW_DEFAULTS: Duration = Duration::from_secs(8);

#[test]
fn a_connection_is_kept() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    for visit in 1..=20 {
        let response = client.try_visit().expect("an answer");
        assert_eq!(response.counts().total, visit);
        assert_ne!(response.header("Connection"), Some("close"));
        assert_eq!(client.get("/livez").status, 200);
        assert_eq!(
            client.get("/nowhere").status,
            404,
            "so does a refusal with clear framing"
        );
        assert_eq!(client.request("HEAD", "/", &[]).status, 200);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    let json = [("Accept", "application/json")];
    let mut all = String::new();
    for _ in 0..50 {
        all += &request("GET", "/", &json);
        all += &request("GET", "/livez", &[]);
        all += &request("GET", "/nowhere", &[]);
        all += &request("HEAD", "/", &[]);
    }
    client.send(&all);
    for visit in 1..=50 {
        assert_eq!(client.read().counts().total, visit);
        assert_eq!(
            client.read().header("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(client.read().status, 404);
        assert_eq!(
            client.try_read(true).expect("an answer to HEAD").status,
            200
        );
    }
    assert_eq!(visitas.stats().total, 50);
}

#[test]
fn a_request_may_come_in_pieces() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    let visit = request("GET", "/", &[("Accept", "application/json")]);
    for cut in 1..visit.len() {
        client.send(&visit[..cut]);
        client.send(&visit[cut..]);
        assert_eq!(client.read().counts().total as usize, cut);
    }
    let mut slow = visitas.connect();
    for byte in visit.bytes() {
        slow.send([byte]);
    }
    assert_eq!(slow.read().counts().total as usize, visit.len());
}

#[test]
fn a_hundred_headers_are_accepted() {
    let visitas = Settings::new().start();
    let names: Vec<String> = (0..98).map(|number| format!("X-Header-{number}")).collect();
    let mut headers: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), "some value"))
        .collect();
    headers.push(("Accept", "application/json"));
    // With Host these are a hundred.
    let response = visitas.request("GET", "/", &headers);
    assert_eq!(response.counts().total, 1);
}

#[test]
fn header_names_ignore_case_and_values_are_trimmed() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send(
        "GET / HTTP/1.1\r\nhOST:x\r\naCCEPT:\t application/json \t\r\nCONNECTION:  Close\r\n\r\n",
    );
    assert_eq!(client.read().counts().total, 1);
    client.closed_within(ANSWER_LIMIT);
}

#[test]
fn a_target_in_absolute_form_is_the_same_page() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    let json = [("Accept", "application/json")];
    for (visit, target) in (1..).zip(["http://visitas.example/", "http://visitas.example"]) {
        client.send(request("GET", target, &json));
        assert_eq!(client.read().counts().total, visit, "{target}");
    }
    client.send(request("GET", "http://visitas.example/livez?x", &[]));
    assert_eq!(client.read().status, 200);
}

#[test]
fn every_answer_has_the_date() {
    let visitas = Settings::new().start();
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/livez"),
        ("GET", "/nowhere"),
        ("POST", "/"),
    ] {
        let response = visitas.request(method, path, &[]);
        let date = response
            .header("Date")
            .unwrap_or_else(|| panic!("no Date: {response:?}"));
        // `Sun, 06 Nov 1994 08:49:37 GMT`, and not one of the obsolete forms.
        let shape: String = date
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert!(
            shape.len() == 29 && shape.contains(", 00 ") && shape.ends_with(" 0000 00:00:00 GMT"),
            "{date}"
        );
        let said = httpdate::parse_http_date(date).expect("a date");
        assert_eq!(httpdate::fmt_http_date(said), date);
        let now = SystemTime::now();
        let off = now
            .duration_since(said)
            .unwrap_or_else(|early| early.duration());
        assert!(off <= Duration::from_secs(5), "{date} is {off:?} off");
    }
}

#[test]
fn the_date_goes_on() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    let mut date = || {
        client
            .get("/livez")
            .header("Date")
            .expect("a Date")
            .to_owned()
    };
    let first = date();
    within(LIMIT, "the next second", || date() != first);
}

#[test]
fn the_length_is_that_of_the_body() {
    let visitas = Settings::new().start();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/stats"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("PUT", "/"),
    ] {
        let mut client = visitas.connect();
        client.send(request(method, path, &[("Connection", "close")]));
        let raw = String::from_utf8(client.closed_within(ANSWER_LIMIT)).expect("text");
        let (head, body) = raw.split_once("\r\n\r\n").expect("a head");
        let length = head.lines().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("content-length: ")
                .map(str::to_owned)
        });
        assert_eq!(
            length,
            Some(body.len().to_string()),
            "{method} {path}: {raw}"
        );
    }
}

#[test]
fn head_has_no_body() {
    let visitas = Settings::new().start();
    for path in [
        "/",
        "/stats",
        "/livez",
        "/readyz",
        "/metrics",
        "/favicon.svg",
        "/robots.txt",
        "/nowhere",
    ] {
        let mut client = visitas.connect();
        client.send(request("HEAD", path, &[("Connection", "close")]));
        let raw = String::from_utf8(client.closed_within(ANSWER_LIMIT)).expect("text");
        assert!(
            raw.ends_with("\r\n\r\n") && raw.matches("\r\n\r\n").count() == 1,
            "HEAD {path}: {raw}"
        );
    }
    let (get, head) = (
        visitas.get("/robots.txt"),
        visitas.request("HEAD", "/robots.txt", &[]),
    );
    let length = get.header("Content-Length");
    assert!(length.is_some(), "{get:?}");
    assert_eq!(
        head.header("Content-Length"),
        length,
        "as in the answer to GET"
    );
}

#[test]
fn http_1_0_closes_unless_it_says_keep_alive() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send("GET / HTTP/1.0\r\nAccept: application/json\r\n\r\n");
    assert_eq!(client.read().counts().total, 1, "it needs no Host");
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
    let mut kept = visitas.connect();
    for _ in 0..3 {
        kept.send("GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = kept.read();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("Connection"), Some("keep-alive"));
    }
}

#[test]
fn a_client_that_disconnects_does_no_harm() {
    let visitas = Settings::new().start();
    for _ in 0..50 {
        visitas.connect();
        let mut half = visitas.connect();
        half.send("GET / HTTP/1.1\r\nHost:");
        let mut unread = visitas.connect();
        unread.send(request("GET", "/", &[]));
    }
    // The unread visits may be counted or not. The server goes on with correct numbers.
    let first = visitas.visit().total;
    assert!((1..=51).contains(&first), "{first}");
    within(LIMIT, "the end of every visit", || {
        let (stats, metrics) = (visitas.stats().total, crate::metrics::metrics(&visitas));
        (metrics.sum("visitas_visits_total") - stats as f64).abs() < 0.5
    });
}

#[test]
fn a_slow_request_gets_408_and_is_closed() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "300ms").start();
    for part in [
        "G",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    ] {
        let mut client = visitas.connect();
        let start = Instant::now();
        client.send(part);
        let response = client.read();
        let took = start.elapsed();
        assert_eq!(response.status, 408, "{part:?}: {response:?}");
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(
            took >= Duration::from_millis(250) && took < BELOW_DEFAULTS,
            "{part:?}: after {took:?}"
        );
        client.closed_within(ANSWER_LIMIT);
    }
    assert_eq!(visitas.stats().total, 0, "half a visit does not count");
}

#[test]
fn a_drip_of_bytes_does_not_stretch_the_deadline() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "400ms").start();
    let mut client = visitas.connect();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nX: ");
    // One byte every 20 ms until an answer comes.
    while client.silent_for(Duration::from_millis(20)) {
        assert!(
            start.elapsed() < BELOW_DEFAULTS,
            "still waiting for a slow request after {:?}",
            start.elapsed()
        );
        if client.try_send("x").is_err() {
            break;
        }
    }
    assert!(
        start.elapsed() >= Duration::from_millis(350),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(client.read().status, 408);
}

#[test]
fn an_idle_connection_is_closed_without_an_answer() {
    let visitas = Settings::new().set("IDLE_TIMEOUT", "1s").start();
    let (mut used, mut unused) = (visitas.connect(), visitas.connect());
    assert_eq!(used.get("/livez").status, 200);
    // A connection in use is not idle.
    let mut busy = visitas.connect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        assert_eq!(busy.get("/livez").status, 200);
        assert!(
            busy.silent_for(Duration::from_millis(50)),
            "closed while in use"
        );
    }
    assert_eq!(used.closed_within(ANSWER_LIMIT), b"");
    assert_eq!(unused.closed_within(ANSWER_LIMIT), b"");
    let start = Instant::now();
    assert_eq!(busy.get("/livez").status, 200);
    assert_eq!(busy.closed_within(ANSWER_LIMIT), b"");
    assert!(
        start.elapsed() >= Duration::from_millis(800),
        "closed after {:?}",
        start.elapsed()
    );
}

#[test]
fn a_client_that_never_reads_does_not_delay_others() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "300s").start();
    let deaf = visitas.connect();
    let many = request("GET", "/", &[]).repeat(2000);
    // The answers fill every buffer, and then sending may block too.
    let mut sender = deaf.duplicate();
    let sender = std::thread::spawn(move || {
        let _ = sender.try_send(&many);
        let _ = sender.try_send(&many);
    });
    for _ in 0..20 {
        assert_eq!(visitas.try_visit().status, 200);
    }
    deaf.close();
    sender.join().expect("the sender's end");
}

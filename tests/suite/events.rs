//! `/events` streams the numbers as they change. Many listeners at once hold nothing up, and
//! listening is no visit.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{LIMIT, Settings, Visitas, machine, within};

/// One listener and what it received.
struct Listener {
    stream: TcpStream,
    text: String,
}

impl Listener {
    fn new(visitas: &Visitas, fields: &str) -> Listener {
        let mut stream = TcpStream::connect(("127.0.0.1", visitas.port())).expect("a connection");
        let request =
            format!("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out");
        Listener {
            stream,
            text: String::new(),
        }
    }

    /// Reads what has arrived; gives whether the stream is still open.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(length) => self
                .text
                .push_str(std::str::from_utf8(&chunk[..length]).expect("UTF-8")),
            Err(error) => {
                let waiting = matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                return waiting;
            }
        }
        true
    }

    /// The data of each message so far.
    fn messages(&self) -> Vec<serde_json::Value> {
        let data = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| {
            serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
        })
        .collect()
    }

    #[track_caller]
    fn wait_for_total(&mut self, total: u64) {
        within(LIMIT, "a message with the total", || {
            assert!(self.read(), "the stream ended: {}", self.text);
            self.messages()
                .last()
                .is_some_and(|last| last["total"].as_u64() == Some(total))
        });
    }
}

#[test]
fn listeners_receive_visits_and_make_none() {
    let visitas = Settings::new().start();
    let mut listener = Listener::new(&visitas, "Last-Event-ID: 99999999999999999999\r\n");
    listener.wait_for_total(0);
    assert!(
        listener.text.starts_with("HTTP/1.1 200 OK\r\n"),
        "{}",
        listener.text
    );
    assert!(
        listener
            .text
            .contains("Content-Type: text/event-stream\r\n"),
        "{}",
        listener.text
    );
    visitas.visit();
    listener.wait_for_total(1);
    for _ in 0..9 {
        visitas.visit();
    }
    listener.wait_for_total(10);
    let messages = listener.messages();
    let last = messages.last().expect("a message");
    assert_eq!(
        (last["cache"].as_i64(), last["ledger"].as_bool()),
        (Some(10), Some(true))
    );
    assert_eq!(last["week"].as_u64(), Some(10));
    for step in ["minute", "hour", "day", "month"] {
        let newest = last[step].as_array().expect(step);
        assert_eq!(
            newest[1].as_u64().expect("before") + newest[2].as_u64().expect("now"),
            10,
            "{step}"
        );
    }
    assert_eq!(visitas.stats().total, 10);
}

#[test]
fn a_new_listener_gets_all_numbers_even_if_others_heard_them_before() {
    let visitas = Settings::new().start();
    let mut other = Listener::new(&visitas, "");
    other.wait_for_total(0);
    visitas.visit();
    other.wait_for_total(1);
    drop(other);
    within(LIMIT, "it to be gone", || {
        crate::metrics::metrics(&visitas).sum("visitas_event_listeners") == 0.0
    });
    let mut listener = Listener::new(&visitas, "");
    listener.wait_for_total(1);
    let first = &listener.messages()[0];
    assert_eq!(first["week"].as_u64(), Some(1), "{first}");
    // What was told between its request and its place among the listeners.
    within(LIMIT, "a second message", || {
        assert!(listener.read(), "the stream ended: {}", listener.text);
        listener.messages().len() == 2
    });
    assert_eq!(&listener.messages()[1], first);
}

#[test]
fn at_most_one_message_per_second() {
    let visitas = Settings::new().start();
    let mut listener = Listener::new(&visitas, "");
    listener.wait_for_total(0);
    let (began, before) = (Instant::now(), listener.messages().len());
    within(LIMIT, "three messages", || {
        visitas.visit();
        assert!(listener.read(), "the stream ended: {}", listener.text);
        listener.messages().len() >= before + 3
    });
    // The first may come at once; two seconds lie between it and the third.
    assert!(
        began.elapsed() >= Duration::from_millis(1800),
        "three messages in {:?}",
        began.elapsed()
    );
}

#[test]
fn a_thousand_listeners_hold_nothing_up() {
    let _machine = machine();
    let visitas = Settings::new().start();
    let mut listeners: Vec<Listener> = (0..1000).map(|_| Listener::new(&visitas, "")).collect();
    for listener in &mut listeners {
        listener.wait_for_total(0);
    }
    let metrics = crate::metrics::metrics(&visitas);
    assert_eq!(metrics.sum("visitas_event_listeners"), 1000.0);
    let began = Instant::now();
    visitas.visit();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "a visit took {:?}",
        began.elapsed()
    );
    for listener in &mut listeners {
        listener.wait_for_total(1);
    }
    drop(listeners);
    within(LIMIT, "all of them to be gone", || {
        crate::metrics::metrics(&visitas).sum("visitas_event_listeners") == 0.0
    });
    assert_eq!(visitas.visit().total, 2);
}

#[test]
fn the_drain_ends_them() {
    let mut visitas = Settings::new().set("DRAIN_TIMEOUT", "300s").start();
    let mut listeners: Vec<Listener> = (0..20).map(|_| Listener::new(&visitas, "")).collect();
    for listener in &mut listeners {
        listener.wait_for_total(0);
    }
    visitas.signal("TERM");
    for listener in &mut listeners {
        within(LIMIT, "the end of the stream", || !listener.read());
    }
    assert_eq!(visitas.wait_end().code, Some(0));
}

#[test]
fn a_listener_s_further_requests_are_ignored_and_its_end_is_noticed() {
    let visitas = Settings::new().start();
    let mut listener = Listener::new(&visitas, "");
    listener.wait_for_total(0);
    listener
        .stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("a second request");
    visitas.visit();
    listener.wait_for_total(1);
    listener
        .stream
        .shutdown(std::net::Shutdown::Write)
        .expect("a half-close");
    within(LIMIT, "the end", || !listener.read());
    assert_eq!(visitas.stats().total, 1, "a listener's request is no visit");
}

#[test]
fn head_gets_the_headers() {
    let visitas = Settings::new().start();
    let response = visitas.request("HEAD", "/events", &[]);
    assert_eq!(
        (response.status, response.header("Content-Type")),
        (200, Some("text/event-stream"))
    );
}

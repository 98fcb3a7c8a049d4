//! Persistence, pipelining, half-closed connections, and what every answer carries.

use super::After::{Closed, Kept};
use super::{Rules, expect, settle};
use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Settings};

#[test]
fn connection_options() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        get!("Connection: keep-alive\r\n"),
        get!("Connection: closed, not-close\r\n"),
        get!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"),
        "GET /livez HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
    ]);
    rules.closed(200).all(&[
        get!("Connection: CLOSE\r\n"),
        get!("Connection: x,\tClose , y\r\n"),
        get!("Connection: keep-alive\r\nConnection: close\r\n"),
        "GET /livez HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        concat!(get!("Connection: close\r\n"), get!("")),
    ]);
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "200ms").start();
    for (sent, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n", "400"),
        ("\r\n\r\nHEAD / HTTP/1.1\r\n\r\n", "400"),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n", "408"),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
            "408",
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n",
            "413",
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "400",
        ),
    ] {
        let mut client = visitas.connect();
        client.send(sent);
        let raw = String::from_utf8(client.closed_within(ANSWER_LIMIT)).expect("text");
        assert!(
            raw.starts_with(&format!("HTTP/1.1 {status} ")) && raw.ends_with("\r\n\r\n"),
            "{sent:?}: {raw:?}"
        );
        assert_eq!(raw.matches("\r\n\r\n").count(), 1, "{sent:?}: {raw:?}");
    }
}

/// Requests with every kind of body, one of them itself a request, and their statuses.
const MIXED: [(&str, u16); 9] = [
    (get!(""), 200),
    (
        concat!(
            get!("Content-Length: 27\r\n"),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        ),
        200,
    ),
    ("\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (
        chunks!("1b;x\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n0\r\nA: GET / HTTP/1.1\r\n\r\n"),
        200,
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        405,
    ),
    ("GET http://x/nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    (
        "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        200,
    ),
    (
        "GET / HTTP/1.1\r\nHost: x\r\nPurpose: prefetch\r\n\r\n",
        503,
    ),
];

#[test]
fn requests_in_one_packet_are_answered_in_order() {
    let visitas = Settings::new().start();
    let all: String = MIXED.iter().map(|(sent, _)| *sent).collect();
    let statuses: Vec<u16> = MIXED.iter().map(|(_, status)| *status).collect();
    let mut client = visitas.connect();
    client.send(all.repeat(20));
    expect(
        &mut client,
        "twenty times all of them",
        &statuses.repeat(20),
        Kept,
    );
    // A refusal is the last answer.
    let mut refused = visitas.connect();
    refused.send(format!("{all}GET / HTTP/1.1\r\nHost : x\r\n\r\n{all}"));
    expect(
        &mut refused,
        "all and a refusal",
        &[statuses.as_slice(), &[400]].concat(),
        Closed,
    );
    assert_eq!(visitas.stats().total, 0, "none of them is a visit");
}

#[test]
fn requests_in_one_packet_are_answered_wherever_it_is_cut() {
    let visitas = Settings::new().start();
    let all: String = MIXED.iter().map(|(sent, _)| *sent).collect();
    let statuses: Vec<u16> = MIXED.iter().map(|(_, status)| *status).collect();
    let mut clients: Vec<Client> = (1..all.len()).map(|_| visitas.connect()).collect();
    clients
        .iter_mut()
        .zip(1..)
        .for_each(|(client, cut)| client.send(&all[..cut]));
    settle(&visitas);
    clients
        .iter_mut()
        .zip(1..)
        .for_each(|(client, cut)| client.send(&all[cut..]));
    for (client, cut) in clients.iter_mut().zip(1..) {
        expect(client, &format!("cut at {cut}"), &statuses, Kept);
    }
    let mut slow = visitas.connect();
    all.bytes().for_each(|byte| slow.send([byte]));
    expect(&mut slow, "byte by byte", &statuses, Kept);
    assert_eq!(visitas.stats().total, 0, "none of them is a visit");
}

#[test]
fn a_half_close_does_not_cut_answers_off() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send(format!("{}{}", get!(""), get!("")));
    client.half_close();
    for _ in 0..2 {
        assert_eq!(client.read().status, 200);
    }
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
    for begun in [
        &get!("")[..9],
        chunks!("5\r\nhello"),
        get!("Content-Length: 5\r\n"),
    ] {
        let mut client = visitas.connect();
        client.send(begun);
        client.half_close();
        expect(&mut client, begun, &[400], Closed);
    }
}

#[test]
fn every_answer_says_nosniff() {
    let visitas = Settings::new()
        .set("HEADER_TIMEOUT", "200ms")
        .set("VISITS_PER_CLIENT", "1/1h")
        .start();
    let get = |path: &str| request("GET", path, &[]);
    let mut statuses = Vec::new();
    for sent in [
        get("/"),
        get("/"),
        get("/nowhere"),
        get("/metrics"),
        get("/style.css"),
        get("/favicon.svg"),
        get("/badge.svg"),
        request("GET", "/badge.svg", &[("If-None-Match", "*")]),
        request("GET", "/badge.svg", &[("If-Match", "\"x\"")]),
        request("GET", "/", &[("Sec-Purpose", "prefetch")]),
        request("OPTIONS", "*", &[]),
        request(
            "OPTIONS",
            "/stats",
            &[("Access-Control-Request-Method", "GET")],
        ),
        request("PUT", "/", &[]),
        request("CONNECT", "a:1", &[]),
        "nonsense\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n".to_owned(),
        request("GET", "/", &[("Expect", "x")]),
        request("GET", "/", &[("Content-Length", "99999999")]),
    ] {
        let mut client = visitas.connect();
        client.send(&sent);
        let answer = client.read();
        assert_eq!(
            answer.header("X-Content-Type-Options"),
            Some("nosniff"),
            "{sent:?}: {answer:?}"
        );
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(
        statuses,
        [
            200, 204, 304, 400, 404, 405, 408, 412, 413, 417, 429, 501, 503
        ],
        "of every kind"
    );
}

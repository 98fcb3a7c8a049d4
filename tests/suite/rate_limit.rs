//! `VISITS_PER_CLIENT` limits the visits of one address; `TRUSTED_PROXIES` may tell the address.

use serde_json::Value;

use crate::metrics::metrics;
use crate::support::client::request;
use crate::support::{Client, LIMIT, Settings, Visitas, within};

fn status(visitas: &Visitas, preface: &[u8], fields: &[(&str, &str)]) -> u16 {
    let mut client = visitas.connect();
    client.send(preface);
    client.send(request(
        "GET",
        "/",
        &[&[("Accept", "application/json")], fields].concat(),
    ));
    client.read().status
}

/// The number of visits by this client until one is refused.
fn allowed(visitas: &Visitas, preface: &[u8], fields: &[(&str, &str)]) -> usize {
    let visits = (0..100).take_while(|_| match status(visitas, preface, fields) {
        200 => true,
        429 => false,
        other => panic!("{other}\n{}", visitas.output()),
    });
    visits.count()
}

#[test]
fn one_address_is_limited_and_gets_a_retry_time() {
    let visitas = Settings::new().set("VISITS_PER_CLIENT", "5/1h").start();
    for _ in 0..5 {
        visitas.visit();
    }
    for accept in ["application/json", "text/html"] {
        let refused = visitas.request("GET", "/", &[("Accept", accept)]);
        assert_eq!(refused.status, 429, "{refused:?}");
        let seconds: u64 = refused
            .header("Retry-After")
            .and_then(|text| text.parse().ok())
            .expect("a time");
        assert!(
            (700..=720).contains(&seconds),
            "a token takes 720 s: {seconds}"
        );
        refused.sentence();
        assert_eq!(
            refused.header("Connection"),
            None,
            "the connection may stay"
        );
    }
    assert_eq!(visitas.stats().total, 5, "what is refused is not counted");
    for path in ["/livez", "/stats", "/history", "/badge.svg", "/nowhere"] {
        assert_ne!(visitas.get(path).status, 429, "{path} is no visit");
    }
    assert_eq!(visitas.request("HEAD", "/", &[]).status, 200);
    let refusals = &metrics(&visitas)
        .family("visitas_visits_refused_total")
        .samples
        .clone();
    let by_rate = refusals
        .iter()
        .find(|sample| sample.label("reason") == Some("rate"))
        .expect("a reason");
    assert_eq!(by_rate.value, 2.0);
}

#[test]
fn tokens_come_back_with_time() {
    let visitas = Settings::new().set("VISITS_PER_CLIENT", "2/500ms").start();
    let taken = allowed(&visitas, b"", &[]);
    assert!(taken >= 2, "{taken}");
    within(LIMIT, "a token", || visitas.try_visit().status == 200);
}

#[test]
fn without_it_nobody_is_refused() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    (0..500).for_each(|_| assert_eq!(client.try_visit().expect("an answer").status, 200));
}

#[test]
fn addresses_from_untrusted_clients_are_ignored() {
    let visitas = Settings::new()
        .set("VISITS_PER_CLIENT", "3/1h")
        .set("TRUSTED_PROXIES", "10.0.0.0/8")
        .start();
    for number in 0..3 {
        let address = format!("192.0.2.{number}");
        let fields = [
            ("X-Forwarded-For", address.as_str()),
            ("Forwarded", "for=192.0.2.77"),
        ];
        assert_eq!(status(&visitas, b"", &fields), 200);
    }
    assert_eq!(
        status(&visitas, b"", &[("X-Forwarded-For", "192.0.2.9")]),
        429,
        "all of it came from one address"
    );
    assert_eq!(
        status(&visitas, b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\n", &[]),
        400,
        "no request begins so"
    );
}

#[test]
fn a_trusted_proxy_names_the_client_in_four_ways() {
    let visitas = Settings::new()
        .set("VISITS_PER_CLIENT", "3/1h")
        .set("TRUSTED_PROXIES", "127.0.0.0/8, ::1")
        .start();
    assert_eq!(
        allowed(&visitas, b"", &[("X-Forwarded-For", "6.6.6.6, 192.0.2.1")]),
        3
    );
    assert_eq!(
        allowed(
            &visitas,
            b"",
            &[("X-Forwarded-For", "7.7.7.7, 192.0.2.1, 127.0.0.9")]
        ),
        0,
        "the same client"
    );
    assert_eq!(
        allowed(&visitas, b"", &[("Forwarded", "for=192.0.2.2;proto=http")]),
        3
    );
    assert_eq!(
        allowed(&visitas, b"", &[("Forwarded", "for=\"[2001:db8::1]:47\"")]),
        3
    );
    assert_eq!(
        allowed(&visitas, b"", &[("Forwarded", "for=\"[2001:db8::2]\"")]),
        0,
        "the same /64"
    );
    assert_eq!(
        allowed(&visitas, b"PROXY TCP4 192.0.2.3 127.0.0.1 1 2\r\n", &[]),
        3
    );
    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x04\x7f\0\0\x01\0\x01\0\x02";
    assert_eq!(allowed(&visitas, version_2, &[]), 3);
    assert_eq!(
        allowed(&visitas, b"PROXY TCP4 192.0.2.4 127.0.0.1 1 2\r\n", &[]),
        0,
        "the same client in version 1"
    );
    // The proxy's own requests count for the proxy.
    assert_eq!(allowed(&visitas, b"", &[]), 3);
    assert_eq!(status(&visitas, b"PROXY TCP4 nonsense\r\n", &[]), 400);
}

#[test]
fn a_proxy_header_is_understood_wherever_it_is_cut() {
    let visitas = Settings::new().set("TRUSTED_PROXIES", "127.0.0.1").start();
    let sent = [
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".as_slice(),
        request("GET", "/livez", &[]).as_bytes(),
    ]
    .concat();
    for cut in 1..sent.len() {
        let mut client = visitas.connect();
        client.send(&sent[..cut]);
        client.send(&sent[cut..]);
        assert_eq!(client.read().status, 200, "cut at {cut}");
        assert_eq!(
            client.get("/livez").status,
            200,
            "and then it is a connection like any other"
        );
    }
}

fn access_line(visitas: &Visitas, mark: usize, wanted: &str) -> Value {
    let found = || {
        visitas
            .stderr()
            .since(mark)
            .into_iter()
            .find(|line| line.contains(wanted))
    };
    within(LIMIT, wanted, || found().is_some());
    serde_json::from_str(&found().expect("a line")).expect("JSON")
}

#[test]
fn the_access_log_has_the_client_and_its_agent() {
    let settings = Settings::new()
        .set("ACCESS_LOG", "on")
        .set("LOG_FORMAT", "json");
    let visitas = settings.set("TRUSTED_PROXIES", "127.0.0.1").start();
    let mark = visitas.stderr().mark();
    visitas.request(
        "GET",
        "/livez?a",
        &[
            ("X-Forwarded-For", "192.0.2.1"),
            ("User-Agent", "test \"1\""),
        ],
    );
    let line = access_line(&visitas, mark, "/livez?a");
    assert_eq!(
        (line["client"].as_str(), line["agent"].as_str()),
        (Some("192.0.2.1"), Some("test \"1\"")),
        "{line}"
    );
    assert_eq!(
        (line["level"].as_str(), line["status"].as_u64()),
        (Some("INFO"), Some(200)),
        "{line}"
    );
}

#[test]
fn refused_requests_are_in_the_access_log_with_client_and_arrival_time() {
    let settings = Settings::new()
        .set("ACCESS_LOG", "on")
        .set("LOG_FORMAT", "json")
        .set("HEADER_TIMEOUT", "300ms");
    let visitas = settings
        .set("TRUSTED_PROXIES", "127.0.0.1")
        .set("VISITS_PER_CLIENT", "1/1h")
        .start();
    let line_of = |sent: &str, status: u16| {
        let mark = visitas.stderr().mark();
        let mut client: Client = visitas.connect();
        client.send(format!("PROXY TCP4 192.0.2.8 127.0.0.1 1 2\r\n{sent}"));
        assert_eq!(client.read().status, status, "{sent:?}");
        let line = access_line(&visitas, mark, &format!("\"status\":{status},"));
        assert_eq!(line["client"], "192.0.2.8", "{line}");
        line
    };
    let malformed = line_of("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    assert_eq!(
        (malformed["method"].as_str(), malformed["target"].as_str()),
        (Some("GET"), Some("/a")),
        "{malformed}"
    );
    let slow = line_of("GET /slow HTTP/1.1\r\nHost: x\r\n", 408);
    assert!(
        slow["arrival_ms"].as_f64().is_some_and(|ms| ms >= 250.0),
        "{slow}"
    );
    assert_eq!(slow["target"], "/slow", "{slow}");
    let large = line_of(
        "GET /large HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n",
        413,
    );
    assert_eq!(large["target"], "/large", "{large}");
    line_of(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)), 414);
    line_of("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505);
    let visit = "GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    line_of(visit, 200);
    line_of(visit, 429);
}

//! The rules of RFC 9112 and 9110 for a server, each with the requests that test it: whole, cut at
//! every byte, and several in one packet. docs/http.md has the table.

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Settings, Visitas};

/// Bytes, the statuses of the answers they get, and whether the connection is closed after the
/// last.
type Case = (&'static str, &'static [u16], After);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Kept,
    Closed,
}
use After::{Closed, Kept};

/// What the client's answers must be, read to the end of the connection if it is to be closed, else
/// past one more request.
#[track_caller]
fn expect(client: &mut Client, shown: &str, statuses: &[u16], after: After) {
    for (index, status) in statuses.iter().enumerate() {
        let response = client
            .try_read(false)
            .unwrap_or_else(|why| panic!("{shown}: answer {index}: {why:?}"));
        assert_eq!(
            response.status, *status,
            "{shown}: answer {index}: {response:?}"
        );
        let last = index + 1 == statuses.len();
        let closes = response.header("Connection") == Some("close");
        assert_eq!(
            closes,
            last && after == Closed,
            "{shown}: answer {index}: {response:?}"
        );
        assert!(
            response.status == 100 || response.header("Date").is_some(),
            "{shown}: {response:?}"
        );
    }
    match after {
        Closed => assert_eq!(
            client.closed_within(ANSWER_LIMIT),
            b"",
            "{shown}: more than was asked for"
        ),
        Kept => {
            client.send(request("GET", "/robots.txt", &[]));
            assert!(
                client.read().text().starts_with("User-agent"),
                "{shown}: the next answer"
            );
        }
    }
}

/// Each case whole, and in two pieces for every place it can be cut at.
#[track_caller]
fn check(visitas: &Visitas, cases: &[Case]) {
    for (sent, statuses, after) in cases {
        let mut client = visitas.connect();
        client.send(sent);
        expect(&mut client, &format!("{sent:?}"), statuses, *after);
        let mut cuts: Vec<Client> = (1..sent.len()).map(|_| visitas.connect()).collect();
        let whole = |client: &mut Client, bytes: &[u8]| {
            // It may be refused, and closed, before all of it is there.
            let _ = client.try_send(bytes);
        };
        cuts.iter_mut()
            .zip(1..)
            .for_each(|(client, cut)| whole(client, &sent.as_bytes()[..cut]));
        settle(visitas);
        cuts.iter_mut()
            .zip(1..)
            .for_each(|(client, cut)| whole(client, &sent.as_bytes()[cut..]));
        for (client, cut) in cuts.iter_mut().zip(1..) {
            expect(client, &format!("{sent:?} cut at {cut}"), statuses, *after);
        }
    }
}

/// Returns when both workers have read what was sent to them before.
fn settle(visitas: &Visitas) {
    (0..4).for_each(|_| assert_eq!(visitas.get("/livez").status, 200));
}

macro_rules! get {
    ($fields:literal) => {
        concat!("GET /livez HTTP/1.1\r\nHost: x\r\n", $fields, "\r\n")
    };
}

macro_rules! chunks {
    ($body:literal) => {
        concat!(
            "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            $body
        )
    };
}

#[test]
fn request_lines() {
    check(
        &Settings::new().start(),
        &[
            ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[200], Kept),
            ("PURGE /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[405], Kept),
            ("get /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[405], Kept),
            ("GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /livez  HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET\t/livez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1 \r\nHost: x\r\n\r\n", &[400], Closed),
            (" GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /livez\r\n\r\n", &[400], Closed),
            ("GET HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("G(T /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
        ],
    );
}

#[test]
fn versions() {
    check(
        &Settings::new().start(),
        &[
            ("GET /livez HTTP/1.0\r\n\r\n", &[200], Closed),
            (
                "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                &[200],
                Kept,
            ),
            ("GET /livez HTTP/1.2\r\nHost: x\r\n\r\n", &[505], Closed),
            ("GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", &[505], Closed),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505], Closed),
            ("GET /livez http/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1x\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /livez HTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
        ],
    );
}

#[test]
fn line_ends() {
    check(
        &Settings::new().start(),
        &[
            ("GET /livez HTTP/1.1\nHost: x\n\n", &[400], Closed),
            ("GET /livez HTTP/1.1\r\nHost: x\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1\r\nHost: x\r\n\n", &[400], Closed),
            (
                "GET /livez HTTP/1.1\r\nHost: x\r\nX: y\nContent-Length: 9\r\n\r\n",
                &[400],
                Closed,
            ),
            ("GET /livez HTTP/1.1\rHost: x\r\n\r\n", &[400], Closed),
            (
                "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
                &[400],
                Closed,
            ),
            ("GET /livez HTTP/1.1\r\r\nHost: x\r\n\r\n", &[400], Closed),
            ("\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
        ],
    );
}

#[test]
fn empty_lines_before_a_request() {
    check(
        &Settings::new().start(),
        &[
            ("\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n", &[200], Kept),
            (
                "\r\n\r\n\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
                &[200],
                Kept,
            ),
            ("\r\n\r\n\r\n\r\n\r\n", &[400], Closed),
            (
                "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx\r\n",
                &[200],
                Kept,
            ),
        ],
    );
}

#[test]
fn who_only_sends_empty_lines_is_told_nothing() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send("\r\n\r\n");
    client.half_close();
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
}

#[test]
fn targets() {
    check(
        &Settings::new().start(),
        &[
            (
                "GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
                &[200],
                Kept,
            ),
            (
                "GET HTTPS://x/livez?/nowhere HTTP/1.1\r\nHost: x:443\r\n\r\n",
                &[200],
                Kept,
            ),
            (
                "GET http://x?/livez HTTP/1.1\r\nHost: x\r\nPurpose: prefetch\r\n\r\n",
                &[503],
                Kept,
            ),
            ("GET http://x/livez HTTP/1.0\r\n\r\n", &[200], Closed),
            (
                "GET http://x/livez HTTP/1.1\r\nHost: y\r\n\r\n",
                &[400],
                Closed,
            ),
            (
                "GET http://x/livez HTTP/1.1\r\nHost: x:81\r\n\r\n",
                &[400],
                Closed,
            ),
            ("GET http://x/livez HTTP/1.1\r\n\r\n", &[400], Closed),
            (
                "GET http:///livez HTTP/1.1\r\nHost: x\r\n\r\n",
                &[400],
                Closed,
            ),
            (
                "GET http://u@x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
                &[400],
                Closed,
            ),
            (
                "GET ftp://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
                &[400],
                Closed,
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", &[200], Kept),
            ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            (
                "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
                &[501],
                Closed,
            ),
            ("CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", &[501], Closed),
            ("GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET livez HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            ("GET /livez#top HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            (
                "GET /liv\u{e9}z HTTP/1.1\r\nHost: x\r\n\r\n",
                &[400],
                Closed,
            ),
            ("GET /liv\x7fz HTTP/1.1\r\nHost: x\r\n\r\n", &[400], Closed),
            (
                "GET /livez?q={|}^`\\\"<> HTTP/1.1\r\nHost: x\r\n\r\n",
                &[200],
                Kept,
            ),
            ("GET /%6civez HTTP/1.1\r\nHost: x\r\n\r\n", &[404], Kept),
            ("GET /./livez HTTP/1.1\r\nHost: x\r\n\r\n", &[404], Kept),
        ],
    );
}

#[test]
fn options_for_the_whole_server_names_the_methods() {
    let visitas = Settings::new().start();
    let response = visitas.request("OPTIONS", "*", &[]);
    assert_eq!(
        (response.status, response.header("Allow")),
        (200, Some("GET, HEAD")),
        "{response:?}"
    );
}

#[test]
fn hosts() {
    check(
        &Settings::new().start(),
        &[
            ("GET /livez HTTP/1.1\r\nHost:\r\n\r\n", &[200], Kept),
            (
                "GET /livez HTTP/1.1\r\nHost: [2001:db8::1]:5000\r\n\r\n",
                &[200],
                Kept,
            ),
            (
                "GET /livez HTTP/1.1\r\nhOsT:\tA_b-c.example:65535 \r\n\r\n",
                &[200],
                Kept,
            ),
            (
                "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                &[200],
                Kept,
            ),
            ("GET /livez HTTP/1.1\r\n\r\n", &[400], Closed),
            (
                "GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                &[400],
                Closed,
            ),
            (
                "GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
                &[400],
                Closed,
            ),
            ("GET /livez HTTP/1.1\r\nHost: a, b\r\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1\r\nHost: a,b\r\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1\r\nHost: u@a\r\n\r\n", &[400], Closed),
            ("GET /livez HTTP/1.1\r\nHost: a:b\r\n\r\n", &[400], Closed),
            (
                "GET /livez HTTP/1.1\r\nHost: a:65536\r\n\r\n",
                &[400],
                Closed,
            ),
            ("GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n", &[400], Closed),
            (
                "GET /livez HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
                &[400],
                Closed,
            ),
        ],
    );
}

#[test]
fn fields() {
    check(
        &Settings::new().start(),
        &[
            (
                get!("X:\r\nY: \t a b \t\r\n!#$%&'*+-.^_`|~9: z\r\n"),
                &[200],
                Kept,
            ),
            (get!("X: \u{e9}\r\n"), &[200], Kept),
            (get!("X : y\r\n"), &[400], Closed),
            (get!("X\t: y\r\n"), &[400], Closed),
            (get!(": y\r\n"), &[400], Closed),
            (get!("X\r\n"), &[400], Closed),
            (get!("X Y: z\r\n"), &[400], Closed),
            (get!("X(: z\r\n"), &[400], Closed),
            (get!("\u{e9}: z\r\n"), &[400], Closed),
            (get!("X: y\r\n z\r\n"), &[400], Closed),
            (get!("X: y\r\n\tz\r\n"), &[400], Closed),
            (get!("X: a\0b\r\n"), &[400], Closed),
            (get!("X\0: b\r\n"), &[400], Closed),
            (get!("X: a\x0bb\r\n"), &[400], Closed),
            (get!("X: a\x7fb\r\n"), &[400], Closed),
            ("GET /livez HTTP/1.1\r\n Host: x\r\n\r\n", &[400], Closed),
        ],
    );
}

#[test]
fn content_lengths() {
    check(
        &Settings::new().start(),
        &[
            (get!("Content-Length: 0\r\n"), &[200], Kept),
            (
                concat!(get!("Content-Length: 5\r\n"), "hello"),
                &[200],
                Kept,
            ),
            (
                concat!(get!("content-LENGTH:005\r\n"), "hello"),
                &[200],
                Kept,
            ),
            (
                concat!("GET /livez HTTP/1.0\r\nContent-Length: 5\r\n\r\n", "hello"),
                &[200],
                Closed,
            ),
            (
                get!("Content-Length: 5\r\nContent-Length: 5\r\n"),
                &[400],
                Closed,
            ),
            (
                get!("Content-Length: 5\r\nContent-Length: 6\r\n"),
                &[400],
                Closed,
            ),
            (get!("Content-Length: 5, 5\r\n"), &[400], Closed),
            (get!("Content-Length: 5,\r\n"), &[400], Closed),
            (get!("Content-Length: +5\r\n"), &[400], Closed),
            (get!("Content-Length: -5\r\n"), &[400], Closed),
            (get!("Content-Length: 5 5\r\n"), &[400], Closed),
            (get!("Content-Length: 0x5\r\n"), &[400], Closed),
            (get!("Content-Length: 5.0\r\n"), &[400], Closed),
            (get!("Content-Length: \"5\"\r\n"), &[400], Closed),
            (get!("Content-Length:\r\n"), &[400], Closed),
            (
                get!("Content-Length: 18446744073709551617\r\n"),
                &[400],
                Closed,
            ),
            (get!("Content-Length: 65537\r\n"), &[413], Closed),
            (get!("Content-Length : 5\r\n"), &[400], Closed),
        ],
    );
}

#[test]
fn transfer_codings() {
    check(
        &Settings::new().start(),
        &[
            (
                concat!(get!("Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
                &[200],
                Kept,
            ),
            (
                concat!(get!("transfer-ENCODING:\tCHUNKED \r\n"), "0\r\n\r\n"),
                &[200],
                Kept,
            ),
            (
                get!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
                &[400],
                Closed,
            ),
            (
                get!("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
                &[400],
                Closed,
            ),
            (
                get!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
                &[400],
                Closed,
            ),
            (
                get!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
                &[400],
                Closed,
            ),
            (
                get!("Transfer-Encoding: chunked, identity\r\n"),
                &[400],
                Closed,
            ),
            (
                get!("Transfer-Encoding: chunked, chunked\r\n"),
                &[400],
                Closed,
            ),
            (get!("Transfer-Encoding: identity\r\n"), &[400], Closed),
            (get!("Transfer-Encoding: gzip\r\n"), &[400], Closed),
            (get!("Transfer-Encoding: gzip, chunked\r\n"), &[501], Closed),
            (get!("Transfer-Encoding: , chunked\r\n"), &[501], Closed),
            (get!("Transfer-Encoding: chunked,\r\n"), &[400], Closed),
            (get!("Transfer-Encoding: \"chunked\"\r\n"), &[400], Closed),
            (get!("Transfer-Encoding: chunked;q=1\r\n"), &[400], Closed),
            (get!("Transfer-Encoding: xchunked\r\n"), &[400], Closed),
            (get!("Transfer-Encoding:\r\n"), &[400], Closed),
            (get!("Transfer-Encoding : chunked\r\n"), &[400], Closed),
            (get!("Transfer-Encoding:\x0bchunked\r\n"), &[400], Closed),
            (
                "GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                &[400],
                Closed,
            ),
            (
                "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
                &[400],
                Closed,
            ),
        ],
    );
}

#[test]
fn chunked_bodies() {
    check(
        &Settings::new().start(),
        &[
            (chunks!("5\r\nhello\r\n0\r\n\r\n"), &[200], Kept),
            (
                chunks!("00A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n"),
                &[200],
                Kept,
            ),
            (
                chunks!("5;a;b=c;d=\"e\"\r\nhello\r\n0 \t;x\r\nA: b\r\nC:\r\n\r\n"),
                &[200],
                Kept,
            ),
            (chunks!("5 \r\n"), &[400], Closed),
            (chunks!("\r\n"), &[400], Closed),
            (chunks!("5\nhello\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("5\rhello\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("5;\nhello\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("5\r\nhello!\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("5\r\nhello\n0\r\n\r\n"), &[400], Closed),
            (chunks!("5\r\nhello0\r\n\r\n"), &[400], Closed),
            (chunks!("0x5\r\nhello\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("+5\r\nhello\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("-1\r\nhello\r\n0\r\n\r\n"), &[400], Closed),
            (chunks!("5_0\r\n"), &[400], Closed),
            (chunks!("ffffffffffffffff5\r\n"), &[400], Closed),
            (chunks!("10001\r\n"), &[413], Closed),
            (chunks!("0\r\nA : b\r\n\r\n"), &[400], Closed),
            (chunks!("0\r\nA: b\r\n c\r\n\r\n"), &[400], Closed),
            (chunks!("0\r\nA: b\n\r\n"), &[400], Closed),
            (chunks!("0\r\nno colon\r\n\r\n"), &[400], Closed),
            (chunks!("0\r\n\n"), &[400], Closed),
        ],
    );
}

#[test]
fn expectations() {
    check(
        &Settings::new().start(),
        &[
            (get!("Expect: 100-continue\r\n"), &[200], Kept),
            (
                get!("Expect: 100-Continue\r\nContent-Length: 0\r\n"),
                &[200],
                Kept,
            ),
            (get!("Expect: 200-ok\r\n"), &[417], Closed),
            (
                get!("Expect: 100-continue\r\nContent-Length: 65537\r\n"),
                &[413],
                Closed,
            ),
            (
                "GET /livez HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
                &[200],
                Closed,
            ),
        ],
    );
    let visitas = Settings::new().start();
    for body in [
        "Content-Length: 5\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut client = visitas.connect();
        client.send(format!(
            "GET /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{body}"
        ));
        assert_eq!(client.read().status, 100);
        client.send(if body.contains("hunked") {
            "5\r\nhello\r\n0\r\n\r\n"
        } else {
            "hello"
        });
        expect(&mut client, body, &[200], Kept);
        // Who does not wait is not told to go on.
        let mut hasty = visitas.connect();
        let sent = format!("GET /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{body}");
        hasty.send(
            sent + if body.contains("hunked") {
                "0\r\n\r\n"
            } else {
                "hello"
            },
        );
        expect(&mut hasty, body, &[200], Kept);
    }
}

#[test]
fn connection_options() {
    check(
        &Settings::new().start(),
        &[
            (get!("Connection: keep-alive\r\n"), &[200], Kept),
            (get!("Connection: CLOSE\r\n"), &[200], Closed),
            (get!("Connection: x,\tClose , y\r\n"), &[200], Closed),
            (
                get!("Connection: keep-alive\r\nConnection: close\r\n"),
                &[200],
                Closed,
            ),
            (get!("Connection: closed, not-close\r\n"), &[200], Kept),
            (
                get!(
                    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
                ),
                &[200],
                Kept,
            ),
            (
                "GET /livez HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
                &[200],
                Kept,
            ),
            (
                "GET /livez HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
                &[200],
                Closed,
            ),
            (
                concat!(get!("Connection: close\r\n"), get!("")),
                &[200],
                Closed,
            ),
        ],
    );
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

/// Requests with every kind of body, one of them a request itself, and what each is answered with.
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
    // What is refused among them is the last to be answered.
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

//! The length of a request: Content-Length, Transfer-Encoding, chunks, Expect.

use super::After::Kept;
use super::{Rules, expect};
use crate::support::Settings;

#[test]
fn content_lengths() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        get!("Content-Length: 0\r\n"),
        concat!(get!("Content-Length: 5\r\n"), "hello"),
        concat!(get!("content-LENGTH:005\r\n"), "hello"),
    ]);
    rules.closed(200).all(&[concat!(
        "GET /livez HTTP/1.0\r\nContent-Length: 5\r\n\r\n",
        "hello"
    )]);
    rules.closed(400).all(&[
        get!("Content-Length: 5\r\nContent-Length: 5\r\n"),
        get!("Content-Length: 5\r\nContent-Length: 6\r\n"),
        get!("Content-Length: 5, 5\r\n"),
        get!("Content-Length: 5,\r\n"),
        get!("Content-Length: +5\r\n"),
        get!("Content-Length: -5\r\n"),
        get!("Content-Length: 5 5\r\n"),
        get!("Content-Length: 0x5\r\n"),
        get!("Content-Length: five\r\n"),
        get!("Content-Length: 5.0\r\n"),
        get!("Content-Length: \"5\"\r\n"),
        get!("Content-Length:\r\n"),
        get!("Content-Length: 18446744073709551617\r\n"),
        get!("Content-Length : 5\r\n"),
    ]);
    rules.closed(413).all(&[get!("Content-Length: 65537\r\n")]);
}

#[test]
fn transfer_codings() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        concat!(get!("Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
        concat!(get!("transfer-ENCODING:\tCHUNKED \r\n"), "0\r\n\r\n"),
    ]);
    rules.closed(400).all(&[
        get!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        get!("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        get!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        get!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        get!("Transfer-Encoding: chunked, identity\r\n"),
        get!("Transfer-Encoding: chunked, gzip\r\n"),
        get!("Transfer-Encoding: chunked, chunked\r\n"),
        get!("Transfer-Encoding: identity\r\n"),
        get!("Transfer-Encoding: gzip\r\n"),
        get!("Transfer-Encoding: chunked,\r\n"),
        get!("Transfer-Encoding: \"chunked\"\r\n"),
        get!("Transfer-Encoding: chunked;q=1\r\n"),
        get!("Transfer-Encoding: xchunked\r\n"),
        get!("Transfer-Encoding:\r\n"),
        get!("Transfer-Encoding : chunked\r\n"),
        get!("Transfer-Encoding:\x0bchunked\r\n"),
        "GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]);
    rules.closed(501).all(&[
        get!("Transfer-Encoding: gzip, chunked\r\n"),
        get!("Transfer-Encoding: , chunked\r\n"),
    ]);
}

#[test]
fn chunked_bodies() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        chunks!("5\r\nhello\r\n0\r\n\r\n"),
        chunks!("00A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n"),
        chunks!("5;a;b=c;d=\"e\"\r\nhello\r\n0 \t;x\r\nA: b\r\nC:\r\n\r\n"),
    ]);
    rules.closed(400).all(&[
        chunks!("5 \r\n"),
        chunks!("\r\n"),
        chunks!("x\r\n"),
        chunks!("5\nhello\r\n0\r\n\r\n"),
        chunks!("5\rhello\r\n0\r\n\r\n"),
        chunks!("5;\nhello\r\n0\r\n\r\n"),
        chunks!("5\r\nhello!\r\n0\r\n\r\n"),
        chunks!("5\r\nhello\n0\r\n\r\n"),
        chunks!("5\r\nhello0\r\n\r\n"),
        chunks!("0x5\r\nhello\r\n0\r\n\r\n"),
        chunks!("+5\r\nhello\r\n0\r\n\r\n"),
        chunks!("-1\r\nhello\r\n0\r\n\r\n"),
        chunks!("5_0\r\n"),
        chunks!("ffffffffffffffff5\r\n"),
        chunks!("0\r\nA : b\r\n\r\n"),
        chunks!("0\r\nA: b\r\n c\r\n\r\n"),
        chunks!("0\r\nA: b\n\r\n"),
        chunks!("0\r\nno colon\r\n\r\n"),
        chunks!("0\r\n\n"),
    ]);
    rules.closed(413).all(&[chunks!("10001\r\n")]);
}

#[test]
fn expectations() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        get!("Expect: 100-continue\r\n"),
        get!("Expect: 100-Continue\r\nContent-Length: 0\r\n"),
    ]);
    rules.closed(417).all(&[get!("Expect: 200-ok\r\n")]);
    rules
        .closed(413)
        .all(&[get!("Expect: 100-continue\r\nContent-Length: 65537\r\n")]);
    rules
        .closed(200)
        .all(&["GET /livez HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"]);
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
        // A client that does not wait gets no 100.
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

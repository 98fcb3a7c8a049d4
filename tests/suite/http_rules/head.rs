//! Request line, target, Host and header fields.

use super::Rules;
use crate::support::Settings;
use crate::support::client::ANSWER_LIMIT;

#[test]
fn request_lines() {
    let rules = Rules::start();
    rules
        .kept(200)
        .all(&["GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"]);
    rules.kept(405).all(&[
        "PURGE /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "get /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
    rules.closed(400).all(&[
        "GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez  HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET\t/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1 \r\nHost: x\r\n\r\n",
        " GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET\r\n\r\n",
        "hello\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez\r\n\r\n",
        "GET HTTP/1.1\r\nHost: x\r\n\r\n",
        "G(T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
}

#[test]
fn versions() {
    let rules = Rules::start();
    rules.closed(200).all(&["GET /livez HTTP/1.0\r\n\r\n"]);
    rules
        .kept(200)
        .all(&["GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]);
    rules.closed(505).all(&[
        "GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/3.0\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]);
    rules.closed(400).all(&[
        "GET /livez http/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1x\r\nHost: x\r\n\r\n",
        "GET /livez HTP/1.1\r\nHost: x\r\n\r\n",
    ]);
}

#[test]
fn line_ends() {
    let rules = Rules::start();
    rules.closed(400).all(&[
        "GET /livez HTTP/1.1\nHost: x\n\n",
        "GET /livez HTTP/1.1\r\nHost: x\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\n\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nX: y\nContent-Length: 9\r\n\r\n",
        "GET /livez HTTP/1.1\rHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        "GET /livez HTTP/1.1\r\r\nHost: x\r\n\r\n",
        "\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
}

#[test]
fn empty_lines_before_a_request() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        "\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\n\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx\r\n",
    ]);
    rules.closed(400).all(&["\r\n\r\n\r\n\r\n\r\n"]);
}

#[test]
fn empty_lines_alone_get_no_answer() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    client.send("\r\n\r\n");
    client.half_close();
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");
}

#[test]
fn targets() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        "GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET HTTPS://x/livez?/nowhere HTTP/1.1\r\nHost: x:443\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez?q={|}^`\\\"<> HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
    rules
        .kept(503)
        .all(&["GET http://x?/livez HTTP/1.1\r\nHost: x\r\nPurpose: prefetch\r\n\r\n"]);
    rules
        .closed(200)
        .all(&["GET http://x/livez HTTP/1.0\r\n\r\n"]);
    rules.closed(400).all(&[
        "GET http://x/livez HTTP/1.1\r\nHost: y\r\n\r\n",
        "GET http://x/livez HTTP/1.1\r\nHost: x:81\r\n\r\n",
        "GET http://x/livez HTTP/1.1\r\n\r\n",
        "GET http:///livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://u@x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ftp://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez#top HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /liv\u{e9}z HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /liv\x7fz HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
    rules.closed(501).all(&[
        "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
    rules.kept(404).all(&[
        "GET /%6civez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /./livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
}

#[test]
fn options_for_the_whole_server_names_the_methods() {
    let visitas = Settings::new().start();
    let response = visitas.request("OPTIONS", "*", &[]);
    assert_eq!(
        (response.status, response.header("Allow")),
        (200, Some("GET, HEAD, POST")),
        "{response:?}"
    );
}

#[test]
fn hosts() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        "GET /livez HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: [2001:db8::1]:5000\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhOsT:\tA_b-c.example:65535 \r\n\r\n",
        "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ]);
    rules.closed(400).all(&[
        "GET /livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a:65536\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
    ]);
}

#[test]
fn fields() {
    let rules = Rules::start();
    rules.kept(200).all(&[
        get!("X:\r\nY: \t a b \t\r\n!#$%&'*+-.^_`|~9: z\r\n"),
        get!("X: \u{e9}\r\n"),
    ]);
    rules.closed(400).all(&[
        get!("X : y\r\n"),
        get!("X\t: y\r\n"),
        get!(": y\r\n"),
        get!("X\r\n"),
        get!("X Y: z\r\n"),
        get!("X(: z\r\n"),
        get!("\u{e9}: z\r\n"),
        get!("X: y\r\n z\r\n"),
        get!("X: y\r\n\tz\r\n"),
        get!("X: a\0b\r\n"),
        get!("X\0: b\r\n"),
        get!("X: a\x0bb\r\n"),
        get!("X: a\x7fb\r\n"),
        "GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    ]);
}

//! A visit in every form: a page, JSON, a picture, a beacon. Each that is answered with success is
//! one committed row, and nothing else is.

use crate::metrics::metrics;
use crate::support::client::request;
use crate::support::load::visits_at_once;
use crate::support::{Client, Cluster, Form, LIMIT, Response, Settings, Stop, Visitas, within};

const PICTURE: &str = "image/svg+xml";
/// Nobody may keep a picture that is a visit.
const NEVER_KEPT: &str = "no-cache, no-store, max-age=0, s-maxage=0, must-revalidate";

/// The number in a badge.
#[track_caller]
fn number(response: &Response) -> String {
    let text = response.text();
    let title = text
        .split("<title>")
        .nth(1)
        .and_then(|rest| rest.split("</title>").next());
    let (_, number) = title
        .and_then(|title| title.rsplit_once(": "))
        .expect("a title");
    number.to_owned()
}

/// A picture that refuses: the last total known, in grey.
#[track_caller]
fn is_grey(response: &Response, status: u16, expected: &str) {
    assert_eq!(
        (
            response.status,
            response.header("Content-Type"),
            number(response).as_str()
        ),
        (status, Some(PICTURE), expected),
        "{response:?}"
    );
    assert!(response.text().contains("#9f9f9f"), "{response:?}");
    assert_eq!(response.header("Cache-Control"), Some(NEVER_KEPT));
    assert_eq!(response.header("ETag"), None, "{response:?}");
}

/// The fields and the body of a beacon.
type Sent<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

fn beacon(client: &mut Client, fields: &[(&str, &str)], body: &[u8]) -> Response {
    let length = body.len().to_string();
    let fields = [&[("Content-Length", length.as_str())], fields].concat();
    client.send(request("POST", "/visit", &fields));
    client.send(body);
    client.read()
}

#[test]
fn a_picture_is_a_visit_and_nobody_keeps_it() {
    let visitas = Settings::new().start();
    for visit in 1..=3_u64 {
        // No condition, and no cache's question, keeps it from being counted.
        let fields = [
            ("If-None-Match", "*"),
            ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        let picture = visitas.request("GET", "/visit.svg?label=a", &fields);
        assert_eq!(
            (picture.status, picture.header("Content-Type")),
            (200, Some(PICTURE)),
            "{picture:?}"
        );
        assert_eq!(number(&picture), visit.to_string());
        assert_eq!(picture.header("Cache-Control"), Some(NEVER_KEPT));
        for name in ["ETag", "Last-Modified", "Expires"] {
            assert_eq!(picture.header(name), None, "{name}");
        }
        assert_eq!(
            picture.header("Cross-Origin-Resource-Policy"),
            Some("cross-origin")
        );
        assert_eq!(visitas.stats().total, visit);
    }
}

#[test]
fn a_beacon_is_a_visit_whatever_it_carries() {
    let visitas = Settings::new().start();
    let mut client = visitas.connect();
    let large = vec![b'x'; 64 * 1024];
    let bodies: [Sent<'_>; 5] = [
        (&[], b""),
        (
            &[("Content-Type", "text/plain;charset=UTF-8")],
            b"{\"page\":\"/\"}",
        ),
        (&[("Content-Type", "application/json")], b"{}"),
        (
            &[("Content-Type", "multipart/form-data; boundary=x")],
            b"GET / HTTP/1.1\r\n\r\n",
        ),
        (&[], &large),
    ];
    for (fields, body) in bodies {
        let answer = beacon(&mut client, fields, body);
        assert_eq!(
            (answer.status, answer.header("Content-Length")),
            (204, None),
            "{answer:?}"
        );
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    }
    client.send("POST /visit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.read().status, 204);
    // Without a length there is no body.
    assert_eq!(client.request("POST", "/visit", &[]).status, 204);
    assert_eq!(visitas.stats().total, 7, "the connection stayed");

    assert_eq!(
        beacon(&mut client, &[], &vec![b'x'; 64 * 1024 + 1]).status,
        413
    );
    let mut half = visitas.connect();
    half.send("POST /visit HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf");
    half.half_close();
    assert_eq!(half.read().status, 400);
    assert_eq!(visitas.stats().total, 7, "what did not arrive is no visit");
}

/// Any number of visits at once, in all forms, from 8 connections.
fn visits_in_every_form(visitas: &Visitas, each: u64) -> u64 {
    let port = visitas.port();
    std::thread::scope(|scope| {
        for client in 0..8 {
            scope.spawn(move || {
                let mut connection = Client::connect(port);
                let forms = Form::ALL.iter().cycle().skip(client);
                for form in forms.take(each as usize) {
                    let answer = form.visit(&mut connection).expect("an answer");
                    assert!(form.is_counted(&answer), "{form:?}: {answer:?}");
                }
            });
        }
    });
    8 * each
}

#[test]
fn every_form_is_one_row_of_postgres() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let visits = visits_in_every_form(&visitas, 50);
    assert_eq!((database.rows(), visitas.stats().total), (visits, visits));
    assert_eq!(visitas.stats().cache, i64::try_from(visits).ok());
}

#[test]
fn every_form_is_one_row_of_the_embedded_store() {
    let visitas = Settings::new().start();
    let visits = visits_in_every_form(&visitas, 50);
    let settings = visitas.kill();
    let ended = settings.argument("check").argument("--count").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&visits.to_string()), "{ended:?}");
}

#[test]
fn nothing_else_is_a_visit() {
    let visitas = Settings::new().start();
    visitas.visit();
    let preflight = [
        ("Origin", "https://page.example"),
        ("Access-Control-Request-Method", "POST"),
    ];
    for (method, path, fields, status) in [
        ("HEAD", "/visit.svg", &[][..], 200),
        ("HEAD", "/visit", &[], 405),
        ("GET", "/visit", &[], 405),
        ("PUT", "/visit", &[], 405),
        ("OPTIONS", "/visit", &[], 405),
        ("OPTIONS", "/visit", &preflight, 204),
        ("OPTIONS", "/visit.svg", &preflight, 204),
        ("POST", "/visit.svg", &[], 405),
        ("POST", "/", &[], 405),
        (
            "POST",
            "/visit",
            &[("Sec-Purpose", "prefetch;prerender")],
            503,
        ),
        ("GET", "/visit/", &[], 404),
        ("GET", "/visit.svg/", &[], 404),
        ("GET", "/badge.svg", &[], 200),
    ] {
        let response = visitas.request(method, path, fields);
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        if status == 405 {
            let allowed = if path == "/visit" {
                "POST"
            } else {
                "GET, HEAD"
            };
            assert_eq!(response.header("Allow"), Some(allowed), "{method} {path}");
        }
    }
    // A page that is prerendered may be shown with the pictures it has.
    for purpose in ["prefetch", "prefetch;prerender"] {
        let ahead = visitas.request("GET", "/visit.svg", &[("Sec-Purpose", purpose)]);
        is_grey(&ahead, 503, "1");
    }
    assert_eq!(visitas.stats().total, 1);
}

#[test]
fn the_limit_of_an_address_holds_for_all_forms_together() {
    let visitas = Settings::new().set("VISITS_PER_CLIENT", "4/1h").start();
    let mut client = visitas.connect();
    for form in Form::ALL {
        let answer = form.visit(&mut client).expect("an answer");
        assert!(form.is_counted(&answer), "{answer:?}");
    }
    for form in Form::ALL {
        let answer = form.visit(&mut client).expect("an answer");
        assert_eq!(answer.status, 429, "{form:?}: {answer:?}");
        let seconds = answer
            .header("Retry-After")
            .and_then(|text| text.parse().ok());
        assert!(
            seconds.is_some_and(|seconds: u64| seconds > 800),
            "{form:?}: {answer:?}"
        );
        if *form == Form::Picture {
            is_grey(&answer, 429, "4");
        }
    }
    assert_eq!(visitas.stats().total, 4);
}

#[test]
fn an_outage_is_a_grey_picture_of_the_last_total() {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", "2s")
        .start();
    for _ in 0..1234 {
        visitas.visit();
    }
    cluster.stop(Stop::Fast);
    within(LIMIT, "the outage", || visitas.try_visit().status == 503);
    for style in ["flat", "flat-square", "for-the-badge"] {
        let query = format!("?style={style}&locale=en&color=red");
        for path in ["/visit.svg", "/badge.svg"] {
            let picture = visitas.get(&format!("{path}{query}"));
            is_grey(&picture, 503, "1,234");
            assert_eq!(picture.header("Retry-After"), Some("1"));
            let head = visitas.request("HEAD", &format!("{path}{query}"), &[]);
            assert_eq!(
                (head.status, head.header("Content-Type")),
                (503, Some(PICTURE))
            );
        }
    }
    let json = visitas.get("/badge.json");
    assert_eq!(
        (json.status, json.header("Content-Type")),
        (503, Some("application/json"))
    );
    let beacon = visitas.request("POST", "/visit", &[]);
    assert_eq!(beacon.status, 503);
    beacon.sentence();
    cluster.restart();
    within(LIMIT, "a picture of a visit", || {
        let picture = visitas.get("/visit.svg");
        picture.status == 200 && number(&picture) == "1235"
    });
    assert_eq!(database.rows(), 1235, "what was refused is not counted");
}

#[test]
fn a_total_that_was_never_known_is_a_dash() {
    let visitas = Settings::new().start_without_database();
    for path in ["/visit.svg", "/badge.svg"] {
        is_grey(&visitas.get(path), 503, "\u{2013}");
    }
}

#[test]
fn a_beacon_with_credentials_is_allowed_by_the_name_of_its_origin() {
    let visitas = Settings::new().start();
    let allowed = |response: &Response| {
        ["Origin", "Credentials"].map(|name| {
            let name = format!("Access-Control-Allow-{name}");
            response.header(&name).map(str::to_owned)
        })
    };
    let named = |origin: &str| [Some(origin.to_owned()), Some("true".to_owned())];
    let anybody = [Some("*".to_owned()), None];
    let preflight = ("Access-Control-Request-Method", "POST");
    for (origin, expected) in [
        ("https://page.example", named("https://page.example")),
        ("http://[::1]:8080", named("http://[::1]:8080")),
        ("null", named("null")),
        ("https://page.example/path", anybody.clone()),
        ("https://a\", \"https://b", anybody.clone()),
        ("*", anybody.clone()),
    ] {
        let fields = [("Origin", origin), preflight];
        let response = visitas.request("OPTIONS", "/visit", &fields);
        assert_eq!(
            (response.status, allowed(&response)),
            (204, expected.clone()),
            "{origin}"
        );
        assert_eq!(
            response.header("Access-Control-Allow-Methods"),
            Some("POST")
        );
        let headers = response
            .header("Access-Control-Allow-Headers")
            .expect("fields");
        assert!(headers.contains("Content-Type"), "{headers}");
        let visit = visitas.request("POST", "/visit", &fields[..1]);
        assert_eq!((visit.status, allowed(&visit)), (204, expected), "{origin}");
        assert_eq!(visit.header("Vary"), Some("Origin"));
    }
    assert_eq!(allowed(&visitas.request("POST", "/visit", &[])), anybody);
    let picture = visitas.request("GET", "/visit.svg", &[("Origin", "https://page.example")]);
    assert_eq!(allowed(&picture), anybody);
}

#[test]
fn metrics_and_the_access_log_know_every_form() {
    let visitas = Settings::new()
        .set("ACCESS_LOG", "on")
        .set("LOG_FORMAT", "json")
        .start();
    visits_at_once(&[visitas.port()], 2, 2).all_ok(4);
    let mut client = visitas.connect();
    for form in [Form::Page, Form::Picture, Form::Picture, Form::Beacon] {
        form.visit(&mut client).expect("an answer");
    }
    let metrics = metrics(&visitas);
    let samples = &metrics.family("visitas_answered_visits_total").samples;
    for (form, expected) in [
        ("json", 4.0),
        ("page", 1.0),
        ("picture", 2.0),
        ("beacon", 1.0),
    ] {
        let sample = samples
            .iter()
            .find(|sample| sample.label("form") == Some(form));
        assert_eq!(sample.map(|sample| sample.value), Some(expected), "{form}");
    }
    assert_eq!(metrics.sum("visitas_visits_total"), 8.0);
    let answers = &metrics.family("visitas_http_responses_total").samples;
    let visits = |code| {
        let of = |name, value| move |sample: &&_| sample_is(sample, name, value);
        answers
            .iter()
            .filter(of("kind", "visit"))
            .find(of("code", code))
            .map(|one| one.value)
    };
    assert_eq!((visits("200"), visits("204")), (Some(7.0), Some(1.0)));
    for (target, status) in [("/visit.svg", 200), ("/visit", 204)] {
        let is_line = |line: &String| {
            line.contains(&format!("\"target\":\"{target}\""))
                && line.contains(&format!("\"status\":{status}"))
        };
        within(LIMIT, target, || visitas.stderr().all().iter().any(is_line));
    }
}

fn sample_is(sample: &crate::support::prometheus::Sample, name: &str, value: &str) -> bool {
    sample.label(name) == Some(value)
}

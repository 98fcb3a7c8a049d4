//! Every route's status, content type, headers and body, and the answers to other paths and
//! methods.

use crate::support::server::READ_ROUTES;
use crate::support::{Cluster, Redis, Response, Settings};

/// The headers of every answer.
#[track_caller]
fn check(response: &Response, status: u16, content_type: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(
        response.header("Content-Type"),
        Some(content_type),
        "{response:?}"
    );
    assert_eq!(
        response.header("X-Content-Type-Options"),
        Some("nosniff"),
        "{response:?}"
    );
    assert_eq!(response.version, "HTTP/1.1");
    assert!(!response.body.is_empty(), "an empty body: {response:?}");
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// A refusal gives its reason in one plain sentence.
#[track_caller]
fn check_refusal(response: &Response, status: u16) {
    check(response, status, TEXT);
    response.sentence();
}

#[test]
fn the_page_is_html_and_is_not_stored() {
    let visitas = Settings::new().start();
    let response = visitas.get("/");
    check(&response, 200, HTML);
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let policy = response
        .header("Content-Security-Policy")
        .expect("a Content-Security-Policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
}

#[test]
fn a_visit_is_json_for_clients_that_ask_for_it() {
    let visitas = Settings::new().start();
    let response = visitas.try_visit();
    check(&response, 200, JSON);
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    assert_eq!(response.text().trim_end(), "{\"total\":1,\"cache\":1}");
}

#[test]
fn head_gets_the_headers_of_the_page() {
    let visitas = Settings::new().start();
    let (get, head) = (visitas.get("/"), visitas.request("HEAD", "/", &[]));
    assert_eq!(head.status, 200);
    for name in [
        "Content-Type",
        "Cache-Control",
        "X-Content-Type-Options",
        "Content-Security-Policy",
    ] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[test]
fn stats_are_json_with_both_numbers() {
    let visitas = Settings::new().start();
    visitas.visit();
    let response = visitas.get("/stats");
    check(&response, 200, JSON);
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let counts = response.fields();
    assert_eq!((counts.total, counts.cache), (1, Some(1)));
}

#[test]
fn health_is_plain_text() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    for path in ["/livez", "/readyz", "/readyz?verbose"] {
        let response = visitas.get(path);
        check(&response, 200, TEXT);
        assert_eq!(response.header("Cache-Control"), Some("no-store"), "{path}");
    }
    let verbose = visitas.get("/readyz?verbose").text().to_lowercase();
    let line_of = |store: &str| verbose.lines().filter(|line| line.contains(store)).count();
    assert_eq!(
        (line_of("postgres"), line_of("redis")),
        (1, 1),
        "a line per store: {verbose}"
    );
}

#[test]
fn metrics_are_in_prometheus_text_format() {
    let visitas = Settings::new().start();
    let response = visitas.get("/metrics");
    assert_eq!(response.status, 200);
    let content_type = response.header("Content-Type").expect("a type");
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
}

#[test]
fn static_answers_are_small_and_of_their_type() {
    let visitas = Settings::new().start();
    check(&visitas.get("/favicon.svg"), 200, "image/svg+xml");
    assert!(visitas.get("/favicon.svg").text().contains("<svg"));
    check(&visitas.get("/robots.txt"), 200, TEXT);
    assert!(
        visitas
            .get("/robots.txt")
            .text()
            .to_lowercase()
            .starts_with("user-agent:")
    );
    check(&visitas.get("/favicon.ico"), 200, "image/svg+xml");
    assert!(visitas.get("/favicon.ico").text().contains("<svg"));
    for path in ["/favicon.svg", "/favicon.ico", "/robots.txt"] {
        assert!(
            visitas.get(path).body.len() < 8 * 1024,
            "{path} is not small"
        );
    }
}

#[test]
fn other_paths_are_not_found() {
    let visitas = Settings::new().start();
    for path in [
        "/nowhere",
        "/index.html",
        "/stats/",
        "//",
        "/../",
        "/Stats",
        "/livez/x",
        "/%2e",
        "/favicon.ico/",
    ] {
        check_refusal(&visitas.get(path), 404);
        assert_eq!(
            visitas.request("HEAD", path, &[]).status,
            404,
            "HEAD {path}"
        );
        assert_eq!(
            visitas.request("POST", path, &[]).status,
            404,
            "POST {path}"
        );
    }
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn other_methods_get_405_and_the_allowed_ones() {
    let visitas = Settings::new().start();
    let paths = READ_ROUTES.iter().chain(&["/livez", "/readyz", "/metrics"]);
    for path in paths {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let response = visitas.request(method, path, &[]);
            check_refusal(&response, 405);
            assert_eq!(
                response.header("Allow"),
                Some("GET, HEAD"),
                "{method} {path}"
            );
        }
        assert_eq!(
            visitas.request("HEAD", path, &[]).status,
            200,
            "HEAD {path}"
        );
    }
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn a_query_does_not_change_the_route() {
    let visitas = Settings::new().start();
    assert_eq!(visitas.get("/?from=mail").status, 200);
    assert_eq!(visitas.get("/livez?x").status, 200);
    assert_eq!(visitas.get("/stats?x=/").fields().total, 1);
}

#[test]
fn a_refusal_during_the_start_is_a_sentence() {
    let visitas = Settings::new().start_without_database();
    let response = visitas.get("/");
    check(&response, 503, HTML);
    response.sentence();
    assert!(
        response
            .header("Retry-After")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok()),
        "{response:?}"
    );
}

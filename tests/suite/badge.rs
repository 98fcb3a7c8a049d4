//! Badges, and the CORS headers that let other pages read the numbers.

use crate::support::{Settings, html};

#[test]
fn it_shows_the_total_without_a_visit() {
    let visitas = Settings::new().start();
    for _ in 0..3 {
        visitas.visit();
    }
    let badge = visitas.get("/badge.svg");
    assert_eq!(
        (badge.status, badge.header("Content-Type")),
        (200, Some("image/svg+xml"))
    );
    assert!(
        badge.text().contains(">3</text>") && badge.text().contains(">visitas</text>"),
        "{}",
        badge.text()
    );
    let age = badge.header("Cache-Control").expect("a policy");
    assert!(
        age.contains("max-age=") && !age.contains("no-store"),
        "{age}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&visitas.get("/badge.json").body).expect("JSON");
    assert_eq!(
        (json["schemaVersion"].as_i64(), json["label"].as_str()),
        (Some(1), Some("visitas"))
    );
    assert_eq!(json["message"].as_str(), Some("3"));
    assert!(
        json["color"]
            .as_str()
            .is_some_and(|colour| colour.starts_with('#'))
    );
    assert_eq!(visitas.stats().total, 3);
}

#[test]
fn its_etag_gives_304_while_nothing_changes() {
    let visitas = Settings::new().start();
    for path in ["/badge.svg?label=a", "/badge.json"] {
        let first = visitas.get(path);
        let tag = first.header("ETag").expect("a tag").to_owned();
        for sent in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let again = visitas.request("GET", path, &[("If-None-Match", &sent)]);
            assert_eq!(
                (again.status, again.header("ETag")),
                (304, Some(tag.as_str())),
                "{sent}"
            );
        }
        visitas.visit();
        let changed = visitas.request("GET", path, &[("If-None-Match", &tag)]);
        assert_eq!(changed.status, 200);
        assert_ne!(changed.header("ETag"), Some(tag.as_str()));
    }
}

#[test]
fn label_and_colour_are_bounded_and_cannot_break_out() {
    let visitas = Settings::new().start();
    let long = "x".repeat(5000);
    for label in [
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "%22%20onload=%22x",
        "%00%01%ff",
        "a%26b",
        "%F0%9F%98%80",
        &long,
    ] {
        let badge = visitas.get(&format!(
            "/badge.svg?label={label}&color=%22/%3E%3Cscript%3E"
        ));
        let text = badge.text();
        assert!(
            badge.status == 200 && text.len() < 2000,
            "{label}: {} bytes",
            text.len()
        );
        assert!(
            !text.contains("<script") && !text.contains("onload=\"") && !text.contains('\0'),
            "{text}"
        );
        // SVG has stricter rules than this reader, so it finds only gross errors.
        html::Page::read(&format!(
            "<!doctype html>{}",
            text.replace("clipPath", "clippath")
                .replace("text-anchor", "anchor")
        ));
        let json = visitas.get(&format!("/badge.json?label={label}"));
        assert!(
            serde_json::from_slice::<serde_json::Value>(&json.body).is_ok(),
            "{}",
            json.text()
        );
    }
    assert!(
        visitas
            .get("/badge.svg?color=ff8800")
            .text()
            .contains("#ff8800")
    );
    assert!(
        visitas
            .get("/badge.svg?color=red&label=caf%C3%A9")
            .text()
            .contains(">café</text>")
    );
}

#[test]
fn other_pages_may_read_the_numbers_and_the_refusals() {
    let visitas = Settings::new().start();
    let origin = ("Origin", "https://page.example");
    for path in [
        "/stats",
        "/history",
        "/history?by=week",
        "/badge.json",
        "/badge.svg",
        "/nowhere",
    ] {
        let response = visitas.request("GET", path, &[origin]);
        assert_eq!(
            response.header("Access-Control-Allow-Origin"),
            Some("*"),
            "{path}"
        );
    }
    let visit = visitas.request("GET", "/", &[origin, ("Accept", "application/json")]);
    assert_eq!(visit.header("Access-Control-Allow-Origin"), Some("*"));
    let refused = visitas.request("POST", "/stats", &[origin]);
    assert_eq!(
        (
            refused.status,
            refused.header("Access-Control-Allow-Origin")
        ),
        (405, Some("*"))
    );
    for page in ["/", "/history?format=html"] {
        let page = visitas.request("GET", page, &[origin]);
        assert_eq!(page.header("Access-Control-Allow-Origin"), None, "{page:?}");
    }
}

#[test]
fn only_a_preflight_is_a_valid_options_request() {
    let visitas = Settings::new().start();
    let preflight = [
        ("Origin", "https://page.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    for path in ["/", "/stats", "/history", "/events"] {
        let response = visitas.request("OPTIONS", path, &preflight);
        assert_eq!(response.status, 204, "{path}");
        assert_eq!(
            response.header("Access-Control-Allow-Methods"),
            Some("GET, HEAD")
        );
        assert_eq!(visitas.request("OPTIONS", path, &[]).status, 405);
    }
    assert_eq!(
        visitas.request("OPTIONS", "/nowhere", &preflight).status,
        404
    );
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn if_match_is_evaluated_for_badges() {
    let visitas = Settings::new().start();
    visitas.visit();
    let tag = visitas
        .get("/badge.svg")
        .header("ETag")
        .expect("a tag")
        .to_owned();
    let status = |wanted: &str| {
        visitas
            .request("GET", "/badge.svg", &[("If-Match", wanted)])
            .status
    };
    for same in ["*", &tag, &format!("\"other\", {tag}")] {
        assert_eq!(status(same), 200, "{same}");
    }
    // If-Match never matches a weak tag (RFC 9110, section 13.1.1).
    for other in ["\"other\"", &format!("W/{tag}"), ""] {
        assert_eq!(status(other), 412, "{other}");
    }
    assert_eq!(visitas.stats().total, 1);
}

//! What counts as a visit: `GET /` and nothing else.

use crate::support::{Cluster, Settings, Visitas};

/// How much `action` adds to the total.
#[track_caller]
fn visits_of(visitas: &Visitas, action: impl FnOnce()) -> u64 {
    let before = visitas.stats().total;
    action();
    visitas.stats().total - before
}

#[test]
fn only_get_of_the_page_counts() {
    let visitas = Settings::new().start();
    assert_eq!(visits_of(&visitas, || drop(visitas.get("/"))), 1);
    assert_eq!(
        visits_of(&visitas, || assert_eq!(visitas.visit().total, 2)),
        1
    );
    assert_eq!(visits_of(&visitas, || drop(visitas.get("/?x=y"))), 1);
    for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        assert_eq!(
            visits_of(&visitas, || drop(visitas.request(method, "/", &[]))),
            0,
            "{method} /"
        );
    }
    for path in [
        "/stats",
        "/livez",
        "/readyz",
        "/metrics",
        "/favicon.ico",
        "/favicon.svg",
        "/robots.txt",
        "/nowhere",
    ] {
        assert_eq!(
            visits_of(&visitas, || drop(visitas.get(path))),
            0,
            "GET {path}"
        );
    }
}

#[test]
fn a_prefetch_is_refused_and_not_counted() {
    let visitas = Settings::new().start();
    for header in [
        ("Sec-Purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("Sec-Purpose", "prefetch; anonymous-client-ip"),
        ("Purpose", "prefetch"),
        ("purpose", "Prefetch"),
    ] {
        let refused = || {
            let response = visitas.request("GET", "/", &[header]);
            assert_eq!(response.status, 503, "{header:?}: {response:?}");
        };
        assert_eq!(visits_of(&visitas, refused), 0, "{header:?}");
    }
    let other = || {
        assert_eq!(
            visitas
                .request("GET", "/", &[("Sec-Purpose", "no-prefetching-at-all")])
                .status,
            200
        )
    };
    assert_eq!(visits_of(&visitas, other), 1, "another purpose is a visit");
    let stats = visitas.request("GET", "/stats", &[("Sec-Purpose", "prefetch")]);
    assert_eq!(stats.status, 200, "only visits are refused");
}

#[test]
fn each_visit_is_a_row_and_an_increment() {
    let database = Cluster::shared().database();
    let redis = crate::support::Redis::start();
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    for visit in 1..=5 {
        let counts = visitas.visit();
        assert_eq!((counts.total, counts.cache), (visit, Some(visit as i64)));
        assert_eq!(
            (database.rows(), redis.counter()),
            (visit, Some(visit as i64))
        );
    }
    visitas.request("HEAD", "/", &[]);
    visitas.stats();
    assert_eq!((database.rows(), redis.counter()), (5, Some(5)));
}

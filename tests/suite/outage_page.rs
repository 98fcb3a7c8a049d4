//! A visit that gets no numbers gets a page that says why, in the visitor's language, with the last
//! numbers known; or JSON, or text, for who asks for it.

use std::time::Duration;

use crate::support::html::Page;
use crate::support::ports::free_port;
use crate::support::{Cluster, LIMIT, Redis, Response, Settings, Stop, Visitas, within};

/// The page of a refused visit, and its reason.
#[track_caller]
fn outage(visitas: &Visitas, language: &str) -> (Page, String) {
    outage_at(visitas, "/", language)
}

#[track_caller]
fn outage_at(visitas: &Visitas, path: &str, language: &str) -> (Page, String) {
    let response = visitas.request("GET", path, &[("Accept-Language", language)]);
    assert_eq!(response.status, 503, "{response:?}");
    check_fields(&response);
    assert_eq!(
        response.header("Retry-After"),
        Some("5"),
        "as the page says"
    );
    let page = Page::read(&response.text());
    // "em 5 s", "in 5 s": when it tries again.
    contains(&page, &[" 5 s."]);
    let refresh = page
        .all("meta")
        .find(|meta| meta.attribute("http-equiv") == Some("refresh"));
    assert_eq!(
        refresh.and_then(|meta| meta.attribute("content")),
        Some("5")
    );
    (page, response.sentence())
}

#[track_caller]
fn check_fields(response: &Response) {
    assert_eq!(
        response.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    assert_eq!(response.header("Vary"), Some("Accept, Accept-Language"));
    let policy = response
        .header("Content-Security-Policy")
        .expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
}

#[track_caller]
fn contains(page: &Page, words: &[&str]) {
    for words in words {
        assert!(page.text.contains(words), "no {words:?} in {:?}", page.text);
    }
}

#[test]
fn a_database_that_is_down_is_named_and_the_last_numbers_are_shown() {
    let cluster = Cluster::start();
    let visitas = Settings::new()
        .postgres(&cluster.default_database())
        .start();
    (0..1234).for_each(|_| _ = visitas.visit());
    cluster.stop(Stop::Fast);
    within(LIMIT, "a refusal", || visitas.try_visit().status == 503);
    let (page, reason) = outage(&visitas, "pt");
    assert_eq!(page.language(), Some("pt-BR"));
    assert!(reason.contains("o PostgreSQL não responde"), "{reason}");
    contains(&page, &["PostgreSQL fora do ar", "1.234"]);
    assert_eq!(
        (page.number("total"), page.number("cache")),
        (Some(1234), Some(1234))
    );
    for language in ["en", "de"] {
        let (page, reason) = outage(&visitas, language);
        assert_eq!(page.language(), Some("en"));
        assert!(reason.contains("PostgreSQL does not answer"), "{reason}");
        contains(&page, &["PostgreSQL down", "1,234"]);
    }
    let head = visitas.request("HEAD", "/", &[]);
    assert_eq!((head.status, head.body.len()), (503, 0));
    check_fields(&head);
    for (accept, kind) in [
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/plain, */*;q=0.1", "text/plain; charset=utf-8"),
        ("text/html, text/plain;q=0.9", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        ("application/json, text/plain, */*", "application/json"),
    ] {
        let refused = visitas.request("GET", "/", &[("Accept", accept)]);
        assert_eq!(
            (refused.status, refused.header("Content-Type")),
            (503, Some(kind)),
            "{accept}"
        );
        refused.sentence();
    }
    cluster.restart();
    within(LIMIT, "HEAD tells that it is back", || {
        visitas.request("HEAD", "/", &[]).status == 200
    });
    assert_eq!(visitas.visit().total, 1235);
}

/// Nobody has visited all of them: their total is known from the visits by name.
#[test]
fn a_counter_by_name_has_its_own_page_and_all_have_their_total() {
    let (cluster, mut redis) = (Cluster::start(), Redis::start());
    let visitas = Settings::new()
        .postgres(&cluster.default_database())
        .redis(&redis)
        .set("COUNTERS", "blog,docs=7")
        .start();
    let visit = |name: &str| {
        let path = format!("/c/{name}");
        let response = visitas.request("GET", &path, &[("Accept", "application/json")]);
        assert_eq!(response.status, 200, "{response:?}");
        response.counts().cache
    };
    (0..10).for_each(|_| _ = visit("blog"));
    (0..3).for_each(|_| _ = visit("docs"));
    redis.stop();
    within(LIMIT, "a visit without Redis", || visit("docs").is_none());
    let docs = visitas.get("/c/docs/stats").fields().total.cast_signed();
    cluster.stop(Stop::Fast);
    within(LIMIT, "a refusal", || visitas.try_visit().status == 503);
    for (language, heading) in [("en", "Visit counter"), ("pt", "Contador de visitas")] {
        for path in ["/c/blog", "/c/blog/history?format=html"] {
            let (page, _) = outage_at(&visitas, path, language);
            contains(&page, &[&format!("blog · {heading}")]);
            let mut titles = page.all("title");
            assert!(titles.all(|title| title.raw.starts_with("blog · ")));
            let numbers = (page.number("total"), page.number("cache"));
            assert_eq!(numbers, (Some(10), Some(10)), "{path}");
        }
        let (page, _) = outage_at(&visitas, "/c/docs", language);
        assert_eq!(page.number("total"), Some(docs));
        assert!(page.number("cache") >= Some(3), "the last one known");
        let (page, _) = outage(&visitas, language);
        assert!(!page.text.contains("blog"), "{:?}", page.text);
        assert_eq!(page.number("total"), Some(10 + docs - 7));
    }
    let total = format!(": {}<", 10 + docs - 7);
    for path in ["/badge.svg", "/visit.svg"] {
        let picture = visitas.get(path);
        assert_eq!(picture.status, 503, "{path}");
        assert!(picture.text().contains(&total), "{path}: {picture:?}");
    }
}

#[test]
fn a_counter_that_starts_says_so() {
    let nobody = free_port();
    let visitas = Settings::new()
        .set("DATABASE_URL", format!("postgres://a@127.0.0.1:{nobody}/a"))
        .set("CONNECT_ATTEMPTS", 0)
        .set("PORT", free_port())
        .launch();
    visitas.wait_listening();
    let (page, reason) = outage(&visitas, "pt-BR,pt;q=0.9");
    assert!(
        reason.contains("espera que o PostgreSQL responda"),
        "{reason}"
    );
    contains(
        &page,
        &[
            "está iniciando",
            "PostgreSQL conectando",
            "ainda desconhecido",
        ],
    );
    assert_eq!((page.number("total"), page.number("cache")), (None, None));
    let (page, _) = outage(&visitas, "en");
    contains(
        &page,
        &["is starting", "PostgreSQL connecting", "not known yet"],
    );
}

#[test]
fn a_counter_that_stops_says_so() {
    let cluster = Cluster::start();
    let mut visitas = Settings::new()
        .postgres(&cluster.default_database())
        .duration("DRAIN_DELAY", Duration::from_secs(600))
        .start();
    visitas.visit();
    cluster.stop(Stop::Fast);
    within(LIMIT, "a refusal", || visitas.try_visit().status == 503);
    visitas.signal("TERM");
    within(LIMIT, "the drain", || {
        visitas.get("/readyz").text().contains("stopping")
    });
    let (page, _) = outage(&visitas, "pt");
    contains(&page, &["está reiniciando", "PostgreSQL fora do ar"]);
    assert_eq!(page.number("total"), Some(1));
    let (page, _) = outage(&visitas, "en");
    contains(&page, &["is restarting", "PostgreSQL down"]);
}

#[test]
fn too_many_visits_get_a_page_that_waits_as_long_as_the_limit_says() {
    let visitas = Settings::new().set("VISITS_PER_CLIENT", "1/1h").start();
    visitas.visit();
    let refused = visitas.get("/");
    assert_eq!(refused.status, 429, "{refused:?}");
    check_fields(&refused);
    let seconds = refused.header("Retry-After").expect("a time").to_owned();
    let page = Page::read(&refused.text());
    contains(&page, &["do seu endereço", &format!("em {seconds} s")]);
    assert_eq!(visitas.stats().total, 1, "it was not counted");
}

#[test]
fn only_a_visit_is_told_that_it_was_not_counted() {
    let cluster = Cluster::start();
    let visitas = Settings::new()
        .postgres(&cluster.default_database())
        .start();
    visitas.visit();
    cluster.stop(Stop::Fast);
    within(LIMIT, "a refusal", || visitas.try_visit().status == 503);
    let told = visitas.try_visit().sentence();
    assert!(told.contains("this visit was not counted"), "{told}");
    for path in ["/stats", "/badge.json"] {
        let response = visitas.get(path);
        assert_eq!(response.status, 503, "{path}: {response:?}");
        let told = response.sentence();
        assert!(told.contains("database is down"), "{path}: {told}");
        assert!(!told.contains("visit"), "{path}: {told}");
    }
}

//! Counters by name: `COUNTERS`, `/c/NAME` and what is below it, `/counters`.

mod exact;
mod postgres;
mod recent;
mod refused;

use crate::support::{Cluster, Redis, Response, Settings, Visitas};

/// A process on each kind of store, with these counters.
fn on_both_stores(counters: &str, test: impl Fn(&Visitas)) {
    test(&Settings::new().set("COUNTERS", counters).start());
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let settings = Settings::new().postgres(&database).redis(&redis);
    test(&settings.set("COUNTERS", counters).start());
}

#[track_caller]
fn json(response: &Response) -> serde_json::Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice(&response.body).unwrap_or_else(|why| panic!("{why}: {response:?}"))
}

/// A visit to that counter; gives its total and the counter's number.
#[track_caller]
fn visit(visitas: &Visitas, name: &str) -> (u64, Option<i64>) {
    let path = format!("/c/{name}");
    let response = visitas.request("GET", &path, &[("Accept", "application/json")]);
    assert_eq!(response.status, 200, "{response:?}\n{}", visitas.output());
    let counts = response.counts();
    (counts.total, counts.cache)
}

#[test]
fn every_form_of_a_visit_counts_for_its_name_and_for_all() {
    on_both_stores("blog,shop-*", |visitas| {
        assert_eq!(visit(visitas, "blog"), (1, Some(1)));
        let page = visitas.get("/c/blog");
        assert_eq!(
            page.header("Content-Type"),
            Some("text/html; charset=utf-8")
        );
        let text = page.text();
        assert!(
            text.contains("value=\"2\"") && text.contains("/c/blog/stats"),
            "{page:?}"
        );
        let picture = visitas.get("/c/blog/visit.svg");
        let cached = picture.header("Cache-Control").unwrap_or_default();
        assert!(cached.contains("no-store"), "{picture:?}");
        assert!(picture.text().contains(": 3<"), "{picture:?}");
        let beacon = visitas.request("POST", "/c/blog/visit", &[("Content-Length", "0")]);
        assert_eq!((beacon.status, beacon.body.len()), (204, 0), "{beacon:?}");
        assert_eq!(visit(visitas, "shop-7"), (1, Some(1)));
        // Those that are no visits.
        for (method, path) in [
            ("HEAD", "/c/blog"),
            ("HEAD", "/c/blog/visit.svg"),
            ("GET", "/c/blog/stats"),
            ("GET", "/c/blog/history"),
            ("GET", "/c/blog/history?format=html"),
            ("GET", "/c/blog/badge.svg"),
            ("GET", "/c/blog/badge.json"),
        ] {
            assert_eq!(
                visitas.request(method, path, &[]).status,
                200,
                "{method} {path}"
            );
        }
        let prefetch = [("Sec-Purpose", "prefetch")];
        assert_eq!(visitas.request("GET", "/c/blog", &prefetch).status, 503);
        let stats = json(&visitas.get("/c/blog/stats"));
        assert_eq!(
            (stats["total"].as_u64(), stats["cache"].as_i64()),
            (Some(4), Some(4))
        );
        let badge = json(&visitas.get("/c/blog/badge.json"));
        assert_eq!(badge["message"], "4");
        assert!(visitas.get("/c/blog/badge.svg").text().contains(": 4<"));
        let minutes = json(&visitas.get("/c/blog/history"));
        let points = minutes["points"].as_array().expect("points").iter();
        let visits: u64 = points
            .map(|point| point["visits"].as_u64().expect("visits"))
            .sum();
        assert_eq!(visits, 4, "{minutes}");
        // All of them count where there is no name.
        let all = visitas.visit();
        assert_eq!((all.total, all.cache), (6, Some(6)));
        assert_eq!(visit(visitas, "blog"), (5, Some(5)));
    });
}

#[test]
fn other_methods_get_the_answers_of_the_root() {
    on_both_stores("blog", |visitas| {
        for (method, below, status, allow) in [
            ("POST", "", 405, "GET, HEAD"),
            ("DELETE", "", 405, "GET, HEAD"),
            ("POST", "/visit.svg", 405, "GET, HEAD"),
            ("GET", "/visit", 405, "POST"),
            ("PUT", "/stats", 405, "GET, HEAD"),
            ("POST", "/events", 405, "GET, HEAD"),
        ] {
            let response = visitas.request(method, &format!("/c/blog{below}"), &[]);
            assert_eq!(response.status, status, "{method} {below}: {response:?}");
            let allowed = response.header("Allow").unwrap_or_default();
            assert!(allowed.starts_with(allow), "{method} {below}: {response:?}");
        }
        let preflight = [
            ("Origin", "https://example.org"),
            ("Access-Control-Request-Method", "POST"),
        ];
        assert_eq!(
            visitas
                .request("OPTIONS", "/c/blog/visit", &preflight)
                .status,
            204
        );
        assert_eq!(
            visitas.request("OPTIONS", "/c/blog", &preflight).status,
            204
        );
        assert_eq!(json(&visitas.get("/c/blog/stats"))["total"], 0);
    });
}

#[test]
fn a_start_value_is_added_to_what_is_shown() {
    on_both_stores("photos=12345,shop-*=7", |visitas| {
        assert_eq!(json(&visitas.get("/c/photos/stats"))["total"], 12_345);
        assert_eq!(visit(visitas, "photos"), (12_346, Some(1)));
        assert_eq!(visit(visitas, "shop-a"), (8, Some(1)));
        assert_eq!(
            json(&visitas.get("/c/photos/badge.json"))["message"],
            "12346"
        );
        assert_eq!(visitas.visit().total, 3, "all visits have no start value");
        let list = visitas.request("GET", "/counters", &[("Accept", "text/csv")]);
        assert_eq!(list.text(), "name,total\r\nphotos,12346\r\nshop-a,8\r\n");
    });
}

#[test]
fn the_list_has_every_name_page_by_page() {
    on_both_stores("zebra,m=5,*", |visitas| {
        for name in ["b", "a", "m", "c", "a"] {
            visit(visitas, name);
        }
        let list = json(&visitas.get("/counters"));
        let expected = serde_json::json!({"counters": [
            {"name": "a", "total": 2}, {"name": "b", "total": 1}, {"name": "c", "total": 1},
            {"name": "m", "total": 6}, {"name": "zebra", "total": 0}], "next": null});
        assert_eq!(list, expected);
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let response = visitas.get(&format!("/counters?limit=2&after={after}"));
            let page = json(&response);
            let counters = page["counters"].as_array().expect("counters");
            assert!(counters.len() <= 2, "{page}");
            names.extend(counters.iter().map(|counter| counter["name"].to_string()));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            let link = format!("<?after={next}&limit=2&format=json>; rel=\"next\"");
            assert_eq!(response.header("Link"), Some(&*link));
            next.clone_into(&mut after);
        }
        assert_eq!(names, ["\"a\"", "\"b\"", "\"c\"", "\"m\"", "\"zebra\""]);
        let csv = visitas.get("/counters?format=csv&after=c");
        assert_eq!(csv.text(), "name,total\r\nm,6\r\nzebra,0\r\n");
        for wrong in ["limit=0", "limit=1001", "limit=x", "limit=-1", "format=xml"] {
            assert_eq!(
                visitas.get(&format!("/counters?{wrong}")).status,
                400,
                "{wrong}"
            );
        }
        assert_eq!(visitas.request("POST", "/counters", &[]).status, 405);
    });
}

/// No name has a byte below `-` or above `z`: after such a text come those that its bytes precede.
#[test]
fn the_list_goes_on_after_whatever_text() {
    on_both_stores("zebra,*", |visitas| {
        for name in ["a", "a-b", "b"] {
            visit(visitas, name);
        }
        for (after, names) in [
            ("%00", &["a", "a-b", "b", "zebra"][..]),
            ("a%00", &["a-b", "b", "zebra"]),
            ("a%00zzz", &["a-b", "b", "zebra"]),
            ("a%01", &["a-b", "b", "zebra"]),
            ("a%C3%A9", &["b", "zebra"]),
            ("a%F0%9F%98%80%00", &["b", "zebra"]),
            ("a%FF", &["b", "zebra"]),
            ("a-b%00%C3%A9", &["b", "zebra"]),
            ("B%27%3B--", &["a", "a-b", "b", "zebra"]),
            ("%C3%A9", &[]),
        ] {
            let list = json(&visitas.get(&format!("/counters?after={after}")));
            let counters = list["counters"].as_array().expect("counters").iter();
            let found: Vec<&str> = counters
                .filter_map(|counter| counter["name"].as_str())
                .collect();
            assert_eq!(found, names, "{after}");
            let csv = visitas.get(&format!("/counters?format=csv&after={after}"));
            assert_eq!(csv.status, 200, "{after}: {csv:?}");
            assert_eq!(csv.text().lines().count(), names.len() + 1, "{after}");
        }
        assert!(!visitas.output().contains("WARN"), "{}", visitas.output());
    });
}

#[test]
fn a_file_of_a_counter_has_its_name() {
    on_both_stores("shop-*", |visitas| {
        for format in ["csv", "json"] {
            let file = visitas.get(&format!("/c/shop-7/history?by=hour&format={format}"));
            let named = format!("attachment; filename=\"visitas-shop-7-hour.{format}\"");
            assert_eq!(file.header("Content-Disposition"), Some(&*named));
        }
    });
}

#[test]
fn listeners_hear_of_their_name_alone() {
    on_both_stores("blog,docs", |visitas| {
        let mut listener = visitas.connect();
        listener.send("GET /c/blog/events HTTP/1.1\r\nHost: a\r\n\r\n");
        listener.wait_for("data: {\"total\":0,");
        visit(visitas, "docs");
        visit(visitas, "blog");
        listener.wait_for("data: {\"total\":1,");
        visit(visitas, "docs");
        visit(visitas, "blog");
        listener.wait_for("data: {\"total\":2,");
    });
}

#[test]
fn names_and_totals_survive_a_restart() {
    let settings = Settings::new().set("COUNTERS", "*").set("MAX_COUNTERS", 2);
    let visitas = settings.start();
    assert_eq!(visit(&visitas, "a").0, 1);
    assert_eq!(visit(&visitas, "b").0, 1);
    let visitas = visitas.stop().start();
    assert_eq!(visitas.get("/c/c").status, 404, "two names are in use");
    assert_eq!(visit(&visitas, "b").0, 2);
    let visitas = visitas.kill().start();
    assert_eq!(visit(&visitas, "a").0, 2);
    assert_eq!(visitas.visit().total, 5);
}

#[test]
fn without_the_setting_there_is_no_such_route() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    for path in ["/counters", "/c/blog", "/c/blog/stats", "/c/", "/c"] {
        assert_eq!(visitas.get(path).status, 404, "{path}");
    }
    visitas.visit();
    let columns = "SELECT count(*) FROM information_schema.columns \
        WHERE table_name = 'acessos' AND column_name = 'contador'";
    assert_eq!(database.number(columns), 0);
}

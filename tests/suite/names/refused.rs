//! What is no name, and what is one too many: refused, and nothing is written.

use super::visit;
use crate::support::{Cluster, Redis, Settings, Visitas};

/// Names that a client may try, as bytes of a path.
const NO_NAMES: &[&str] = &[
    "",
    ".",
    "..",
    "...",
    "Blog",
    "BLOG",
    "blo g",
    "blo%20g",
    "%62log",
    "blog%00",
    "blog%2f",
    "b%C3%A9",
    "caf\u{e9}",
    "\u{430}",
    "\u{ff41}",
    "a*",
    "*",
    "a=1",
    "a,b",
    "a'b",
    "a\"b",
    "a;b",
    "a--;DROP TABLE acessos",
    "a$1",
    "a\\b",
    "a:b",
    "a@b",
    "a+b",
    "a&b",
    "a~b",
    "a|b",
    "<a>",
    "{a}",
    "\u{202e}a",
    "a\u{301}",
];

fn count(visitas: &Visitas) -> u64 {
    visitas.stats().total
}

#[test]
fn what_is_no_name_is_not_found_and_writes_nothing() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let settings = Settings::new().postgres(&database).redis(&redis);
    for visitas in [settings, Settings::new()].map(|settings| settings.set("COUNTERS", "*").start())
    {
        visit(&visitas, "blog");
        let long = "a".repeat(65);
        for name in NO_NAMES.iter().copied().chain([&*long]) {
            for below in ["", "/visit.svg", "/visit", "/stats", "/history", "/events"] {
                let method = if below == "/visit" { "POST" } else { "GET" };
                let mut client = visitas.connect();
                let path = format!("/c/{name}{below}");
                client.send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                ));
                let status = client.read().status;
                // What is no path at all is refused before it is looked at.
                assert!([404, 400].contains(&status), "{path:?}: {status}");
            }
        }
        for path in [
            "/c",
            "/c/",
            "/c//",
            "/c/blog/",
            "/c/blog//stats",
            "/c/blog/x",
            "/c/blog/c/blog",
        ] {
            assert_eq!(visitas.get(path).status, 404, "{path}");
        }
        assert_eq!(count(&visitas), 1, "{}", visitas.output());
        let longest = "a".repeat(64);
        assert_eq!(visit(&visitas, &longest).0, 1);
        for name in [".a", "a..", "-", "_", "0", "a.b_c-9", "visit.svg", "stats"] {
            assert_eq!(visit(&visitas, name).0, 1, "{name}");
        }
    }
    assert_eq!(
        database.number("SELECT count(DISTINCT contador) FROM acessos"),
        10
    );
    let keys = redis.command(&["DBSIZE"]);
    assert_eq!(
        keys.as_deref(),
        Some("11"),
        "one key per name, and the one of all"
    );
}

#[test]
fn names_that_no_rule_admits_are_not_found() {
    let visitas = Settings::new().set("COUNTERS", "blog,shop-*").start();
    for name in ["blo", "blogs", "shop", "xshop-1", "docs", "shop_1"] {
        assert_eq!(visitas.get(&format!("/c/{name}")).status, 404, "{name}");
        assert_eq!(
            visitas.get(&format!("/c/{name}/badge.svg")).status,
            404,
            "{name}"
        );
    }
    assert_eq!(count(&visitas), 0);
}

#[test]
fn one_name_too_many_is_refused_in_every_form() {
    let database = Cluster::shared().database();
    let settings = Settings::new()
        .postgres(&database)
        .set("COUNTERS", "blog,*");
    let visitas = settings.set("MAX_COUNTERS", 3).start();
    visit(&visitas, "a");
    visit(&visitas, "b");
    let json = [("Accept", "application/json")];
    for _ in 0..3 {
        let refused = visitas.request("GET", "/c/c", &json);
        assert_eq!(refused.status, 404, "{refused:?}");
        assert!(refused.text().contains("counters"), "{refused:?}");
        assert_eq!(visitas.get("/c/c").status, 404);
        assert_eq!(
            visitas
                .request("POST", "/c/c/visit", &[("Content-Length", "0")])
                .status,
            404
        );
        let picture = visitas.get("/c/c/visit.svg");
        assert_eq!(picture.header("Content-Type"), Some("image/svg+xml"));
        assert_eq!(picture.status, 404, "{picture:?}");
        // To look at it takes no room.
        assert_eq!(visitas.get("/c/c/stats").status, 200);
    }
    assert_eq!(database.rows(), 2);
    assert_eq!(visit(&visitas, "blog").0, 1, "a whole name has its place");
    assert_eq!(visit(&visitas, "a").0, 2);
}

/// Random bytes as names: each is either admitted and counted once, or refused and not written.
#[test]
fn random_names_are_counted_or_refused_and_nothing_else() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("COUNTERS", "*")
        .start();
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .subsec_nanos();
    let mut state = u64::from(seed) | 1;
    let mut random = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end as u64) as usize
    };
    let pieces: Vec<String> = ('a'..='z')
        .chain('0'..='9')
        .chain(['.', '_', '-', '.', '-'])
        .map(String::from)
        .chain(
            [
                "A",
                "%61",
                "%",
                "é",
                "\u{200b}",
                "*",
                "'",
                "/",
                "//",
                "~",
                "\u{1f600}",
                "%2e",
            ]
            .map(str::to_owned),
        )
        .collect();
    let mut expected = crate::support::names::ByName::new();
    for _ in 0..600 {
        let longest = if random(10) == 0 { 70 } else { 8 };
        let length = 1 + random(longest);
        let mostly = if random(2) == 0 { 41 } else { pieces.len() };
        let name: String = (0..length).map(|_| &*pieces[random(mostly)]).collect();
        let is_name = name.len() <= 64
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && name.bytes().any(|b| b != b'.');
        let mut client = visitas.connect();
        client.send(format!(
            "GET /c/{name} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n"
        ));
        let response = client.read();
        if is_name {
            let visits = expected.entry(name.clone()).or_insert(0);
            *visits += 1;
            assert_eq!(response.status, 200, "seed {seed}, {name:?}: {response:?}");
            assert_eq!(response.counts().total, *visits, "seed {seed}, {name:?}");
        } else {
            let refused = [400, 404].contains(&response.status);
            assert!(refused, "seed {seed}, {name:?}: {response:?}");
        }
    }
    assert!(expected.len() > 50, "seed {seed}: {expected:?}");
    let rows = crate::support::names::totals_are_rows(&visitas, &database);
    assert_eq!(rows, expected, "seed {seed}");
    assert_eq!(
        database.rows(),
        expected.values().sum::<u64>(),
        "seed {seed}"
    );
}

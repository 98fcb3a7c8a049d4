//! TLS to Redis: addresses, variables, certificates, and what is refused.

use std::time::Duration;

use super::{NAMES, check};
use crate::support::scratch::Folder;
use crate::support::{
    Authority, Clients, LIMIT, Load, Pair, Redis, Settings, Visitas, machine, within,
};

fn counted_at(url: &str) -> Settings {
    Settings::new().set("REDIS_URL", url)
}

/// The line about it in `check`, and the exit code.
#[track_caller]
fn line(settings: Settings, word: &str) -> (Option<i32>, String) {
    let ended = check(settings);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let from = lines
        .iter()
        .position(|line| line.contains("  counter"))
        .unwrap_or_else(|| panic!("{ended:?}"));
    let found = lines[from..].iter().find(|line| line.contains(word));
    let found = found.unwrap_or_else(|| panic!("no {word:?} in {ended:?}"));
    (ended.code, (*found).to_owned())
}

#[track_caller]
fn encryption(settings: Settings) -> String {
    let (code, line) = line(settings, "its encryption");
    assert_eq!(code, Some(0), "{line}");
    line
}

#[track_caller]
fn refusal(settings: Settings) -> String {
    let (code, line) = line(settings, "FAIL");
    assert_eq!(code, Some(1), "{line}");
    line
}

fn started(server: &Pair, clients: &Authority, asks: bool) -> Redis {
    let mut redis = Redis::encrypted(server, clients, asks);
    redis.restart();
    redis
}

#[test]
fn visits_are_counted_over_tls_whichever_way_it_is_asked_for() {
    let (authority, folder) = (Authority::new("the test's"), Folder::new("redis-tls"));
    let redis = started(&authority.issue(NAMES), &authority, false);
    redis.command(&[
        "ACL",
        "SETUSER",
        "visitas",
        "on",
        ">app_password",
        "~*",
        "+@all",
    ]);
    let root = authority.file(&folder, "root.crt");
    let port = redis.encrypted_port();
    let parts = || {
        Settings::new()
            .set("REDIS_HOST", "localhost")
            .set("REDIS_PORT", port)
            .set("REDIS_TLS", "on")
    };
    let login = "visitas:app_password";
    let ways = [
        counted_at(&format!("rediss://{login}@localhost:{port}")),
        counted_at(&format!("valkeys://{login}@127.0.0.1:{port}/0")),
        counted_at(&format!("redis://{login}@localhost:{port}")).set("REDIS_TLS", "on"),
        parts(),
        parts()
            .set("REDIS_USER", "visitas")
            .set("REDIS_PASSWORD", "app_password"),
    ];
    for (visits, settings) in (1..).zip(ways) {
        let visitas = settings.set("REDIS_CA_FILE", root.display()).start();
        assert_eq!(visitas.visit().cache, Some(visits));
        visitas.stop();
    }
    let verified =
        counted_at(&format!("rediss://localhost:{port}")).set("REDIS_CA_FILE", root.display());
    let found = encryption(verified);
    assert!(
        found.contains("TLS 1.3, TLS")
            && found.contains("REDIS_CA_FILE")
            && found.contains("for localhost"),
        "{found}"
    );
    for insecure in [
        counted_at(&format!("rediss://localhost:{port}/0#insecure")),
        parts().set("REDIS_TLS", "insecure"),
    ] {
        assert!(encryption(insecure).contains("nothing verified (REDIS_TLS)"));
    }
    let by_public =
        counted_at(&format!("rediss://localhost:{port}")).set("SSL_CERT_FILE", root.display());
    assert!(encryption(by_public).contains("SSL_CERT_FILE"));
    assert!(encryption(counted_at(&redis.url())).contains("none (REDIS_TLS)"));
}

#[test]
fn what_is_wrong_is_told_by_the_setting() {
    let (authority, folder) = (Authority::new("the test's"), Folder::new("redis-tls"));
    let root = authority.file(&folder, "root.crt");
    let other = Authority::new("another").file(&folder, "other.crt");
    let with = |port: u16, root: &std::path::Path| {
        counted_at(&format!("rediss://localhost:{port}")).set("REDIS_CA_FILE", root.display())
    };
    let good = started(&authority.issue(NAMES), &authority, false);
    let expired = started(&authority.expired(NAMES), &authority, false);
    let own = started(&Pair::self_signed(NAMES), &authority, false);
    let elsewhere = started(&authority.issue(&["other.example"]), &authority, false);
    for (settings, words) in [
        (with(good.encrypted_port(), &other), "REDIS_CA_FILE"),
        (
            counted_at(&format!("rediss://localhost:{}", good.encrypted_port())),
            "REDIS_CA_FILE",
        ),
        (with(own.encrypted_port(), &root), "REDIS_CA_FILE"),
        (with(expired.encrypted_port(), &root), "REDIS_TLS"),
        (with(elsewhere.encrypted_port(), &root), "REDIS_TLS"),
        // The port without TLS.
        (with(good.port(), &root), "REDIS_TLS"),
        (
            with(good.encrypted_port(), &folder.path().join("missing")),
            "REDIS_CA_FILE",
        ),
    ] {
        let sentence = refusal(settings);
        assert!(sentence.contains(words), "{words}: {sentence}");
        // Nobody is told to verify nothing.
        assert!(!sentence.contains("insecure"), "{words}: {sentence}");
    }
    let address = started(&authority.issue(&["127.0.0.1"]), &authority, false);
    let by_address = format!("rediss://127.0.0.1:{}", address.encrypted_port());
    let by_address = counted_at(&by_address).set("REDIS_CA_FILE", root.display());
    assert!(encryption(by_address).contains("for 127.0.0.1"));
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let (authority, folder) = (Authority::new("the test's"), Folder::new("redis-tls"));
    let redis = started(&authority.issue(NAMES), &authority, true);
    let root = authority.file(&folder, "root.crt");
    let settings = || {
        counted_at(&format!("rediss://localhost:{}", redis.encrypted_port()))
            .set("REDIS_CA_FILE", root.display())
    };
    let missing = refusal(settings());
    assert!(missing.contains("REDIS_CERT_FILE"), "{missing}");
    let shown = |pair: &Pair, name: &str| {
        let (certificate, key) = pair.files(&folder, name);
        settings()
            .set("REDIS_CERT_FILE", certificate.display())
            .set("REDIS_KEY_FILE", key.display())
    };
    let good = authority.issue(&["client"]);
    assert!(encryption(shown(&good, "good")).ends_with("with a client certificate"));
    assert_eq!(shown(&good, "good").start().visit().cache, Some(1));
    let wrong = Authority::new("another").issue(&["client"]);
    let sentence = refusal(shown(&wrong, "wrong"));
    assert!(sentence.contains("REDIS_CERT_FILE"), "{sentence}");
}

/// The server's certificate, its root and the client's certificate change while visits go on; each
/// connection that is made anew reads the files anew.
#[test]
fn certificates_are_changed_under_load_without_a_restart() {
    let _machine = machine();
    let (folder, first) = (Folder::new("rotated"), Authority::new("the first"));
    let redis = started(&first.issue(NAMES), &first, true);
    let trust = |authority: &Authority| {
        authority.issue(&["client"]).files(&folder, "client");
        authority.file(&folder, "root.crt");
    };
    trust(&first);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let visitas = counted_at(&format!("rediss://localhost:{}", redis.encrypted_port()))
        .set("REDIS_CA_FILE", file("root.crt"))
        .set("REDIS_CERT_FILE", file("client.crt"))
        .set("REDIS_KEY_FILE", file("client.key"))
        .start();
    let load = Load::of(&Clients {
        ports: vec![visitas.port()],
        count: 8,
        pause: Duration::from_millis(1),
        keep_counts: false,
    });
    let counts = |visitas: &Visitas| visitas.try_visit().counts().cache.is_some();
    // A connection that never worked would not be replaced at once.
    within(LIMIT, "the counter", || counts(&visitas));
    for turn in 0..4 {
        let next = Authority::new(&format!("the next, {turn}"));
        redis.recertify(&next.issue(NAMES), &next);
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        // The files are of the one before: not only the visit in flight goes without a counter.
        within(LIMIT, "no counter", || {
            (0..20).all(|_| !counts(&visitas)) && visitas.output().contains("REDIS_CA_FILE")
        });
        trust(&next);
        within(LIMIT, "the counter to be back", || counts(&visitas));
        let before = redis.counter();
        within(LIMIT, "visits to be counted", || {
            redis.counter() > before.map(|count| count + 50)
        });
    }
    let outcomes = load.stop();
    outcomes.all_ok(outcomes.ok());
    // Why it was down is that it was not reached anew, not that the connection before was closed.
    visitas.logged(&["REDIS_CA_FILE"]);
    let log = visitas.output();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_contradicts_itself_is_refused_by_its_name() {
    for (settings, named) in [
        (
            counted_at("rediss://localhost").set("REDIS_TLS", "off"),
            "REDIS_TLS",
        ),
        // Neither of two words that differ is the safer one.
        (
            counted_at("rediss://localhost").set("REDIS_TLS", "insecure"),
            "REDIS_TLS",
        ),
        (
            counted_at("rediss://localhost#insecure").set("REDIS_TLS", "on"),
            "REDIS_TLS",
        ),
        (
            counted_at("redis://localhost").set("REDIS_TLS", "yes"),
            "REDIS_TLS",
        ),
        (
            counted_at("unix:///run/redis").set("REDIS_TLS", "on"),
            "REDIS_TLS",
        ),
        (
            counted_at("redis://localhost").set("REDIS_CA_FILE", "/a"),
            "REDIS_CA_FILE",
        ),
        (
            counted_at("rediss://localhost").set("REDIS_CERT_FILE", "/a"),
            "REDIS_CERT_FILE",
        ),
        (
            counted_at("rediss://localhost#insecure").set("REDIS_CA_FILE", "/a"),
            "REDIS_CA_FILE",
        ),
        (counted_at("rediss://localhost#nonsense"), "REDIS_URL"),
        (Settings::new().set("REDIS_TLS", "on"), "REDIS_HOST"),
    ] {
        let ended = settings.run();
        assert_eq!(ended.code, Some(2), "{named}: {ended:?}");
        assert!(ended.stderr.contains(named), "{named}: {ended:?}");
    }
}

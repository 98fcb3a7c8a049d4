//! The environment and the command line. Errors end with exit code 2 and one sentence, which never
//! shows a value that may hold a password.

pub mod defaults;
mod files;

use std::os::unix::fs::MetadataExt;

use crate::support::scratch::Folder;
use crate::support::server::Ended;
use crate::support::{Cluster, Redis, Settings};

#[track_caller]
fn is_refused(ended: &Ended, variable: &str) {
    assert_eq!(ended.code, Some(2), "{variable}: {ended:?}");
    assert_eq!(ended.stdout, "", "{variable}");
    assert!(ended.stderr.contains(variable), "which variable: {ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    assert!(
        ended.stderr.trim_end().lines().count() <= 3,
        "one sentence: {ended:?}"
    );
}

#[test]
fn a_wrong_value_is_named_with_what_the_variable_takes() {
    for (variable, value, takes) in [
        ("HOST", "no such host", "address"),
        ("PORT", "65536", "65535"),
        ("PORT", "-1", "65535"),
        ("PORT", "http", "65535"),
        ("DB_PORT", "0", "65535"),
        ("DB_PORT", "5432x", "65535"),
        ("DB_SSLMODE", "verify", "verify-full"),
        ("REDIS_TLS", "yes", "insecure"),
        ("REDIS_PORT", "70000", "65535"),
        ("REDIS_PORT", "six", "65535"),
        ("WORKERS", "0", "1"),
        ("WORKERS", "two", "1"),
        ("CONNECT_ATTEMPTS", "-1", "0"),
        ("CONNECT_ATTEMPTS", "some", "0"),
        ("CONNECT_INTERVAL", "soon", "seconds"),
        ("CONNECT_INTERVAL", "-5", "seconds"),
        ("REQUEST_TIMEOUT", "5 minutes", "seconds"),
        ("REQUEST_TIMEOUT", "0", "seconds"),
        ("REQUEST_TIMEOUT", "inf", "seconds"),
        ("REQUEST_TIMEOUT", "1e3", "seconds"),
        ("HEADER_TIMEOUT", "0", "seconds"),
        ("HEADER_TIMEOUT", "NaN", "seconds"),
        ("IDLE_TIMEOUT", "1w", "seconds"),
        ("MAX_CONNECTIONS", "0", "1"),
        ("MAX_CONNECTIONS", "1.5", "1"),
        ("MAX_QUEUE", "0", "1"),
        ("MAX_QUEUE", "99999999999999999999", "1"),
        ("BASE_PATH", "visits", "/visits"),
        ("BASE_PATH", "/visits/", "no slash at the end"),
        ("BASE_PATH", "/", "no slash at the end"),
        ("BASE_PATH", "/a//b", "/visits"),
        ("BASE_PATH", "/a/../b", "/visits"),
        ("BASE_PATH", "/a b", "letters, digits"),
        ("BASE_PATH", "/%41", "letters, digits"),
        ("BASE_PATH", "/livez", "not /livez"),
        ("OPS_PORT", "65536", "65535"),
        ("OPS_PORT", "ops", "65535"),
        ("VISITS_PER_CLIENT", "60", "60/1m"),
        ("VISITS_PER_CLIENT", "0/1m", "60/1m"),
        ("VISITS_PER_CLIENT", "60/0s", "60/1m"),
        ("VISITS_PER_CLIENT", "sixty/1m", "60/1m"),
        ("VISITS_PER_CLIENT", "60/1w", "60/1m"),
        ("TRUSTED_PROXIES", "proxy", "10.0.0.0/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "10.0.0.0/8"),
        ("DRAIN_DELAY", "-1", "seconds"),
        ("DRAIN_TIMEOUT", "never", "seconds"),
        ("COUNTERS", "Blog", "a-z"),
        ("COUNTERS", "blog,,docs", "blog,shop-*=0"),
        ("COUNTERS", "blog;docs", "commas"),
        ("COUNTERS", "a*b", "* at the end"),
        ("COUNTERS", "blog=-1", "start value"),
        ("COUNTERS", "blog=1,blog", "blog,shop-*=0"),
        ("COUNTERS", "..", "blog,shop-*=0"),
        ("COUNTERS", "ação", "a-z"),
        ("MAX_COUNTERS", "0", "100000"),
        ("MAX_COUNTERS", "100001", "100000"),
        ("KEEP_ROWS", "0", "seconds"),
        ("KEEP_ROWS", "many", "seconds"),
        ("KEEP_ROWS", "-1d", "seconds"),
        ("KEEP_ROWS", "5w", "seconds"),
        ("KEEP_ROWS", "1e9d", "seconds"),
        ("KEEP_ROWS", "99999999999999999999d", "seconds"),
        ("LOG_FORMAT", "xml", "json"),
        ("ACCESS_LOG", "maybe", "on"),
    ] {
        // With both stores, so that their variables are read.
        let ended = Settings::new()
            .set("DB_HOST", "127.0.0.1")
            .set("REDIS_HOST", "127.0.0.1")
            .set(variable, value)
            .run();
        is_refused(&ended, variable);
        assert!(ended.stderr.contains(value), "the value: {ended:?}");
        assert!(ended.stderr.contains(takes), "what is valid: {ended:?}");
    }
}

#[test]
fn more_whole_names_than_may_be_in_use_are_refused() {
    let settings = Settings::new()
        .set("COUNTERS", "a,b,c,d-*")
        .set("MAX_COUNTERS", 2);
    let ended = settings.run();
    is_refused(&ended, "MAX_COUNTERS");
    assert!(ended.stderr.contains("at least 3"), "{ended:?}");
}

#[test]
fn a_wrong_address_is_refused_without_showing_its_password() {
    for (variable, value) in [
        (
            "DATABASE_URL",
            "postgres://user:s3cret@127.0.0.1:notaport/db",
        ),
        ("DATABASE_URL", "host=127.0.0.1 password=s3cret nonsense=1"),
        ("DATABASE_URL", "mysql://user:s3cret@127.0.0.1/db"),
        ("DATABASE_URL", "s3cret"),
        ("REDIS_URL", "redis://:s3cret@127.0.0.1:notaport"),
        ("REDIS_URL", "http://:s3cret@127.0.0.1"),
        ("REDIS_URL", "s3cret"),
        // This violated an assertion in the parser of names without Unicode tables.
        ("REDIS_URL", "file://s3cret.A\u{be}"),
    ] {
        let ended = Settings::new().set(variable, value).run();
        is_refused(&ended, variable);
        assert!(
            !ended.stderr.contains("s3cret"),
            "a password is shown: {ended:?}"
        );
        let folder = Folder::new("secrets");
        let file = folder.file("address", value);
        let ended = Settings::new()
            .set(&format!("{variable}_FILE"), file.display())
            .run();
        is_refused(&ended, variable);
        assert!(
            !ended.stderr.contains("s3cret"),
            "a password is shown: {ended:?}"
        );
    }
}

#[test]
fn an_unknown_parameter_of_an_address_is_told_from_a_wrong_address() {
    for value in [
        "postgres://user@127.0.0.1/db?nonsense=1",
        "host=127.0.0.1 user=user nonsense=1",
        "postgres://user@127.0.0.1/db?connect_timeout=soon",
    ] {
        let ended = Settings::new().set("DATABASE_URL", value).run();
        is_refused(&ended, "DATABASE_URL");
        let told = &ended.stderr;
        assert!(told.contains("a parameter is unknown"), "{told}");
        assert!(!told.contains("nonsense"), "it may be a password's: {told}");
    }
}

#[test]
fn a_value_that_is_not_utf8_is_refused() {
    // Only a shell can set a byte that is not UTF-8 here.
    let ended = Settings::new()
        .through(&["/bin/sh", "-c", "HOST=$(printf '\\377') exec \"$0\" \"$@\""])
        .run();
    is_refused(&ended, "HOST");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let mut settings = Settings::new();
    for (name, _) in defaults::documented() {
        if !["HOST", "PORT", "WORKERS"].contains(&name.as_str()) {
            settings = settings.set(&name, "");
        }
    }
    let visitas = settings.start();
    assert_eq!(visitas.visit().total, 1);
}

#[test]
fn durations_are_seconds_with_decimals_or_carry_their_unit() {
    for value in ["2", "2s", "2000ms", "0.5", "0.5s", "1500ms"] {
        let visitas = Settings::new()
            .set("REQUEST_TIMEOUT", value)
            .set("DRAIN_TIMEOUT", value)
            .start();
        assert_eq!(visitas.visit().total, 1, "{value}");
    }
}

#[test]
fn parts_and_addresses_reach_the_same_stores() {
    let (cluster, redis) = (Cluster::shared(), Redis::with_password("p w/d"));
    let database = cluster.default_database();
    // User and database have their defaults.
    let parts = Settings::new()
        .set("DB_HOST", "localhost")
        .set("DB_PORT", cluster.port())
        .set("DB_PASSWORD", "app_password")
        .set("REDIS_HOST", "localhost")
        .set("REDIS_PORT", redis.port())
        .set("REDIS_PASSWORD", "p w/d")
        .start();
    let before = database.rows();
    assert_eq!(parts.visit().total, before + 1);
    assert_eq!(redis.counter(), Some(1));
    let pairs = format!(
        "host=127.0.0.1 port={} user=user_app password=app_password dbname=desafio3_db",
        cluster.port()
    );
    let encoded = format!("redis://:p%20w%2Fd@127.0.0.1:{}", redis.port());
    let addresses = Settings::new()
        .set("DATABASE_URL", pairs)
        .set("REDIS_URL", encoded)
        .start();
    assert_eq!(addresses.visit().total, before + 2);
    assert_eq!(redis.counter(), Some(2));
}

#[test]
fn an_address_overrides_its_parts() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let visitas = Settings::new()
        .postgres(&database)
        .set("DB_HOST", "127.0.0.1")
        .set("DB_PORT", 1)
        .redis(&redis)
        .set("REDIS_HOST", "127.0.0.1")
        .set("REDIS_PORT", 1)
        .start();
    assert_eq!(visitas.visit().total, 1);
    assert_eq!((database.rows(), redis.counter()), (1, Some(1)));
}

#[test]
fn redis_counts_in_the_database_of_its_address() {
    let redis = Redis::start();
    let visitas = Settings::new()
        .set("REDIS_URL", format!("{}/3", redis.url()))
        .start();
    assert_eq!(visitas.visit().cache, Some(1));
    assert_eq!(redis.counter(), None, "database 0");
}

#[test]
fn version_is_that_of_the_crate_with_commit_and_target() {
    let ended = Settings::empty().argument("--version").run();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    // scripts/build-static checks commit and target of what it builds.
    let start = concat!("visitas ", env!("CARGO_PKG_VERSION"), " (");
    let build = ended
        .stdout
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(')'));
    let (commit, target) = build.and_then(|build| build.split_once(", ")).expect(start);
    assert!(!commit.is_empty(), "{ended:?}");
    assert!(
        ["x86_64", "aarch64", "arm", "riscv64"]
            .iter()
            .any(|arch| target.starts_with(arch))
    );
}

#[test]
fn an_unknown_flag_or_command_is_refused() {
    for arguments in [
        &["--nonsense"][..],
        &["serve"],
        &["-x"],
        &["healthcheck", "more"],
    ] {
        let ended = Settings::new().arguments(arguments).run();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        let word = arguments.last().expect("an argument");
        assert!(
            ended.stderr.contains(word) && !ended.stderr.contains("panicked"),
            "{arguments:?}: {ended:?}"
        );
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn other_variables_change_nothing() {
    let lines = |settings: Settings| {
        let visitas = settings.start();
        assert_eq!(visitas.visit().total, 1);
        visitas.stderr().all().len()
    };
    let others = Settings::new()
        .set("DB_TIMEOUT", "x")
        .set("PGHOST", "nowhere")
        .set("RUST_LOG", "trace");
    assert_eq!(lines(others), lines(Settings::new()));
}

#[test]
fn parts_of_an_address_without_a_host_are_refused() {
    for (host, parts) in [
        (
            "DB_HOST",
            &[("DB_PASSWORD", "s3cret"), ("DB_NAME", "visits")][..],
        ),
        ("DB_HOST", &[("DB_USER", "app")]),
        ("DB_HOST", &[("DB_PORT", "5433")]),
        ("REDIS_HOST", &[("REDIS_PASSWORD", "s3cret")]),
        (
            "REDIS_HOST",
            &[("REDIS_USER", "app"), ("REDIS_PORT", "6380")],
        ),
    ] {
        let ended = parts
            .iter()
            .fold(Settings::new(), |settings, (name, value)| {
                settings.set(name, value)
            })
            .run();
        is_refused(&ended, host);
        parts
            .iter()
            .for_each(|(name, _)| assert!(ended.stderr.contains(name), "{name}: {ended:?}"));
        assert!(
            !ended.stderr.contains("s3cret"),
            "a password is shown: {ended:?}"
        );
    }
}

#[test]
fn redis_gets_the_user_and_the_ready_line_names_its_database() {
    let redis = Redis::with_password("another");
    redis.command(&["ACL", "SETUSER", "counter", "on", ">s3cret", "~*", "+@all"]);
    let visitas = Settings::new()
        .set("REDIS_HOST", "127.0.0.1")
        .set("REDIS_PORT", redis.port())
        .set("REDIS_USER", "counter")
        .set("REDIS_PASSWORD", "s3cret")
        .start();
    assert_eq!(visitas.visit().cache, Some(1));
    let other = Settings::new()
        .set("REDIS_URL", format!("{}/3", redis.url()))
        .launch()
        .wait_ready();
    assert!(
        other.contains(&format!("redis at 127.0.0.1:{}/3", redis.port())),
        "{other}"
    );
}

#[test]
fn a_folder_without_write_access_is_named_with_advice() {
    if std::fs::metadata("/proc/self").expect("this process").uid() != 0 {
        return crate::support::skipped("another user", "only root can be one");
    }
    let settings = Settings::empty()
        .set("HOST", "127.0.0.1")
        .set("PORT", 0)
        .set("DATA_DIR", "/proc/self");
    let ended = settings
        .through(&[
            "setpriv",
            "--reuid=65532",
            "--regid=65532",
            "--clear-groups",
        ])
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for word in ["DATA_DIR", "/proc/self", "65532", "chown"] {
        assert!(ended.stderr.contains(word), "no {word}: {ended:?}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_variable() {
    let visitas = Settings::new().start();
    for (name, other) in [("PORT", "OPS_PORT"), ("OPS_PORT", "PORT")] {
        let ended = Settings::new()
            .set(other, 0)
            .set(name, visitas.port())
            .run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let error = ended
            .stderr
            .lines()
            .find(|line| line.contains("ERROR"))
            .unwrap_or_default();
        assert!(
            error.contains(&format!(" {name}: "))
                && error.contains(&format!("127.0.0.1:{}", visitas.port())),
            "{ended:?}"
        );
    }
}

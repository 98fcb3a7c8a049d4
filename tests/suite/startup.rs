//! The start: its ready line, what it creates, and how it waits for stores.

use std::time::{Duration, Instant};

use crate::support::load::visits_at_once;
use crate::support::ports::free_port;
use crate::support::{Cluster, Database, LIMIT, Redis, Settings, Visitas, within};

/// The log lines about attempts.
fn attempts(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter(|line| line.contains("attempt "))
        .collect()
}

#[test]
fn the_ready_line_names_the_address_and_the_stores() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let postgres_at = format!(
        "postgres at 127.0.0.1:{}/{} (schema public)",
        database.port(),
        database.name
    );
    let redis_at = format!("redis at 127.0.0.1:{}/0", redis.port());
    let check = |mut visitas: Visitas, ledger: &str, counter: &str| {
        let line = visitas.wait_ready();
        let version = env!("CARGO_PKG_VERSION");
        let address = format!("http://127.0.0.1:{}", visitas.port());
        let expected = format!(
            "visitas {version} ready at {address}: ledger {ledger}, counter {counter}, 2 workers"
        );
        assert_eq!(line, expected);
        visitas.visit();
        visitas.signal("TERM");
        let ended = visitas.wait_end();
        assert_eq!(ended.stdout, line, "nothing else on stdout");
        assert!(!ended.stderr.contains("app_password"), "{ended:?}");
    };
    check(
        Settings::new().postgres(&database).redis(&redis).launch(),
        &postgres_at,
        &redis_at,
    );
    check(
        Settings::new().postgres(&database).launch(),
        &postgres_at,
        "in process",
    );
    let embedded = Settings::new().redis(&redis).launch();
    check(embedded, "embedded in ./data", &redis_at);
}

#[test]
fn it_listens_on_every_address_when_nothing_is_set() {
    let mut visitas = Settings::empty().set("PORT", 0).launch();
    let line = visitas.wait_ready();
    assert!(line.contains("http://0.0.0.0:"), "{line}");
    assert_eq!(visitas.visit().total, 1);
}

#[test]
fn it_creates_its_tables_in_an_empty_database() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    let columns = "SELECT string_agg(column_name || ' ' || data_type || ' ' || is_nullable, ', ' \
        ORDER BY ordinal_position) \
        FROM information_schema.columns WHERE table_name = 'acessos'";
    let columns: String = database
        .superuser()
        .query_one(columns, &[])
        .expect("columns")
        .get(0);
    assert_eq!(columns, "id bigint NO, momento timestamp with time zone NO");
    assert_eq!(
        redis.counter(),
        Some(0),
        "the counter's key is there before the first visit"
    );
    assert_eq!(visitas.stats().total, 0);
}

#[test]
fn the_counter_continues_from_redis() {
    let redis = Redis::start();
    redis.command(&["SET", "contador_cache", "41"]);
    let visitas = Settings::new().redis(&redis).start();
    assert_eq!(redis.counter(), Some(41));
    assert_eq!(visitas.stats().cache, Some(41));
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (1, Some(42)));
    visitas.stop();
    let visitas = Settings::new().redis(&redis).start();
    assert_eq!(visitas.visit().cache, Some(43));
}

/// While the ledger is down at start: alive, not ready, visits refused at once.
#[track_caller]
fn alive_and_not_ready(visitas: &Visitas) {
    visitas.wait_listening();
    assert_eq!(visitas.get("/livez").status, 200);
    assert_eq!(visitas.get("/readyz").status, 503);
    let start = Instant::now();
    let refused = visitas.try_visit();
    assert_eq!(refused.status, 503);
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "refused after {:?}",
        start.elapsed()
    );
    assert_eq!(
        visitas.stdout().all(),
        Vec::<String>::new(),
        "it is not ready"
    );
}

/// Three attempts with a line each, then exit code 1 and a sentence that names the store.
#[track_caller]
fn gives_up_after_three_attempts(settings: Settings, address: &str) {
    let settings = settings
        .set("CONNECT_ATTEMPTS", 3)
        .set("CONNECT_INTERVAL", "400ms")
        .set("REQUEST_TIMEOUT", "300s")
        .set("PORT", free_port());
    let start = Instant::now();
    let mut visitas = settings.launch();
    alive_and_not_ready(&visitas);
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(800),
        "three attempts 400 ms apart took only {took:?}"
    );
    assert_eq!(attempts(&ended.stderr).len(), 3, "one line each: {ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        !last.contains("attempt 3 of 3") && last.len() > 20,
        "a sentence at the end: {ended:?}"
    );
    assert!(last.contains("visitas check"), "what to do: {ended:?}");
    assert!(ended.stderr.contains(address), "the address: {ended:?}");
    assert!(
        !ended.stderr.contains("app_password") && !ended.stderr.contains("panicked"),
        "{ended:?}"
    );
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_port_that_is_taken_is_reported_with_what_to_do() {
    let taken = Settings::new().start();
    for name in ["PORT", "OPS_PORT"] {
        let ended = Settings::new().set(name, taken.port()).run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told = &ended.stderr;
        assert!(
            told.contains(&format!("{name}: cannot listen on")),
            "{told}"
        );
        assert!(
            told.contains(&format!("set {name} to a free port")),
            "{told}"
        );
    }
}

#[test]
fn without_the_database_it_gives_up_after_its_attempts() {
    let cluster = Cluster::stopped();
    let settings = Settings::new().postgres(&cluster.default_database());
    gives_up_after_three_attempts(settings, &cluster.port().to_string());
}

#[test]
fn without_redis_it_serves_visits_and_counts_once_redis_is_there() {
    let mut redis = Redis::stopped();
    let visitas = Settings::new().redis(&redis).start();
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (1, None));
    let verbose = visitas.get("/readyz?verbose");
    assert_eq!(
        (verbose.status, verbose.text().contains("Redis: down")),
        (200, true),
        "{}",
        verbose.text()
    );
    visitas.logged(&[&redis.port().to_string()]);
    redis.restart();
    within(LIMIT, "a visit to be counted", || {
        visitas.visit().cache.is_some()
    });
    assert!(visitas.get("/readyz?verbose").text().contains("Redis: up"));
    assert_eq!(redis.counter(), Some(1));
}

#[test]
fn a_counter_that_is_no_number_is_reported_and_visits_are_served() {
    let redis = Redis::start();
    redis.command(&["RPUSH", "contador_cache", "a"]);
    let visitas = Settings::new().redis(&redis).start();
    assert_eq!(visitas.visit().cache, None);
    visitas.logged(&["contador_cache is no number there"]);
    redis.command(&["DEL", "contador_cache"]);
    within(LIMIT, "a visit to be counted", || {
        visitas.visit().cache.is_some()
    });
}

#[test]
fn a_wrong_password_is_reported_and_not_shown() {
    let database = Cluster::shared().database();
    let url = database.url().replace("app_password", "not-the-password");
    let few = |settings: Settings| {
        settings
            .set("CONNECT_ATTEMPTS", 1)
            .set("CONNECT_INTERVAL", "10ms")
    };
    let ended = few(Settings::new().set("DATABASE_URL", url)).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("password authentication failed"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("not-the-password"), "{ended:?}");
    let redis = Redis::with_password("right");
    let visitas = Settings::new()
        .set(
            "REDIS_URL",
            redis.url().replace("right", "not-the-password"),
        )
        .start();
    assert_eq!(visitas.visit().cache, None);
    visitas.logged(&["WRONGPASS"]);
    let said = visitas.output();
    assert!(!said.contains("not-the-password"), "{said}");
}

#[test]
fn it_waits_for_the_database_for_ever_if_configured() {
    let cluster = Cluster::stopped();
    let database = cluster.default_database();
    let settings = Settings::new()
        .postgres(&database)
        .set("CONNECT_ATTEMPTS", 0)
        .set("CONNECT_INTERVAL", "50ms")
        .set("REQUEST_TIMEOUT", "300s");
    let mut visitas = settings.set("PORT", free_port()).launch();
    alive_and_not_ready(&visitas);
    // More attempts than the default.
    let many = |visitas: &Visitas| attempts(&visitas.stderr().all().join("\n")).len() >= 8;
    within(LIMIT, "eight attempts", || many(&visitas));
    assert!(visitas.is_running());
    cluster.restart();
    visitas.wait_ready();
    assert_eq!(visitas.visit().total, 1);
    assert_eq!(visitas.get("/readyz").status, 200);
}

#[test]
fn it_can_be_stopped_while_it_waits() {
    let cluster = Cluster::stopped();
    for signal in ["TERM", "INT"] {
        let settings = Settings::new()
            .postgres(&cluster.default_database())
            .set("CONNECT_ATTEMPTS", 0)
            .set("CONNECT_INTERVAL", "300s")
            .set("PORT", free_port());
        let mut visitas = settings.launch();
        visitas.wait_listening();
        visitas.signal(signal);
        let ended = visitas.wait_end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// Starts ten processes at once on this database; all get visits at the same time.
#[track_caller]
fn ten_at_once(database: &Database<'_>, rows_before: u64) {
    let launch = |_| {
        Settings::new()
            .postgres(database)
            .set("WORKERS", 1)
            .launch()
    };
    let mut ten: Vec<Visitas> = (0..10).map(launch).collect();
    ten.iter_mut()
        .for_each(|visitas| drop(visitas.wait_ready()));
    let ports: Vec<u16> = ten.iter().map(Visitas::port).collect();
    visits_at_once(&ports, 50, 4).all_ok(200);
    let total = rows_before + 200;
    assert_eq!(database.rows(), total);
    for visitas in &ten {
        assert_eq!(visitas.stats().total, total);
        let errors: Vec<String> = visitas
            .stderr()
            .all()
            .into_iter()
            .filter(|line| line.contains("ERROR"))
            .collect();
        assert_eq!(errors, Vec::<String>::new());
    }
}

#[test]
fn ten_processes_at_once_on_an_empty_database() {
    ten_at_once(&Cluster::shared().database(), 0);
}

#[test]
fn ten_processes_at_once_on_a_table_to_adopt() {
    let database = Cluster::shared().database();
    let before = "CREATE TABLE acessos (id serial PRIMARY KEY, page text); \
        INSERT INTO acessos (page) SELECT 'p' FROM generate_series(1, 500)";
    database
        .sql()
        .batch_execute(before)
        .expect("a table from before");
    ten_at_once(&database, 500);
}

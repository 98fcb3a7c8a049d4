//! A store goes down and comes back: fast refusals, no restart, one log line per change.

use std::time::{Duration, Instant};

use crate::support::client::request;
use crate::support::html::Page;
use crate::support::wait::within_value;
use crate::support::{
    Cluster, Database, LIMIT, Load, Proxy, Redis, Response, Settings, Stop, Visitas, machine,
    within,
};

/// From a store's return to the first visit that uses it: a second is promised, two more are for a
/// loaded machine.
const BACK_LIMIT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1500);
/// An answer may be later than its deadline by this: the promise.
const LATE_AT_MOST: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings::new().duration("REQUEST_TIMEOUT", REQUEST_TIMEOUT)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

#[track_caller]
fn is_refusal(response: &Response) {
    assert_eq!(response.status, 503, "{response:?}");
    assert!(
        response
            .header("Retry-After")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok()),
        "{response:?}"
    );
    response.sentence();
}

/// Eleven visits in a row are refused, most of them in a fraction of the deadline.
#[track_caller]
fn refuses_at_once(visitas: &Visitas) {
    let mut times = Vec::new();
    for _ in 0..11 {
        let (response, time) = timed(|| visitas.try_visit());
        is_refusal(&response);
        times.push(time);
    }
    times.sort_unstable();
    assert!(
        times[5] < REQUEST_TIMEOUT / 10 && times[10] < REQUEST_TIMEOUT,
        "refused after {times:?}"
    );
}

/// Visits, checked by `check`, until the outage has lasted so long that the reconnect back-off is
/// at its longest.
#[track_caller]
fn outlast(visitas: &Visitas, start: Instant, check: impl Fn(&Response)) {
    while start.elapsed() < Duration::from_millis(2500) {
        check(&visitas.try_visit());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first visit that `is_back` accepts.
#[track_caller]
fn first_visit_back(
    visitas: &Visitas,
    limit: Duration,
    is_back: impl Fn(&Response) -> bool,
) -> Response {
    let start = Instant::now();
    loop {
        let response = visitas.try_visit();
        if is_back(&response) {
            return response;
        }
        assert!(
            start.elapsed() <= limit,
            "not back after {:?}: {response:?}\n{}",
            start.elapsed(),
            visitas.output()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn logs_down_and_up_once(visitas: &Visitas, mark: usize, store: &str) {
    // A server that is short of processors may not answer whether it has TLS in time.
    let lines_of_state = || -> Vec<String> {
        let mut lines = visitas.stderr().since(mark);
        lines.retain(|line| !line.contains("is used without TLS, which failed"));
        lines
    };
    // The second line may come after the first answer.
    within_value(LIMIT, "two log lines", || {
        let lines = lines_of_state();
        if lines.len() >= 2 { Ok(()) } else { Err(lines) }
    });
    let lines = lines_of_state();
    assert_eq!(lines.len(), 2, "one line for each change: {lines:#?}");
    for line in &lines {
        assert!(
            line.to_lowercase().contains(store),
            "of which store: {line}"
        );
        assert!(!line.contains("app_password"), "{line}");
    }
}

#[test]
fn the_database_stops_and_comes_back() {
    let _machine = machine();
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let visitas = settings().postgres(&database).start();
    let mut rows = 0;
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        rows = visitas.visit().total;
        let mark = visitas.stderr().mark();
        cluster.stop(how);
        let down = Instant::now();
        let (first, time) = timed(|| visitas.try_visit());
        is_refusal(&first);
        assert!(
            time <= REQUEST_TIMEOUT + LATE_AT_MOST,
            "the first visit waited {time:?} ({how:?})"
        );
        refuses_at_once(&visitas);
        assert_eq!(visitas.get("/livez").status, 200);
        assert_eq!(visitas.get("/readyz").status, 503);
        if how == Stop::Fast {
            outlast(&visitas, down, is_refusal);
        }
        cluster.restart();
        let back = first_visit_back(&visitas, BACK_LIMIT, |response| response.status == 200);
        // Refused visits left no row.
        assert_eq!(back.counts().total, rows + 1, "after {how:?}");
        assert_eq!(visitas.get("/readyz").status, 200);
        logs_down_and_up_once(&visitas, mark, "postgres");
    }
    assert_eq!(database.rows(), rows + 1);
}

/// The server goes down under load: every 200 has its row, and visits come back.
#[track_caller]
fn outage_under_load(how: Stop) {
    let _machine = machine();
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let visitas = settings().postgres(&database).start();
    let load = Load::start(visitas.port(), 16);
    within(LIMIT, "visits", || visitas.stats().total > 100);
    let mark = visitas.stderr().mark();
    cluster.stop(how);
    within(LIMIT, "refusals", || visitas.try_visit().status == 503);
    cluster.restart();
    let before = first_visit_back(&visitas, LIMIT, |response| response.status == 200)
        .counts()
        .total;
    within(LIMIT, "visits again", || {
        visitas.stats().total > before + 100
    });
    let outcomes = load.stop();
    check_rows(&database, &visitas, outcomes.ok() + 1, outcomes.unsure());
    outcomes.only_200_and_503();
    logs_down_and_up_once(&visitas, mark, "postgres");
}

/// Every 200 has its row, and no visit has two.
#[track_caller]
pub fn check_rows(database: &Database<'_>, visitas: &Visitas, ok: u64, unsure: u64) {
    let rows = database.rows();
    assert!(
        (ok..=ok + unsure).contains(&rows),
        "{rows} rows for {ok} answered with 200 and {unsure} otherwise"
    );
    assert_eq!(visitas.stats().total, rows, "the total and the rows");
}

#[test]
fn the_database_stops_under_load() {
    outage_under_load(Stop::Fast);
}

#[test]
fn the_database_crashes_under_load() {
    outage_under_load(Stop::Immediate);
}

#[test]
fn the_database_is_killed_under_load() {
    outage_under_load(Stop::Kill);
}

#[test]
fn a_network_that_swallows_everything_is_an_outage() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let visitas = settings()
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .set("REQUEST_TIMEOUT", "500ms")
        .start();
    assert_eq!(visitas.visit().total, 1);
    // The server does not notice: it keeps the sessions with their locks.
    proxy.swallow_connections();
    let (first, time) = timed(|| visitas.try_visit());
    // A lane may repeat the visit over a new connection in time.
    assert!(matches!(first.status, 200 | 503), "{first:?}");
    assert!(
        time <= Duration::from_millis(500) + LATE_AT_MOST,
        "the first visit waited {time:?}"
    );
    within(LIMIT, "visits over a new connection", || {
        visitas.try_visit().status == 200
    });
    let rows = database.rows();
    assert_eq!(visitas.total_within(LIMIT), rows);
    // One that is late may have its row.
    let next = first_visit_back(&visitas, LIMIT, |response| response.status == 200);
    let total = next.counts().total;
    assert!(total > rows, "{total} after {rows}");
    assert_eq!(total, database.rows());
}

#[test]
fn a_slow_network_only_slows_down() {
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let visitas = Settings::new()
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .start();
    proxy.slow(Duration::from_millis(20));
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, visit);
    }
}

#[test]
fn redis_stops_and_comes_back_empty() {
    let _machine = machine();
    let (database, mut redis) = (Cluster::shared().database(), Redis::start());
    let visitas = settings().postgres(&database).redis(&redis).start();
    assert_eq!(visitas.visit().cache, Some(1));
    let mut total = visitas.visit().total;
    for long in [true, false] {
        let mark = visitas.stderr().mark();
        redis.stop();
        let down = Instant::now();
        for visit in 0..10 {
            let (counts, time) = timed(|| visitas.visit());
            total += 1;
            assert_eq!((counts.total, counts.cache), (total, None));
            let limit = if visit == 0 {
                REQUEST_TIMEOUT + LATE_AT_MOST
            } else {
                REQUEST_TIMEOUT
            };
            assert!(time <= limit, "visit {visit} took {time:?}");
        }
        assert_eq!(visitas.stats().cache, None);
        let page = Page::read(&visitas.get("/").text());
        total += 1;
        assert_eq!(
            (page.number("total"), page.number("cache")),
            (i64::try_from(total).ok(), None)
        );
        assert_eq!(visitas.get("/readyz").status, 200, "visits are taken");
        if long {
            outlast(&visitas, down, |response| {
                assert_eq!(response.counts().cache, None)
            });
        }
        redis.restart();
        let back = first_visit_back(&visitas, BACK_LIMIT, |response| {
            response.counts().cache.is_some()
        })
        .counts();
        assert_eq!(
            back.cache,
            Some(1),
            "it starts from 0 when its memory is lost"
        );
        assert_eq!(redis.counter(), Some(1));
        total = back.total;
        logs_down_and_up_once(&visitas, mark, "redis");
    }
    assert_eq!(database.rows(), total);
}

#[test]
fn redis_hangs_and_goes_on() {
    let _machine = machine();
    let mut redis = Redis::start();
    let visitas = settings().redis(&redis).start();
    assert_eq!(visitas.visit().cache, Some(1));
    redis.pause();
    for _ in 0..5 {
        let (counts, time) = timed(|| visitas.visit());
        assert_eq!(counts.cache, None);
        assert!(time <= REQUEST_TIMEOUT + LATE_AT_MOST, "{time:?}");
    }
    redis.resume();
    let back = first_visit_back(&visitas, BACK_LIMIT, |response| {
        response.counts().cache.is_some()
    })
    .counts();
    // Increments that were in flight may have been executed since, each at most once.
    let total = i64::try_from(back.total).expect("a total");
    assert!(
        back.cache > Some(1) && back.cache <= Some(total),
        "{back:?}"
    );
}

/// The process is stopped and continued (`docker pause`, a debugger) while an increment is in
/// flight. The wait for its answer was once interrupted, and the visit got no number.
#[test]
fn a_process_that_was_stopped_waits_on_for_redis() {
    let _machine = machine();
    let (database, mut redis) = (Cluster::shared().database(), Redis::start());
    let mut visitas = settings().postgres(&database).redis(&redis).start();
    visitas.visit();
    redis.pause();
    let mut client = visitas.connect();
    client.send(request("GET", "/", &[("Accept", "application/json")]));
    within(LIMIT, "the row", || database.rows() == 2);
    visitas.signal("STOP");
    visitas.signal("CONT");
    redis.resume();
    let counts = client.read().counts();
    assert_eq!((counts.total, counts.cache), (2, Some(2)));
}

#[test]
fn redis_loses_its_memory_and_not_its_sessions() {
    let redis = Redis::start();
    let visitas = Settings::new().redis(&redis).start();
    assert_eq!(visitas.visit().cache, Some(1));
    assert_eq!(visitas.visit().cache, Some(2));
    redis.command(&["FLUSHALL"]);
    assert_eq!(visitas.visit().cache, Some(1));
}

#[test]
fn redis_stops_under_load() {
    let _machine = machine();
    let (database, mut redis) = (Cluster::shared().database(), Redis::start());
    let visitas = settings().postgres(&database).redis(&redis).start();
    let load = Load::start(visitas.port(), 16);
    within(LIMIT, "visits", || visitas.stats().total > 100);
    redis.stop();
    within(LIMIT, "visits without the cache", || {
        visitas.visit().cache.is_none()
    });
    redis.restart();
    first_visit_back(&visitas, LIMIT, |response| {
        response.counts().cache.is_some()
    });
    let before = visitas.stats().total;
    within(LIMIT, "visits with the cache", || {
        visitas.stats().total > before + 100
    });
    let outcomes = load.stop();
    assert_eq!(
        outcomes.unsure(),
        0,
        "no visit is refused without the cache: {outcomes:?}"
    );
    let rows = database.rows();
    assert!(rows > outcomes.ok(), "{rows} rows");
    assert_eq!(visitas.stats().total, rows);
    assert!(
        redis
            .counter()
            .is_some_and(|counted| counted > 0 && counted < i64::try_from(rows).expect("a count"))
    );
}

#[test]
fn both_stores_stop_and_come_back() {
    let _machine = machine();
    let (cluster, mut redis) = (Cluster::start(), Redis::start());
    let database = cluster.default_database();
    let visitas = settings().postgres(&database).redis(&redis).start();
    assert_eq!(visitas.visit().total, 1);
    redis.stop();
    cluster.stop(Stop::Immediate);
    is_refusal(&visitas.try_visit());
    refuses_at_once(&visitas);
    cluster.restart();
    let back = first_visit_back(&visitas, BACK_LIMIT, |response| response.status == 200).counts();
    assert_eq!((back.total, back.cache), (2, None));
    redis.restart();
    let back = first_visit_back(&visitas, BACK_LIMIT, |response| {
        response.counts().cache.is_some()
    })
    .counts();
    assert_eq!(back.cache, Some(1));
    assert_eq!(database.rows(), back.total);
}

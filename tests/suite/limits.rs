//! Limits of the queue and of a visit's time. Beyond them visits get a fast 503.

use std::time::{Duration, Instant};

use crate::metrics::queued;
use crate::support::client::request;
use crate::support::{Client, Cluster, LIMIT, Settings, machine, within};

/// An answer may be later than its deadline by this: the promise.
const LATE_AT_MOST: Duration = Duration::from_secs(1);

fn visit() -> String {
    request("GET", "/", &[("Accept", "application/json")])
}

#[test]
fn visits_above_the_longest_queue_are_refused_at_once() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .set("MAX_QUEUE", 3)
        .set("REQUEST_TIMEOUT", "300s")
        .start();
    let mut watcher = database.superuser();
    let held = database.hold_inserts();
    let mut waiting = vec![visitas.connect()];
    waiting[0].send(visit());
    within(LIMIT, "the first commit to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    for number in 1..=3 {
        let mut client = visitas.connect();
        client.send(visit());
        waiting.push(client);
        within(LIMIT, "the visit to queue", || {
            queued(&visitas) >= f64::from(number)
        });
    }
    let start = Instant::now();
    let refused = visitas.try_visit();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "refused after {:?}",
        start.elapsed()
    );
    held.release();
    waiting
        .iter_mut()
        .for_each(|client| assert_eq!(client.read().status, 200));
    assert_eq!(database.rows(), 4);
    assert_eq!(visitas.visit().total, 5);
}

#[test]
fn a_visit_waits_no_longer_than_its_deadline() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", "600ms")
        .start();
    let lock = database.lock_table();
    let start = Instant::now();
    let mut waiting: Vec<Client> = (0..8).map(|_| visitas.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send(visit()));
    for client in &mut waiting {
        let late = client.read();
        assert_eq!(late.status, 503, "{late:?}");
        assert!(late.header("Retry-After").is_some(), "{late:?}");
    }
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(550),
        "given up early, after {took:?}"
    );
    assert!(
        took < Duration::from_millis(600) + LATE_AT_MOST,
        "given up after {took:?}"
    );
    lock.release();
    // Their rows may be there or not; those that are there are counted.
    within(LIMIT, "visits again", || visitas.try_visit().status == 200);
    let mut watcher = database.superuser();
    within(LIMIT, "the last commit", || {
        database.sessions_waiting(&mut watcher) == 0
    });
    let rows = database.rows();
    assert!((1..=9).contains(&rows), "{rows} rows");
    assert_eq!(visitas.total_within(LIMIT), rows);
}

#[test]
fn a_lock_on_the_table_for_longer_than_the_deadline_leaves_nothing_stuck() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", "200ms")
        .start();
    let lock = database.lock_table();
    for _ in 0..8 {
        let start = Instant::now();
        assert_eq!(visitas.try_visit().status, 503);
        assert!(
            start.elapsed() < Duration::from_millis(200) + LATE_AT_MOST,
            "refused after {:?}",
            start.elapsed()
        );
    }
    assert_eq!(visitas.get("/livez").status, 200);
    lock.release();
    within(LIMIT, "visits again", || visitas.try_visit().status == 200);
    let rows = database.rows();
    assert_eq!(visitas.total_within(LIMIT), rows);
}

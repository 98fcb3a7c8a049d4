//! SIGTERM and SIGINT: new connections are refused, accepted requests are finished, idle
//! connections close at once, and the exit code is 0.

use std::time::{Duration, Instant};

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Cluster, LIMIT, Load, Settings, skipped, wait, within};

/// Longer than any test waits: what ends earlier did not wait for it.
const LONG: &str = "300s";
/// Below the deadlines that an early end has to beat.
const EARLY: Duration = Duration::from_secs(15);

fn visit() -> String {
    request("GET", "/", &[("Accept", "application/json")])
}

/// The signal comes while visits wait for a commit that is held up.
#[track_caller]
fn accepted_visits_are_finished(signal: &str) {
    let database = Cluster::shared().database();
    let mut visitas = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .set("REQUEST_TIMEOUT", LONG)
        .set("DRAIN_TIMEOUT", LONG)
        .start();
    let mut watcher = database.superuser();
    let held = database.hold_inserts();
    let mut idle: Vec<Client> = (0..5).map(|_| visitas.connect()).collect();
    idle.iter_mut()
        .for_each(|client| assert_eq!(client.get("/livez").status, 200));
    // One visit is in the commit, the others wait in the queue.
    let mut waiting: Vec<Client> = (0..20).map(|_| visitas.connect()).collect();
    waiting[0].send(visit());
    within(LIMIT, "the commit to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    waiting[1..]
        .iter_mut()
        .for_each(|client| client.send(visit()));
    within(LIMIT, "every other visit to queue", || {
        crate::metrics::queued(&visitas) == 19.0
    });

    let port = visitas.port();
    visitas.signal(signal);
    let start = Instant::now();
    for client in &mut idle {
        assert_eq!(
            client.closed_within(LIMIT),
            b"",
            "an idle connection closes without a word"
        );
    }
    within(LIMIT, "new connections to be refused", || {
        Client::try_connect(port).is_err()
    });
    assert!(
        start.elapsed() < EARLY,
        "idle connections closed after {:?}",
        start.elapsed()
    );
    assert!(
        visitas.is_running(),
        "visits still wait: {}",
        visitas.output()
    );

    held.release();
    for client in &mut waiting {
        let response = client.read();
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("Connection"), Some("close"), "{response:?}");
        client.closed_within(LIMIT);
    }
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(database.rows(), 20);
}

#[test]
fn sigterm_finishes_what_was_accepted() {
    accepted_visits_are_finished("TERM");
}

#[test]
fn sigint_finishes_what_was_accepted() {
    accepted_visits_are_finished("INT");
}

/// The signal comes under load.
#[track_caller]
fn under_load(settings: Settings, rows: impl FnOnce(Settings) -> u64) {
    let mut visitas = settings.set("DRAIN_TIMEOUT", LONG).start();
    let load = Load::start(visitas.port(), 16);
    within(LIMIT, "visits", || visitas.stats().total > 200);
    visitas.signal("TERM");
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let outcomes = load.stop();
    assert_eq!(
        (outcomes.refused, outcomes.others.len()),
        (0, 0),
        "every accepted visit gets a 200"
    );
    // A visit may be sent on an idle connection just as it closes: it was not accepted, so it has
    // no row.
    let rows = rows(visitas.into_settings());
    assert_eq!(
        rows,
        outcomes.ok(),
        "rows and answers, with {} unanswered",
        outcomes.unanswered
    );
}

#[test]
fn under_load_over_postgres_rows_are_answers() {
    let database = Cluster::shared().database();
    under_load(Settings::new().postgres(&database), |_| database.rows());
}

#[test]
fn under_load_over_the_embedded_store_rows_are_answers() {
    under_load(Settings::new(), |settings| settings.start().stats().total);
}

#[test]
fn a_commit_that_never_ends_does_not_keep_it() {
    let database = Cluster::shared().database();
    let settings = Settings::new()
        .postgres(&database)
        .set("DRAIN_TIMEOUT", "500ms")
        .set("REQUEST_TIMEOUT", LONG);
    let mut visitas = settings.start();
    let mut watcher = database.superuser();
    let _held = database.hold_inserts();
    let mut client = visitas.connect();
    client.send(visit());
    within(LIMIT, "the commit to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    let start = Instant::now();
    visitas.signal("TERM");
    visitas.wait_end();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(400),
        "it did not wait for the visit: {took:?}"
    );
    assert!(took < EARLY, "DRAIN_TIMEOUT is 500 ms and it took {took:?}");
}

#[test]
fn a_request_that_was_begun_is_answered() {
    let mut visitas = Settings::new().start();
    let mut begun = visitas.connect();
    // In one piece with a complete request: once that is answered, the server has read both.
    begun.send(request("GET", "/livez", &[]) + "GET /readyz HTTP/1.1\r\nHost: visitas.example\r\n");
    assert_eq!(begun.read().status, 200);
    let port = visitas.port();
    visitas.signal("TERM");
    within(LIMIT, "new connections to be refused", || {
        Client::try_connect(port).is_err()
    });
    begun.send("\r\n");
    let response = begun.read();
    assert_eq!(
        response.status, 503,
        "not ready while it drains: {response:?}"
    );
    assert_eq!(response.header("Connection"), Some("close"));
    begun.closed_within(ANSWER_LIMIT);
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_second_signal_does_no_harm() {
    let database = Cluster::shared().database();
    let mut visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", LONG)
        .start();
    let mut watcher = database.superuser();
    let held = database.hold_inserts();
    let mut client = visitas.connect();
    client.send(visit());
    within(LIMIT, "the commit to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    let port = visitas.port();
    visitas.signal("TERM");
    within(LIMIT, "new connections to be refused", || {
        Client::try_connect(port).is_err()
    });
    visitas.signal("TERM");
    held.release();
    assert_eq!(client.read().status, 200);
    assert_eq!(visitas.wait_end().code, Some(0));
}

/// An incomplete request keeps the process until its deadline or a second signal.
#[test]
fn a_second_signal_ends_the_wait_for_slow_clients() {
    let database = Cluster::shared().database();
    let mut visitas = Settings::new()
        .postgres(&database)
        .set("HEADER_TIMEOUT", LONG)
        .set("DRAIN_TIMEOUT", LONG)
        .start();
    let load = Load::start(visitas.port(), 24);
    within(LIMIT, "visits", || database.rows() > 100);
    let mut slow = visitas.connect();
    // In one piece with a complete request: once that is answered, the server has read both.
    slow.send(request("GET", "/livez", &[]) + "GET / HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(slow.read().status, 200);
    let port = visitas.port();
    visitas.signal("TERM");
    within(LIMIT, "new connections to be refused", || {
        Client::try_connect(port).is_err()
    });
    assert!(visitas.is_running(), "it waits for the slow client");
    visitas.signal("TERM");
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let outcomes = load.stop();
    assert_eq!(
        database.rows(),
        outcomes.ok(),
        "rows are answers: {outcomes:?}"
    );
}

#[test]
fn it_works_as_process_1() {
    let namespace = ["unshare", "--user", "--map-root-user", "--pid", "--fork"];
    let allowed = std::process::Command::new(namespace[0])
        .args(&namespace[1..])
        .arg("true")
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        skipped("process 1", "no process namespace can be made");
        return;
    }
    for signal in ["TERM", "INT"] {
        let wrapper: Vec<&str> = [&namespace[..], &["--kill-child"]].concat();
        let mut visitas = Settings::new()
            .set("PATH", "/usr/bin:/bin")
            .through(&wrapper)
            .start();
        assert_eq!(visitas.visit().total, 1);
        // Process 1 of the namespace is the only child of `unshare`.
        let children = format!("/proc/{0}/task/{0}/children", visitas.pid());
        let child = wait::within_value(LIMIT, "unshare's child", || {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            text.trim().parse::<u32>().map_err(|_| text)
        });
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).expect("its status");
        let inside = status
            .lines()
            .find(|line| line.starts_with("NSpid:"))
            .expect("its numbers");
        assert!(inside.ends_with("\t1"), "it is process 1 there: {inside}");
        crate::support::process::send_signal(child, signal);
        let ended = visitas.wait_end();
        assert_eq!(ended.code, Some(0), "SIG{signal}: {ended:?}");
    }
}

/// A load balancer that notices late opens new connections during the delay. None is lost.
#[test]
fn a_proxy_that_learns_late_loses_nothing_in_the_delay() {
    let mut visitas = Settings::new().set("DRAIN_DELAY", LONG).start();
    let port = visitas.port();
    let mut kept = visitas.connect();
    assert_eq!(kept.get("/livez").status, 200);
    visitas.signal("TERM");
    within(LIMIT, "not ready", || visitas.get("/readyz").status == 503);
    for visit in 1..=100 {
        let answer = Client::connect(port).try_visit();
        let answer = answer.unwrap_or_else(|why| panic!("visit {visit}: {why:?}"));
        assert_eq!(answer.status, 200, "visit {visit}");
    }
    assert_eq!(
        kept.try_visit()
            .expect("on a connection that stayed")
            .status,
        200
    );
    // A second signal ends the delay.
    visitas.signal("TERM");
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn the_delay_ends_by_itself() {
    let mut visitas = Settings::new().set("DRAIN_DELAY", "500ms").start();
    let start = Instant::now();
    visitas.signal("TERM");
    assert_eq!(visitas.wait_end().code, Some(0));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(400), "it took {took:?}");
}

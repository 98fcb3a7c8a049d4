//! `/metrics`: format, names and values.

use crate::support::load::visits_at_once;
use crate::support::prometheus::Metrics;
use crate::support::{Client, Cluster, LIMIT, Redis, Settings, Visitas, within};

#[track_caller]
pub fn metrics(visitas: &Visitas) -> Metrics {
    let response = visitas.get("/metrics");
    assert_eq!(response.status, 200, "{response:?}");
    Metrics::read(&response.text())
}

/// Visits that wait for a commit now.
#[track_caller]
pub fn queued(visitas: &Visitas) -> f64 {
    let metrics = metrics(visitas);
    metrics.sum(metrics.one("gauge", "queue"))
}

/// The metrics on `OPS_PORT`, where a request takes no connection from others.
#[track_caller]
pub fn metrics_at(ops: u16) -> Metrics {
    Metrics::read(&Client::connect(ops).get("/metrics").text())
}

/// Answers with that status so far.
#[track_caller]
fn answers(metrics: &Metrics, status: &str) -> f64 {
    let samples = &metrics.family(metrics.one("counter", "responses")).samples;
    samples
        .iter()
        .filter(|sample| sample.label("code") == Some(status))
        .map(|sample| sample.value)
        .sum()
}

#[test]
fn every_name_has_the_prefix_and_its_unit() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    visitas.visit();
    let metrics = metrics(&visitas);
    assert_eq!(metrics.count("visitas_increment_seconds"), 1.0);
    for (name, family) in &metrics.0 {
        // Metrics of the process have the names that all client libraries use.
        assert!(
            name.starts_with("visitas_") || name.starts_with("process_"),
            "{name}"
        );
        assert_eq!(
            family.kind == "counter",
            name.ends_with("_total"),
            "{name} is a {}",
            family.kind
        );
        assert!(family.help.len() > 10, "{name}: {:?}", family.help);
    }
    for (kind, word) in [
        ("counter", "visits"),
        ("counter", "responses"),
        ("histogram", "commit_seconds"),
        ("histogram", "batch"),
        ("gauge", "queue"),
        ("counter", "reconnects"),
        ("gauge", "connections"),
        ("gauge", "build_info"),
    ] {
        assert!(
            !metrics.like(kind, word).is_empty(),
            "no {kind} about {word}: {:?}",
            metrics.0.keys()
        );
    }
    let build = &metrics.family("visitas_build_info").samples[0];
    assert_eq!(
        (build.label("version"), build.value),
        (Some(env!("CARGO_PKG_VERSION")), 1.0)
    );
}

#[test]
fn visits_commits_and_answers_rise_with_the_visits() {
    let visitas = Settings::new().start();
    let before = metrics(&visitas);
    visits_at_once(&[visitas.port()], 10, 5).all_ok(50);
    for _ in 0..3 {
        visitas.get("/nowhere");
    }
    let after = metrics(&visitas);
    let rise = |name: &str| after.sum(name) - before.sum(name);
    assert_eq!(rise("visitas_visits_total"), 50.0);
    assert_eq!(answers(&after, "404") - answers(&before, "404"), 3.0);
    // The first reading counts its own answer later.
    assert_eq!(answers(&after, "200") - answers(&before, "200"), 51.0);
    let batch = after.one("histogram", "batch");
    let samples = &after.family(batch).samples;
    let sum: f64 = samples
        .iter()
        .filter(|sample| sample.name.ends_with("_sum"))
        .map(|sample| sample.value)
        .sum();
    assert_eq!(sum, 50.0, "the batches hold the visits");
    let commits = after.count("visitas_commit_seconds");
    assert!(
        (1.0..=50.0).contains(&commits),
        "{commits} commits for 50 visits"
    );
    assert_eq!(after.count(batch), commits);
    let increments = after.count("visitas_increment_seconds");
    assert_eq!(increments, commits, "each batch is counted at once");
}

#[test]
fn connections_are_those_that_are_open() {
    let visitas = Settings::new().start();
    let open = || {
        let metrics = metrics(&visitas);
        metrics.sum(metrics.one("gauge", "connections"))
    };
    let mut kept: Vec<_> = (0..5).map(|_| visitas.connect()).collect();
    kept.iter_mut()
        .for_each(|client| drop(client.get("/livez")));
    // Connections of earlier readings may still be open.
    within(LIMIT, "five connections and the one that asks", || {
        open() == 6.0
    });
    drop(kept);
    within(LIMIT, "the one that asks", || open() == 1.0);
}

#[test]
fn reconnects_are_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    visitas.visit();
    let reconnects = || -> f64 {
        let metrics = metrics(&visitas);
        metrics
            .like("counter", "reconnects")
            .iter()
            .map(|name| metrics.sum(name))
            .sum()
    };
    let before = reconnects();
    assert!(database.terminate_sessions() > 0);
    within(LIMIT, "a reconnect", || {
        visitas.visit().total > 0 && reconnects() > before
    });
}

//! A database that swallows everything: one visit waits for its deadline, the next ones are refused
//! at once, and nothing grows.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{
    Clients, Cluster, LIMIT, Load, Proxy, Settings, VethPair, Visitas, machine, skipped, within,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// What an answer may be late by on a loaded machine.
const LATE_AT_MOST: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings::new().duration("REQUEST_TIMEOUT", REQUEST_TIMEOUT)
}

fn timed_refusal(visitas: &Visitas) -> Duration {
    let start = Instant::now();
    let response = visitas.try_visit();
    let took = start.elapsed();
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("Retry-After").is_some(), "{response:?}");
    took
}

/// Resident memory in KiB, descriptors and threads.
fn size(visitas: &Visitas) -> [u64; 3] {
    let status = fs::read_to_string(format!("/proc/{}/status", visitas.pid())).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let mut words = line.expect("a field of status").split_whitespace();
        words
            .nth(1)
            .and_then(|value| value.parse().ok())
            .expect("a number")
    };
    let descriptors = fs::read_dir(format!("/proc/{}/fd", visitas.pid()))
        .expect("its descriptors")
        .count() as u64;
    [field("VmRSS:"), descriptors, field("Threads:")]
}

/// After `begin` the database swallows everything, after `end` it works again.
#[track_caller]
fn one_wait_then_refusals_at_once(visitas: &Visitas, begin: impl Fn(), end: impl Fn()) {
    within(LIMIT, "a visit", || visitas.try_visit().status == 200);
    begin();
    let first = timed_refusal(visitas);
    assert!(
        first <= REQUEST_TIMEOUT + LATE_AT_MOST,
        "the first waited {first:?}"
    );
    let mut later: Vec<Duration> = (0..50).map(|_| timed_refusal(visitas)).collect();
    later.sort_unstable();
    // On a busy machine one or two more may be tried, and wait as long as the first.
    assert!(
        later[25] <= REQUEST_TIMEOUT / 10
            && later[47] <= REQUEST_TIMEOUT / 2
            && later[49] <= REQUEST_TIMEOUT + LATE_AT_MOST,
        "later ones waited {later:?}"
    );
    assert_eq!(visitas.get("/livez").status, 200);
    assert_eq!(visitas.get("/readyz").status, 503);
    end();
    within(LIMIT, "a visit", || visitas.try_visit().status == 200);
}

/// Under load the refusals cost no memory, descriptor or thread.
#[track_caller]
fn refusals_cost_nothing(visitas: &Visitas, begin: impl Fn(), end: impl Fn()) {
    within(LIMIT, "a visit", || visitas.try_visit().status == 200);
    begin();
    timed_refusal(visitas);
    let load = Load::of(&Clients {
        ports: vec![visitas.port()],
        count: 24,
        pause: Duration::ZERO,
        keep_counts: false,
    });
    let refusals = || crate::metrics::metrics(visitas).sum("visitas_visits_refused_total");
    within(LIMIT, "refusals", || refusals() > 1000.0);
    let before = size(visitas);
    within(LIMIT, "many more refusals", || refusals() > 5000.0);
    let after = size(visitas);
    let outcomes = load.stop();
    assert!(
        outcomes.refused > 4000 && outcomes.ok() == 0,
        "{outcomes:?}"
    );
    assert!(
        after[0] <= before[0] + 512,
        "memory grew from {} to {} KiB",
        before[0],
        after[0]
    );
    // One attempt to connect may be in flight.
    assert!(
        after[1] <= before[1] + 1 && after[2] <= before[2] + 1,
        "descriptors and threads: {before:?}, {after:?}"
    );
    end();
    within(LIMIT, "a visit", || visitas.try_visit().status == 200);
}

#[test]
fn every_packet_is_dropped() {
    let veth = match VethPair::new() {
        Ok(veth) => veth,
        Err(why) => return skipped("a network that drops packets", &why),
    };
    let _machine = machine();
    let cluster = Cluster::behind(&veth);
    let visitas = settings()
        .set("DATABASE_URL", cluster.default_database().url())
        .start();
    let (drop_packets, pass) = (|| veth.drop_packets(true), || veth.drop_packets(false));
    one_wait_then_refusals_at_once(&visitas, drop_packets, pass);
}

#[test]
fn every_connection_is_accepted_and_never_answered() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let visitas = settings()
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .start();
    let (swallow, heal) = (|| proxy.swallow(true), || proxy.heal());
    one_wait_then_refusals_at_once(&visitas, swallow, heal);
    refusals_cost_nothing(&visitas, swallow, heal);
}

/// A visit's deadline is longer than the time to connect, and an idle connection turns out closed.
/// Once visits waited for their whole deadline while the lane tried to connect. Now they are
/// refused after half a second without a connection.
#[test]
fn a_lost_connection_that_cannot_be_replaced_keeps_nobody_waiting() {
    let _machine = machine();
    let deadline = LIMIT / 2;
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let visitas = Settings::new()
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .duration("REQUEST_TIMEOUT", deadline)
        .start();
    visitas.visit();
    proxy.cut_all();
    proxy.swallow(true);
    // A connection that was idle this long is probed before its next use.
    std::thread::sleep(Duration::from_millis(600));
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let mut client = visitas.connect().limit(LIMIT);
            client.send(crate::support::client::request("GET", "/", &[]));
            client
        })
        .collect();
    let start = Instant::now();
    let mut client = visitas.connect().limit(LIMIT);
    assert_eq!(client.try_visit().expect("an answer").status, 503);
    let statuses = waiting
        .into_iter()
        .map(|mut client| client.read().status)
        .collect::<Vec<_>>();
    assert_eq!(
        statuses, [503; 5],
        "nothing was sent, so nothing is in doubt"
    );
    assert!(
        start.elapsed() < deadline / 3,
        "they waited {:?}",
        start.elapsed()
    );
}

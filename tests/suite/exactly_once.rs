//! A 200 is one committed row, counted once, wherever a connection dies: before, in or after a
//! commit.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::metrics::metrics;
use crate::outages::check_rows;
use crate::support::client::request;
use crate::support::{
    Cluster, Direction, LIMIT, Load, Proxy, Redis, Response, Settings, Stop, Visitas, within,
};

/// The time in which a lost connection is replaced while visits queue (`GRACE` of the store's
/// connection). Only a machine that is short of processors takes longer.
const GRACE: Duration = Duration::from_millis(500);

/// The connection is cut after each of these numbers of bytes. The last one is longer than the
/// exchange of a commit, so every message is cut in its middle and at its end.
fn offsets() -> impl Iterator<Item = usize> {
    (0..=60).step_by(3).chain((65..=320).step_by(15))
}

/// Visits in a row while the connection to the database is cut at each offset in this direction.
#[track_caller]
fn cut_at_every_offset(direction: Direction) {
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let visitas = Settings::new()
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .set("WORKERS", 1)
        .start();
    let mut client = visitas.connect();
    let mut totals = BTreeSet::new();
    let (mut ok, mut unsure) = (0, 0);
    for (cuts, offset) in offsets().enumerate() {
        let mut before = Instant::now();
        proxy.cut_after(direction, offset);
        let mut visits = 0;
        while proxy.cuts() == cuts {
            // The cut may come in the maintenance that follows the visit before.
            let earliest_cut = std::mem::replace(&mut before, Instant::now());
            visits += 1;
            assert!(visits <= 50, "{offset} bytes did not go by in 50 visits");
            let response = client
                .try_visit()
                .unwrap_or_else(|why| panic!("{why:?}\n{}", visitas.output()));
            if response.status == 200 {
                ok += 1;
                let total = response.counts().total;
                assert!(
                    totals.insert(total),
                    "two visits got the total {total}, at offset {offset}"
                );
            } else {
                assert_eq!(response.status, 503, "{response:?}");
                assert!(
                    earliest_cut.elapsed() >= GRACE,
                    "the server was up all the time: a lost connection costs nobody an answer"
                );
                unsure += 1;
                wait_ready(&visitas);
            }
        }
        check_rows(&database, &visitas, ok, unsure);
    }
    assert!(
        commits_in_doubt(&visitas) > 0.0,
        "no cut left a commit in doubt: this proves nothing"
    );
    assert!(
        unsure < ok / 4,
        "{unsure} lost connections took over {GRACE:?} to replace, {ok} did not"
    );
}

#[track_caller]
fn commits_in_doubt(visitas: &Visitas) -> f64 {
    metrics(visitas).sum("visitas_ambiguous_commits_total")
}

#[track_caller]
fn wait_ready(visitas: &Visitas) {
    within(LIMIT, "visitas to be ready again", || {
        visitas.get("/readyz").status == 200
    });
}

#[test]
fn cut_towards_the_database() {
    cut_at_every_offset(Direction::ToServer);
}

#[test]
fn cut_towards_visitas() {
    cut_at_every_offset(Direction::ToClient);
}

/// A lane's connection dies in a commit, and another process starts and commits before the lane can
/// reconnect. The lane must still resolve its batch.
#[track_caller]
fn another_process_comes_in_between(direction: Direction, offset: usize) {
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let settings = Settings::new()
        .set("WORKERS", 1)
        .set("REQUEST_TIMEOUT", "15s");
    let cut_off = settings
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .start();
    let mut client = cut_off.connect();
    for total in [1, 2] {
        assert_eq!(client.try_visit().expect("an answer").counts().total, total);
    }
    // Maintenance may follow each of them. This answer comes after it, so that it is not what is
    // cut.
    assert_eq!(cut_off.stats().total, 2);
    proxy.refuse(true);
    proxy.cut_after(direction, offset);
    client.send(request("GET", "/", &[("Accept", "application/json")]));
    within(LIMIT, "the cut", || proxy.cuts() == 1);
    let other = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .start();
    other.visit();
    proxy.refuse(false);
    // The row is counted once, whether it was committed before the other process came or after.
    assert!(
        [3, 4].contains(&client.read().counts().total),
        "{}",
        cut_off.output()
    );
    assert_eq!(database.rows(), 4, "{}", cut_off.output());
    assert_eq!((cut_off.stats().total, other.stats().total), (4, 4));
    assert_eq!((cut_off.visit().total, other.visit().total), (5, 6));
}

#[test]
fn another_process_commits_after_a_committed_batch() {
    another_process_comes_in_between(Direction::ToClient, 0);
}

#[test]
fn another_process_commits_before_a_batch_in_doubt() {
    another_process_comes_in_between(Direction::ToServer, 10);
}

/// The first answer is lost, and the connection that resolves the batch is cut as well: in its
/// handshake, and before and after each statement. Another process commits in between.
#[test]
fn repeatedly_lost_answers_lose_no_row_and_count_none_twice() {
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let settings = Settings::new()
        .set("WORKERS", 1)
        .set("REQUEST_TIMEOUT", "15s");
    let cut_off = settings
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .start();
    let other = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .start();
    let (mut client, mut rows, mut again) = (cut_off.connect(), 0, 0);
    for place in (0..3600).step_by(150) {
        let (cuts, in_doubt) = (proxy.cuts(), commits_in_doubt(&cut_off));
        proxy.cut_after(Direction::ToClient, 0);
        client.send(request("GET", "/", &[("Accept", "application/json")]));
        within(LIMIT, "the first cut", || proxy.cuts() > cuts);
        proxy.cut_after(Direction::ToClient, place);
        other.visit();
        let status = client.read().status;
        proxy.heal();
        rows += 2;
        if commits_in_doubt(&cut_off) > in_doubt {
            assert_eq!(status, 200, "{}", cut_off.output());
            again += usize::from(proxy.cuts() > cuts + 1);
        } else if status != 200 {
            // The cut came in maintenance, so the visit was not sent yet when the second
            // connection failed as well.
            assert_eq!(status, 503, "{}", cut_off.output());
            rows -= 1;
            wait_ready(&cut_off);
        }
        assert_eq!(
            database.rows(),
            rows,
            "cut {place} bytes later\n{}",
            cut_off.output()
        );
        assert_eq!(
            (cut_off.stats().total, other.stats().total),
            (rows, rows),
            "{place}"
        );
    }
    assert!(
        again > 5,
        "only {again} connections were cut after the first: this proves little"
    );
}

#[test]
fn cut_again_and_again_under_load() {
    let database = Cluster::shared().database();
    let proxy = Proxy::to(database.port());
    let visitas = Settings::new()
        .set("DATABASE_URL", database.url_at(proxy.port()))
        .start();
    let load = Load::in_every_form(visitas.port(), 16);
    for cut in 0..40 {
        let direction = if cut % 2 == 0 {
            Direction::ToServer
        } else {
            Direction::ToClient
        };
        // Most cuts should hit a commit, not a handshake.
        within(LIMIT, "visits between two cuts", || {
            let total =
                |response: Response| (response.status == 200).then(|| response.fields().total);
            let (before, after) = (total(visitas.get("/stats")), total(visitas.get("/stats")));
            before.is_some() && after > before
        });
        // Arbitrary places in different messages.
        proxy.cut_after(direction, cut * 37 % 211);
        within(LIMIT, "the cut", || proxy.cuts() > cut);
    }
    within(LIMIT, "the database to be reached again", || {
        visitas.get("/stats").status == 200
    });
    let before = visitas.stats().total;
    within(LIMIT, "visits after the last cut", || {
        visitas.stats().total > before + 50
    });
    let outcomes = load.stop();
    outcomes.only_200_and_503();
    check_rows(&database, &visitas, outcomes.ok(), outcomes.unsure());
}

#[test]
fn an_administrator_terminates_every_session_under_load() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::in_every_form(visitas.port(), 16);
    for _ in 0..15 {
        within(LIMIT, "the database to be reached again", || {
            visitas.get("/stats").status == 200
        });
        let before = visitas.stats().total;
        within(LIMIT, "some visits between", || {
            visitas.stats().total > before + 20
        });
        within(LIMIT, "a session to end", || {
            database.terminate_sessions() > 0
        });
    }
    let outcomes = load.stop();
    outcomes.only_200_and_503();
    check_rows(&database, &visitas, outcomes.ok(), outcomes.unsure());
}

#[test]
fn a_commit_whose_session_is_terminated_is_repeated() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .start();
    let mut watcher = database.superuser();
    for visit in 1..=3 {
        let held = database.hold_inserts();
        let mut client = visitas.connect();
        client.send(request("GET", "/", &[("Accept", "application/json")]));
        within(LIMIT, "the commit to wait", || {
            database.sessions_waiting(&mut watcher) == 1
        });
        assert_eq!(database.terminate_sessions(), 1);
        within(LIMIT, "the commit to be tried again", || {
            database.sessions_waiting(&mut watcher) == 1
        });
        held.release();
        assert_eq!(client.read().counts().total, visit);
        assert_eq!(database.rows(), visit);
    }
}

#[test]
fn the_server_crashes_again_and_again() {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("REQUEST_TIMEOUT", "3s")
        .start();
    let load = Load::in_every_form(visitas.port(), 8);
    for how in [Stop::Immediate, Stop::Kill, Stop::Immediate] {
        let before = visitas.get("/stats");
        assert_eq!(before.status, 200, "{before:?}");
        within(LIMIT, "visits", || {
            visitas.stats().total > before.fields().total + 50
        });
        cluster.stop(how);
        cluster.restart();
        within(LIMIT, "visits again", || {
            visitas.get("/stats").status == 200
        });
    }
    let outcomes = load.stop();
    outcomes.only_200_and_503();
    check_rows(&database, &visitas, outcomes.ok(), outcomes.unsure());
}

#[test]
fn visitas_is_killed_again_and_again() {
    let database = Cluster::shared().database();
    let (mut ok, mut unsure) = (0, 0);
    for _ in 0..4 {
        let visitas = Settings::new().postgres(&database).start();
        check_rows(&database, &visitas, ok, unsure);
        assert_eq!(
            visitas.stats().cache,
            Some(0),
            "the in-process counter starts again"
        );
        let before = visitas.stats().total;
        let load = Load::in_every_form(visitas.port(), 8);
        within(LIMIT, "visits", || visitas.stats().total > before + 50);
        visitas.kill();
        let outcomes = load.stop();
        ok += outcomes.ok();
        unsure += outcomes.unsure();
    }
    let visitas = Settings::new().postgres(&database).start();
    check_rows(&database, &visitas, ok, unsure);
}

#[test]
fn an_increment_is_never_repeated() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let proxy = Proxy::to(redis.port());
    let visitas = Settings::new()
        .postgres(&database)
        .set("REDIS_URL", redis.url_at(proxy.port()))
        .set("WORKERS", 1)
        .start();
    let mut client = visitas.connect();
    let mut caches = BTreeSet::new();
    let (mut visits, mut uncounted) = (0, 0);
    let mut visit = || {
        visits += 1;
        let counts = client.try_visit().expect("an answer").counts();
        assert_eq!(counts.total, visits, "the ledger is not affected");
        match counts.cache {
            Some(cache) => assert!(caches.insert(cache), "two visits got the number {cache}"),
            None => uncounted += 1,
        }
        counts.cache.is_some()
    };
    let places = [Direction::ToServer, Direction::ToClient]
        .into_iter()
        .flat_map(|direction| (0..=60).step_by(4).map(move |at| (direction, at)));
    for (cuts, (direction, offset)) in places.enumerate() {
        // The cut should hit an increment, not a handshake.
        within(LIMIT, "a counted visit", &mut visit);
        proxy.cut_after(direction, offset);
        within(LIMIT, "the cut", || {
            visit();
            proxy.cuts() > cuts
        });
    }
    let counted = redis.counter().expect("a counter");
    let (least, most) = (
        i64::try_from(caches.len()).expect("a count"),
        i64::try_from(visits).expect("a count"),
    );
    assert!(
        (least..=most).contains(&counted),
        "{counted} in Redis for {least} counted and {uncounted} uncounted visits"
    );
    assert_eq!(database.rows(), visits);
}

//! 1,000 names at once: rows by name, totals by name, Redis by name and 200s by name are equal,
//! also through kills and outages.

use std::time::Duration;

use crate::support::audit::count;
use crate::support::names::{
    NamedLoad, listed, redis_by_name, rows_by_name, totals_are_rows, visits_to_names,
};
use crate::support::ports::free_port;
use crate::support::{Cluster, Database, Redis, Settings, Stop, Visitas, within};

const LIMIT: Duration = Duration::from_secs(60);

#[track_caller]
fn count_agrees(database: &Database<'_>) {
    let counted = count(Settings::new().postgres(database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

#[test]
fn a_thousand_names_over_postgres_and_redis() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let settings = Settings::new().postgres(&database).redis(&redis);
    let visitas = settings.set("COUNTERS", "*").start();
    let outcomes = visits_to_names(visitas.port(), 64, 1000, 5);
    assert_eq!((outcomes.visits(), outcomes.unsure.len()), (5000, 0));
    outcomes.each_number_once();
    let rows = totals_are_rows(&visitas, &database);
    assert_eq!(rows, outcomes.ok);
    assert!(rows.values().all(|rows| *rows == 5) && rows.len() == 1000);
    assert_eq!(redis_by_name(&redis, rows.keys()), rows);
    assert_eq!(redis.counter(), Some(5000));
    assert_eq!(visitas.stats().total, 5000);
    for (name, totals) in &outcomes.totals {
        let mut totals = totals.clone();
        totals.sort_unstable();
        assert_eq!(totals, [1, 2, 3, 4, 5], "{name}");
    }
    count_agrees(&database);
}

#[test]
fn a_thousand_names_over_the_embedded_store() {
    let visitas = Settings::new().set("COUNTERS", "*").start();
    let outcomes = visits_to_names(visitas.port(), 64, 1000, 3);
    assert_eq!((outcomes.visits(), outcomes.unsure.len()), (3000, 0));
    outcomes.each_number_once();
    assert_eq!(listed(&visitas), outcomes.ok);
    assert_eq!(visitas.stats().total, 3000);
    let settings = visitas.stop();
    let visitas = settings.start();
    assert_eq!(listed(&visitas), outcomes.ok, "after a restart");
    let counted = visitas.stop().argument("check").argument("--count").run();
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// Two processes of two lanes each, and other writers of the same names.
#[test]
fn many_writers_of_the_same_names() {
    let database = Cluster::shared().database();
    let settings = || {
        let settings = Settings::new().postgres(&database).set("COUNTERS", "*");
        settings.set("WORKERS", 16)
    };
    let (one, other) = (settings().start(), settings().start());
    let load = NamedLoad::start(&[one.port(), other.port()], 32, 100);
    let mut sql = database.sql();
    for round in 0..40 {
        let name = crate::support::names::name(round % 7);
        let script = format!(
            "INSERT INTO acessos (contador) SELECT '{name}' FROM generate_series(1, 3); \
             UPDATE acessos SET contador = 'other' WHERE id % 13 = {} AND contador = '{name}'; \
             UPDATE acessos SET contador = NULL WHERE id % 17 = 3 AND contador = '{name}'; \
             DELETE FROM acessos WHERE id % 11 = 5 AND contador = '{name}'",
            round % 13
        );
        // Visits never wait for these, nor these for visits.
        sql.batch_execute(&script).expect("writes");
    }
    sql.batch_execute("INSERT INTO acessos (contador) VALUES ('No Name'), (''), ('..'), (NULL)")
        .expect("rows of no counter");
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure.len(), 0, "{}", one.output());
    let rows = totals_are_rows(&one, &database);
    assert_eq!(listed(&other), rows);
    assert_eq!(one.stats().total, database.rows());
    count_agrees(&database);
    sql.batch_execute("TRUNCATE acessos").expect("TRUNCATE");
    assert_eq!(listed(&one).len(), 0, "{}", one.output());
    assert_eq!((one.stats().total, database.rows()), (0, 0));
    count_agrees(&database);
}

#[test]
fn nothing_is_lost_or_double_through_kills_and_outages() {
    let cluster = Cluster::start();
    let (database, redis) = (cluster.database(), Redis::start());
    let settings = || {
        let settings = Settings::new().postgres(&database).redis(&redis);
        let settings = settings.set("COUNTERS", "*").set("PORT", free_port());
        settings
            .set("REQUEST_TIMEOUT", "2s")
            .set("CONNECT_ATTEMPTS", 0)
    };
    let (mut one, other) = (settings().start(), settings().start());
    let load = NamedLoad::start(&[one.port(), other.port()], 16, 1000);
    let goes_on = |visitas: &Visitas| {
        let before = visitas.total();
        within(LIMIT, "visits to go on", || visitas.total() > before);
    };
    for round in 0..3 {
        goes_on(&one);
        one = one.kill().start();
        goes_on(&other);
        database.terminate_sessions();
        goes_on(&one);
        let how = [Stop::Immediate, Stop::Kill, Stop::Fast][round];
        cluster.stop(how);
        cluster.restart();
        goes_on(&one);
        goes_on(&other);
    }
    let outcomes = load.stop();
    within(LIMIT, "both to be up", || {
        one.total().is_some() && other.total().is_some()
    });
    assert!(outcomes.visits() > 300, "{}", outcomes.visits());
    let rows = totals_are_rows(&one, &database);
    assert_eq!(listed(&other), rows);
    outcomes.have_rows(&rows);
    // Redis counts what is committed, each at most once.
    let counted = redis_by_name(&redis, rows.keys());
    for (name, counted) in &counted {
        assert!(
            *counted <= rows[name],
            "{name}: {counted} of {}",
            rows[name]
        );
    }
    assert_eq!(one.total(), Some(database.rows()));
    count_agrees(&database);
}

#[test]
fn the_embedded_store_keeps_names_exact_through_kills() {
    let settings = Settings::new()
        .set("COUNTERS", "*")
        .set("PORT", free_port());
    let mut visitas = settings.start();
    let load = NamedLoad::start(&[visitas.port()], 16, 200);
    for _ in 0..4 {
        let before = visitas.total();
        within(LIMIT, "visits to go on", || visitas.total() > before);
        visitas = visitas.kill().start();
    }
    let outcomes = load.stop();
    let listed = listed(&visitas);
    outcomes.have_rows(&listed);
    assert_eq!(visitas.stats().total, listed.values().sum::<u64>());
    let counted = visitas.stop().argument("check").argument("--count").run();
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// While Redis is down, visits count without it; a key that holds no number disturbs no other.
#[test]
fn redis_is_down_or_refuses_one_name() {
    let (database, mut redis) = (Cluster::shared().database(), Redis::start());
    let settings = Settings::new().postgres(&database).redis(&redis);
    let visitas = settings.set("COUNTERS", "a,b").start();
    redis.command(&["SET", "contador_cache:a", "text"]);
    assert_eq!(super::visit(&visitas, "a"), (1, None));
    assert_eq!(super::visit(&visitas, "b"), (1, Some(1)));
    assert_eq!(visitas.visit().cache, Some(3));
    redis.command(&["DEL", "contador_cache:a"]);
    assert_eq!(super::visit(&visitas, "a"), (2, Some(1)));
    redis.stop();
    within(LIMIT, "an outage", || {
        super::visit(&visitas, "b").1.is_none()
    });
    redis.restart();
    within(LIMIT, "Redis again", || {
        super::visit(&visitas, "b").1.is_some()
    });
    assert_eq!(listed(&visitas), rows_by_name(&database));
}

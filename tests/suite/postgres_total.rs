//! The total in PostgreSQL equals `SELECT count(*)` for every writer, and rows carry their arrival.

use std::io::Write;
use std::time::Duration;

use crate::support::load::visits_at_once;
use crate::support::wait::within_value;
use crate::support::{Cluster, Database, LIMIT, Load, Settings, Visitas, within};

#[track_caller]
fn total_is(visitas: &Visitas, database: &Database<'_>, expected: u64) {
    assert_eq!(
        (visitas.stats().total, database.rows()),
        (expected, expected)
    );
}

#[test]
fn foreign_inserts_deletes_and_truncates_are_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.sql();
    visitas.visit();
    total_is(&visitas, &database, 1);
    sql.batch_execute("INSERT INTO acessos DEFAULT VALUES")
        .expect("an insert");
    total_is(&visitas, &database, 2);
    sql.batch_execute("INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, 1000)")
        .expect("an insert");
    total_is(&visitas, &database, 1002);
    assert_eq!(visitas.visit().total, 1003);
    sql.batch_execute("DELETE FROM acessos WHERE id % 2 = 0")
        .expect("a delete");
    let left = database.rows();
    assert!((450..550).contains(&left), "about half is left: {left}");
    total_is(&visitas, &database, left);
    sql.batch_execute("DELETE FROM acessos WHERE false")
        .expect("a delete of nothing");
    sql.batch_execute("UPDATE acessos SET momento = now()")
        .expect("an update");
    total_is(&visitas, &database, left);
    let insert = "INSERT INTO acessos (id, momento) OVERRIDING SYSTEM VALUE SELECT id, now() \
        FROM acessos LIMIT 5";
    sql.batch_execute(&format!("{insert} ON CONFLICT DO NOTHING"))
        .expect("an insert of existing rows");
    total_is(&visitas, &database, left);
    sql.batch_execute("TRUNCATE acessos").expect("a truncate");
    total_is(&visitas, &database, 0);
    assert_eq!(visitas.visit().total, 1);
    total_is(&visitas, &database, 1);
}

#[test]
fn copy_is_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.sql();
    let mut copy = sql
        .copy_in("COPY acessos (momento) FROM STDIN")
        .expect("a COPY");
    copy.write_all("2020-01-01 00:00:00+00\n".repeat(500).as_bytes())
        .expect("rows");
    assert_eq!(copy.finish().expect("the COPY's end"), 500);
    total_is(&visitas, &database, 500);
    assert_eq!(visitas.visit().total, 501);
}

#[test]
fn a_rollback_is_not_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.sql();
    for statement in [
        "INSERT INTO acessos DEFAULT VALUES",
        "DELETE FROM acessos",
        "TRUNCATE acessos",
    ] {
        let before = visitas.visit().total;
        sql.batch_execute(&format!("BEGIN; {statement}; ROLLBACK"))
            .expect("a rollback");
        total_is(&visitas, &database, before);
    }
    let all = "BEGIN; TRUNCATE acessos; INSERT INTO acessos DEFAULT VALUES; SAVEPOINT s; DELETE \
        FROM acessos; \
        ROLLBACK TO s; INSERT INTO acessos DEFAULT VALUES; COMMIT";
    sql.batch_execute(all).expect("a transaction of many parts");
    total_is(&visitas, &database, 2);
}

#[test]
fn other_roles_and_other_search_paths_are_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    visitas.visit();
    let stranger = format!("stranger_{}", database.name);
    let mut owner = database.superuser();
    owner
        .batch_execute(&format!(
            "CREATE ROLE {stranger} LOGIN PASSWORD 'p';
             GRANT INSERT, DELETE, TRUNCATE ON acessos TO {stranger};
             CREATE SCHEMA elsewhere; GRANT USAGE, CREATE ON SCHEMA elsewhere TO {stranger};"
        ))
        .expect("a role with few rights");
    let mut sql = database
        .cluster
        .session(&database.name, &stranger, "p")
        .expect("its session");
    sql.batch_execute("INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, 10)")
        .expect("an insert");
    total_is(&visitas, &database, 11);
    // Tables with the same names, first in the session's search path.
    sql.batch_execute(
        "SET search_path = elsewhere, pg_temp; \
         CREATE TABLE elsewhere.visitas_changes (start bigint, total bigint); \
         CREATE TEMP TABLE visitas_changes (start bigint, total bigint); \
         CREATE TEMP TABLE visitas_base (total bigint)",
    )
    .expect("another path");
    sql.batch_execute("INSERT INTO public.acessos (momento) VALUES (now()), (now())")
        .expect("an insert");
    total_is(&visitas, &database, 13);
    sql.batch_execute("DELETE FROM public.acessos")
        .expect("a delete");
    total_is(&visitas, &database, 0);
    visitas.visit();
    sql.batch_execute("TRUNCATE public.acessos")
        .expect("a truncate");
    total_is(&visitas, &database, 0);
    assert_eq!(visitas.visit().total, 1);
}

#[test]
fn foreign_writers_and_visits_at_the_same_time() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::start(visitas.port(), 8);
    std::thread::scope(|scope| {
        for statement in [
            "INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, 7)",
            "DELETE FROM acessos WHERE id IN (SELECT id FROM acessos LIMIT 5 FOR \
             UPDATE SKIP LOCKED)",
        ] {
            let database = &database;
            scope.spawn(move || {
                let mut sql = database.sql();
                (0..100).for_each(|_| sql.batch_execute(statement).expect(statement));
            });
        }
        scope.spawn(|| {
            let mut sql = database.sql();
            (0..10).for_each(|_| sql.batch_execute("TRUNCATE acessos").expect("a truncate"));
        });
    });
    let outcomes = load.stop();
    assert!(
        outcomes.ok() > 50,
        "too few visits for this to mean anything: {}",
        outcomes.ok()
    );
    assert_eq!(
        outcomes.unsure(),
        0,
        "a visit was refused: {outcomes:?}\n{}",
        visitas.output()
    );
    let rows = database.rows();
    assert_eq!(visitas.stats().total, rows);
}

#[test]
fn the_moment_of_a_row_is_the_arrival_of_its_visit() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .start();
    let mut sql = database.superuser();
    let mut watcher = database.superuser();
    let mut clock = || -> f64 {
        let now = "SELECT extract(epoch FROM clock_timestamp())::float8";
        sql.query_one(now, &[]).expect("the time").get(0)
    };
    let held = database.hold_inserts();
    let before = clock();
    // The first visit's commit is held up, the second visit waits behind it in the lane.
    let (mut first, mut second) = (visitas.connect(), visitas.connect());
    let visit = crate::support::client::request("GET", "/", &[("Accept", "application/json")]);
    first.send(&visit);
    within(LIMIT, "the first visit's commit to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    second.send(&visit);
    within(LIMIT, "the second visit to queue", || {
        crate::metrics::queued(&visitas) >= 1.0
    });
    let arrived = clock();
    held.release();
    assert_eq!(
        (first.read().counts().total, second.read().counts().total),
        (1, 2)
    );
    let moments = "SELECT extract(epoch FROM momento)::float8 FROM acessos ORDER BY id";
    let moments: Vec<f64> = watcher
        .query(moments, &[])
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(
        before <= moments[0] && moments[0] <= moments[1] && moments[1] <= arrived,
        "{moments:?} are not between {before} and {arrived}, in order"
    );
}

#[test]
fn the_total_survives_a_restart() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    visits_at_once(&[visitas.port()], 10, 5).all_ok(50);
    visitas.stop();
    // Rows that come and go while visitas is stopped.
    database
        .sql()
        .batch_execute("INSERT INTO acessos DEFAULT VALUES; DELETE FROM acessos WHERE id <= 3")
        .expect("SQL");
    let left = database.rows();
    let visitas = Settings::new().postgres(&database).start();
    total_is(&visitas, &database, left);
    let counts = visitas.visit();
    assert_eq!(
        (counts.total, counts.cache),
        (left + 1, Some(1)),
        "the in-process counter starts again"
    );
}

/// The pages that `SELECT visitas_total()` touches in a session with a warm catalog cache.
fn pages_of_a_total(database: &Database<'_>) -> u64 {
    let mut sql = database.superuser();
    let explain = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) SELECT visitas_total()";
    let mut last = Vec::new();
    for _ in 0..3 {
        last = sql
            .query(explain, &[])
            .expect(explain)
            .iter()
            .map(|row| row.get::<_, String>(0))
            .collect();
    }
    let buffers = last
        .iter()
        .find(|line| line.contains("Buffers:"))
        .unwrap_or_else(|| panic!("no pages in {last:?}"));
    let numbers = buffers
        .split([' ', ','])
        .filter_map(|word| word.strip_prefix("hit=").or(word.strip_prefix("read=")));
    numbers
        .map(|number| number.parse::<u64>().expect("a number"))
        .sum()
}

/// The pages that the sessions of visitas touch for these visits and for connecting.
fn pages_of_visits(database: &Database<'_>, visitas: &Visitas, visits: u64) -> u64 {
    // From another database, so that these queries are not counted.
    let mut watcher = database
        .cluster
        .superuser(crate::support::postgres::DEFAULT_NAME);
    let mut pages = || -> u64 {
        // A session reports its statistics when it ends. Before PostgreSQL 15 they arrive later.
        database.terminate_sessions();
        let count = "SELECT (SELECT count(*) FROM pg_stat_activity \
            WHERE datname = $1 AND usename = 'user_app'), \
            (SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = $1)";
        let mut same_since: Option<(i64, std::time::Instant)> = None;
        within_value(LIMIT, "the sessions to end", || {
            let row = watcher
                .query_one(count, &[&database.name])
                .expect("statistics");
            let (sessions, pages): (i64, i64) = (row.get(0), row.get(1));
            if sessions > 0 {
                // It was opened while the others were terminated.
                database.terminate_sessions();
            }
            let (_, since) = *same_since.insert(match same_since {
                Some((before, since)) if before == pages => (before, since),
                _ => (pages, std::time::Instant::now()),
            });
            let still = sessions == 0 && since.elapsed() > Duration::from_millis(1100);
            if still {
                Ok(u64::try_from(pages).expect("a count"))
            } else {
                Err((sessions, pages))
            }
        })
    };
    let before = pages();
    let mut client = visitas.connect();
    for _ in 0..visits {
        within(LIMIT, "a visit", || {
            client
                .try_visit()
                .is_ok_and(|response| response.status == 200)
        });
    }
    pages() - before
}

/// An open snapshot keeps vacuum from removing dead rows, and readers pay for passing them.
#[test]
fn a_visit_costs_the_same_beside_an_open_snapshot() {
    let cluster = Cluster::stopped();
    // Its workers would touch pages too.
    cluster.configure("autovacuum = off");
    cluster.restart();
    let database = cluster.database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .start();
    database
        .sql()
        .batch_execute(
            "CREATE PROCEDURE singles(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP \
             INSERT INTO acessos DEFAULT VALUES; COMMIT; END LOOP; END $$",
        )
        .expect("a procedure");
    let before = (
        pages_of_a_total(&database),
        pages_of_visits(&database, &visitas, 300),
    );
    let mut holder = database.superuser();
    holder
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM acessos")
        .expect("a snapshot");
    let mut sql = database.sql();
    sql.batch_execute("SET synchronous_commit = off")
        .expect("a setting");
    sql.batch_execute("CALL singles(20000)")
        .expect("20,000 foreign rows");
    let mut watcher = database.superuser();
    within_value(LIMIT, "what they appended to be folded", || {
        within(LIMIT, "a visit", || visitas.try_visit().status == 200);
        match watcher
            .query_one("SELECT count(*) FROM visitas_changes", &[])
            .expect("changes")
            .get::<_, i64>(0)
        {
            0..300 => Ok(()),
            left => Err(left),
        }
    });
    let total = pages_of_a_total(&database);
    assert!(
        total <= 2 * before.0 + 20,
        "a total touches {total} pages, {} before",
        before.0
    );
    drop(watcher);
    let visits = pages_of_visits(&database, &visitas, 300);
    assert!(
        visits <= before.1 * 3 / 2 + 500,
        "300 visits touch {visits} pages, {} before",
        before.1
    );
    holder
        .batch_execute("COMMIT")
        .expect("the snapshot was open to the end");
}

#[test]
fn a_total_costs_the_same_with_many_rows_as_with_none() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.superuser();
    let scans = |sql: &mut ::postgres::Client| -> i64 {
        sql.batch_execute("SELECT pg_stat_clear_snapshot()")
            .expect("statistics");
        let count = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint \
            FROM pg_stat_user_tables \
            WHERE relname = 'acessos'";
        sql.query_one(count, &[]).expect("statistics").get(0)
    };
    sql.batch_execute("INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, 50000)")
        .expect("rows");
    let before = scans(&mut sql);
    for _ in 0..20 {
        visitas.visit();
        visitas.stats();
    }
    visitas.stop();
    // Sessions report their statistics when they end.
    let idle = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND usename = 'user_app'";
    within(LIMIT, "the sessions to end", || {
        sql.query_one(idle, &[]).expect("sessions").get::<_, i64>(0) == 0
    });
    assert_eq!(
        scans(&mut sql) - before,
        0,
        "rows of acessos were read to know how many there are"
    );
    assert_eq!(database.rows(), 50_020);
}

//! Other writers of the table: visitas causes them no deadlock, no serialization failure and no
//! long wait, and gives nobody foreign rights.

mod locks;
mod rights;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::postgres::Client as Sql;

use crate::support::audit::count;
use crate::support::wait::within_value;
use crate::support::{Cluster, Database, LIMIT, Load, Settings, Visitas, machine, within};

#[track_caller]
fn total_is_rows(visitas: &Visitas, database: &Database<'_>) -> u64 {
    let rows = database.rows();
    assert_eq!(visitas.stats().total, rows, "{}", visitas.output());
    rows
}

/// A table like `acessos` without visitas.
const PLAIN: &str = "CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    momento timestamptz NOT NULL DEFAULT now())";

/// Rows per second by three writers of single rows, in transactions of ten.
fn rate(database: &Database<'_>, table: &str) -> f64 {
    let (written, time) = (AtomicUsize::new(0), Duration::from_millis(400));
    let insert = format!("INSERT INTO {table} DEFAULT VALUES");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut sql = database.sql();
                let began = Instant::now();
                while began.elapsed() < time {
                    sql.batch_execute("BEGIN").expect("BEGIN");
                    (0..10).for_each(|_| sql.batch_execute(&insert).expect("a row of a writer"));
                    sql.batch_execute("COMMIT").expect("COMMIT");
                    written.fetch_add(10, Ordering::Relaxed);
                }
            });
        }
    });
    written.into_inner() as f64 / time.as_secs_f64()
}

/// Compared with a table without visitas, beside the same visits.
#[test]
fn writers_of_single_rows_keep_half_of_their_rate() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    database.sql().batch_execute(PLAIN).expect("a plain table");
    let load = Load::start(visitas.port(), 8);
    let mut seen = Vec::new();
    // Other programs may slow either half of a round down.
    for _ in 0..8 {
        let (plain, counted) = (rate(&database, "plain"), rate(&database, "acessos"));
        seen.push(format!("{counted:.0} of {plain:.0} rows/s"));
        if counted >= plain / 2.0 {
            break;
        }
        assert!(seen.len() < 8, "{seen:?}\n{}", visitas.output());
    }
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}");
    total_is_rows(&visitas, &database);
}

/// A kind of writer: how its transactions begin, and what they do with some rows of its own.
struct Kind {
    name: &'static str,
    begin: &'static str,
    work: fn(&mut Sql, &[i64]) -> Result<(), ::postgres::Error>,
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn insert_singles(sql: &mut Sql, _: &[i64]) -> Result<(), ::postgres::Error> {
    (0..10).try_for_each(|_| sql.batch_execute("INSERT INTO acessos DEFAULT VALUES"))
}

fn copy(sql: &mut Sql, _: &[i64]) -> Result<(), ::postgres::Error> {
    let mut rows = sql.copy_in("COPY acessos (momento) FROM STDIN")?;
    std::io::Write::write_all(&mut rows, "2020-01-01 00:00:00+00\n".repeat(20).as_bytes())
        .expect("rows");
    rows.finish().map(drop)
}

fn update(sql: &mut Sql, ids: &[i64]) -> Result<(), ::postgres::Error> {
    let moved = "UPDATE acessos SET momento = momento - interval '1 minute' WHERE id IN";
    sql.batch_execute(&format!("{moved} ({})", list(ids)))
}

fn delete(sql: &mut Sql, ids: &[i64]) -> Result<(), ::postgres::Error> {
    sql.batch_execute(&format!(
        "DELETE FROM acessos WHERE id IN ({})",
        list(&ids[1..])
    ))
}

fn merge(sql: &mut Sql, ids: &[i64]) -> Result<(), ::postgres::Error> {
    let own = format!(
        "SELECT id FROM unnest(ARRAY[{}]::bigint[]) AS u(id)",
        list(ids)
    );
    sql.batch_execute(&format!(
        "MERGE INTO acessos a USING ({own}) o ON a.id = o.id \
         WHEN MATCHED AND o.id % 3 = 0 THEN DELETE \
         WHEN MATCHED THEN UPDATE SET momento = a.momento - interval '1 hour' \
         WHEN NOT MATCHED THEN INSERT (momento) VALUES (now())"
    ))
}

const KINDS: &[Kind] = &[
    Kind {
        name: "single rows",
        begin: "BEGIN",
        work: insert_singles,
    },
    Kind {
        name: "single rows, serializable",
        begin: "BEGIN ISOLATION LEVEL SERIALIZABLE",
        work: insert_singles,
    },
    Kind {
        name: "more of them",
        begin: "BEGIN ISOLATION LEVEL SERIALIZABLE",
        work: insert_singles,
    },
    Kind {
        name: "COPY",
        begin: "BEGIN",
        work: copy,
    },
    Kind {
        name: "COPY, serializable",
        begin: "BEGIN ISOLATION LEVEL SERIALIZABLE",
        work: copy,
    },
    Kind {
        name: "UPDATE",
        begin: "BEGIN",
        work: update,
    },
    Kind {
        name: "UPDATE, repeatable read",
        begin: "BEGIN ISOLATION LEVEL REPEATABLE READ",
        work: update,
    },
    Kind {
        name: "DELETE",
        begin: "BEGIN",
        work: delete,
    },
    Kind {
        name: "DELETE, repeatable read",
        begin: "BEGIN ISOLATION LEVEL REPEATABLE READ",
        work: delete,
    },
    Kind {
        name: "MERGE",
        begin: "BEGIN",
        work: merge,
    },
    Kind {
        name: "MERGE, repeatable read",
        begin: "BEGIN ISOLATION LEVEL REPEATABLE READ",
        work: merge,
    },
];

/// Stops the threads of a scope, also when the test fails.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs transactions of this kind until `stop`, counts them in `done`, and gives the errors.
fn write(
    database: &Database<'_>,
    kind: &Kind,
    stop: &AtomicBool,
    done: &AtomicUsize,
) -> BTreeMap<String, usize> {
    let (mut sql, mut errors) = (database.sql(), BTreeMap::new());
    while !stop.load(Ordering::Relaxed) {
        let own =
            "INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, 5) RETURNING id";
        let transaction = |sql: &mut Sql| {
            let ids: Vec<i64> = sql.query(own, &[])?.iter().map(|row| row.get(0)).collect();
            sql.batch_execute(kind.begin)?;
            (kind.work)(sql, &ids)?;
            sql.batch_execute("COMMIT")
        };
        match transaction(&mut sql) {
            Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                *errors
                    .entry(format!("{}: {error:?}", kind.name))
                    .or_default() += 1;
                let _ = sql.batch_execute("ROLLBACK");
            }
        }
    }
    errors
}

/// Every writer has its own rows, so only visitas could make one wait for another.
#[test]
fn no_writer_of_any_kind_fails_because_of_visits() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::start(visitas.port(), 8);
    let stop = AtomicBool::new(false);
    // MERGE came with PostgreSQL 15.
    let has_merge =
        database.number("SELECT current_setting('server_version_num')::bigint") >= 150_000;
    let kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|kind| has_merge || !kind.name.starts_with("MERGE"))
        .collect();
    let done: Vec<AtomicUsize> = kinds.iter().map(|_| AtomicUsize::new(0)).collect();
    let errors: Vec<BTreeMap<String, usize>> = thread::scope(|scope| {
        let end = Ends(&stop);
        let (database, stop) = (&database, &stop);
        let writer = |(kind, done)| scope.spawn(move || write(database, kind, stop, done));
        let writers: Vec<_> = kinds.iter().copied().zip(&done).map(writer).collect();
        let (before, began) = (visitas.stats().total, Instant::now());
        within(
            LIMIT,
            "visits, time, and transactions of every kind",
            || {
                began.elapsed() > Duration::from_secs(2)
                    && visitas.stats().total > before + 500
                    && done.iter().all(|done| done.load(Ordering::Relaxed) > 3)
            },
        );
        drop(end);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer's account"))
            .collect()
    });
    let outcomes = load.stop();
    assert!(errors.iter().all(BTreeMap::is_empty), "{errors:#?}");
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}\n{}", visitas.output());
    total_is_rows(&visitas, &database);
    crate::support::history::is_exact(&visitas, &database);
}

#[test]
fn a_trigger_that_drops_rows_gets_no_200_for_them() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("WORKERS", 1)
        .start();
    assert_eq!(visitas.visit().total, 1);
    for (rule, most) in [("NULL", 0), ("CASE WHEN NEW.id % 2 = 0 THEN NEW END", 20)] {
        let mut sql = database.sql();
        sql.batch_execute(&format!(
            "CREATE OR REPLACE FUNCTION dropper() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RETURN {rule}; END $$; \
             CREATE OR REPLACE TRIGGER dropper BEFORE INSERT ON acessos \
             FOR EACH ROW EXECUTE FUNCTION dropper()"
        ))
        .expect("a trigger that drops rows");
        let before = database.rows();
        let (mut ok, mut client) = (0, visitas.connect());
        for _ in 0..20 {
            let response = client.try_visit().expect("an answer");
            assert!(matches!(response.status, 200 | 503), "{response:?}");
            ok += u64::from(response.status == 200);
        }
        assert_eq!(
            database.rows(),
            before + ok,
            "200s and rows\n{}",
            visitas.output()
        );
        assert!(ok <= most, "{ok} answered with 200");
    }
    visits_go_on_after(&visitas, &database, "DROP TRIGGER dropper ON acessos");
}

/// What kept visits from being counted is removed.
#[track_caller]
fn visits_go_on_after(visitas: &Visitas, database: &Database<'_>, removal: &str) {
    database.sql().batch_execute(removal).expect(removal);
    within(LIMIT, "visits again", || visitas.try_visit().status == 200);
    total_is_rows(visitas, database);
}

#[test]
fn rows_that_a_rule_sends_elsewhere_get_no_200() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("COUNTERS", "blog")
        .start();
    assert_eq!(visitas.visit().total, 1);
    database
        .sql()
        .batch_execute(
            "CREATE TABLE other (id bigint, momento timestamptz); \
             CREATE RULE elsewhere AS ON INSERT TO acessos DO INSTEAD \
             INSERT INTO other VALUES (NEW.id, NEW.momento)",
        )
        .expect("a rule");
    for path in ["/visit.svg", "/c/blog/visit.svg"] {
        assert_eq!(visitas.get(path).status, 503, "{}", visitas.output());
    }
    assert_eq!(database.number("SELECT count(*) FROM other"), 0);
    assert_eq!(database.rows(), 1);
    visits_go_on_after(&visitas, &database, "DROP RULE elsewhere ON acessos");
}

/// Triggers of others run in the transaction of the visit.
#[test]
fn rows_that_another_trigger_adds_to_a_visit_are_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    assert_eq!(visitas.visit().total, 1);
    database
        .sql()
        .batch_execute(
            "CREATE FUNCTION doubles() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF pg_trigger_depth() < 2 THEN INSERT INTO acessos DEFAULT VALUES; END IF; \
             RETURN NEW; END $$; \
             CREATE TRIGGER after AFTER INSERT ON acessos FOR EACH ROW EXECUTE FUNCTION doubles(); \
             CREATE TRIGGER before BEFORE INSERT ON acessos FOR EACH ROW EXECUTE FUNCTION doubles()",
        )
        .expect("triggers");
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, 1 + 3 * visit);
    }
    total_is_rows(&visitas, &database);
    crate::support::history::is_exact(&visitas, &database);
}

#[test]
fn visits_go_on_after_somebody_emptied_the_log() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    visitas.visit();
    database
        .superuser()
        .batch_execute("TRUNCATE visitas_log")
        .expect("an empty log");
    within(LIMIT, "visits again", || visitas.try_visit().status == 200);
    let mended = Settings::new()
        .postgres(&database)
        .argument("recount")
        .run();
    assert_eq!(mended.code, Some(0), "{mended:?}");
    visitas.visit();
    total_is_rows(&visitas, &database);
}

#[test]
fn changes_of_an_archive_are_not_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    (1..=10).for_each(|visit| assert_eq!(visitas.visit().total, visit));
    let settings = visitas.stop();
    let mut sql = database.sql();
    sql.batch_execute("ALTER TABLE acessos RENAME TO archive")
        .expect("an archive");
    // A table of the same shape without triggers and with its own identity.
    sql.batch_execute("CREATE TABLE acessos (LIKE archive INCLUDING ALL)")
        .expect("a new table");
    let visitas = settings.start();
    assert_eq!(visitas.visit().total, 1);
    for statement in [
        "INSERT INTO archive (momento) SELECT now() FROM generate_series(1, 5)",
        "INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, 3)",
        "DELETE FROM archive WHERE id <= 4",
        "UPDATE archive SET momento = now() - interval '70 minutes'",
        "DELETE FROM acessos WHERE id % 2 = 0",
        "TRUNCATE archive",
        "INSERT INTO archive DEFAULT VALUES",
        "DROP TABLE archive",
    ] {
        sql.batch_execute(statement).expect(statement);
        total_is_rows(&visitas, &database);
        crate::support::history::is_exact(&visitas, &database);
    }
    visitas.visit();
    let counted = count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// The table is replaced under load, in one transaction. Every 200 has its row in one of the two
/// tables, and the total is right after the next start.
#[test]
fn a_table_that_is_replaced_under_visits_loses_none() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::start(visitas.port(), 8);
    within(LIMIT, "visits", || visitas.stats().total > 50);
    database
        .sql()
        .batch_execute(
            "BEGIN; ALTER TABLE acessos RENAME TO archive; \
             CREATE TABLE acessos (LIKE archive INCLUDING ALL); COMMIT",
        )
        .expect("another table");
    within_value(LIMIT, "visits into it", || match database.rows() {
        0..50 => Err(visitas.output()),
        _ => Ok(()),
    });
    let outcomes = load.stop();
    let rows =
        database.number("SELECT (SELECT count(*) FROM acessos) + (SELECT count(*) FROM archive)");
    let (rows, ok) = (u64::try_from(rows).expect("a count"), outcomes.ok());
    assert!(
        (ok..=ok + outcomes.unsure()).contains(&rows),
        "{rows} rows: {outcomes:?}\n{}",
        visitas.output()
    );
    let visitas = visitas.stop().start();
    visitas.visit();
    total_is_rows(&visitas, &database);
    database
        .sql()
        .batch_execute("TRUNCATE archive; INSERT INTO acessos DEFAULT VALUES")
        .expect("an archive less");
    total_is_rows(&visitas, &database);
}

#[test]
fn a_truncate_is_counted_or_clearly_refused() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::start(visitas.port(), 8);
    let mut sql = database.sql();
    for _ in 0..5 {
        within(LIMIT, "visits", || visitas.stats().total > 20);
        sql.batch_execute("TRUNCATE acessos").expect("a TRUNCATE");
        sql.batch_execute(
            "BEGIN; TRUNCATE acessos; INSERT INTO acessos DEFAULT VALUES; SAVEPOINT s; \
             TRUNCATE acessos; \
            ROLLBACK TO s; COMMIT",
        )
        .expect("a TRUNCATE among others");
    }
    // A snapshot from before the lock misses later commits, so the number of deleted rows is
    // unknown.
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let truncate = format!("BEGIN ISOLATION LEVEL {level}; SELECT 1; TRUNCATE acessos; COMMIT");
        let error = sql.batch_execute(&truncate).expect_err(level);
        sql.batch_execute("ROLLBACK").expect("ROLLBACK");
        let error = error.as_db_error().expect("an error of the server's");
        assert!(
            error.message().contains("TRUNCATE") && error.message().contains("READ COMMITTED"),
            "{error:?}"
        );
    }
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}\n{}", visitas.output());
    assert!(total_is_rows(&visitas, &database) > 0);
    crate::support::history::is_exact(&visitas, &database);
    sql.batch_execute("TRUNCATE acessos").expect("a TRUNCATE");
    assert_eq!(total_is_rows(&visitas, &database), 0);
    crate::support::history::is_exact(&visitas, &database);
}

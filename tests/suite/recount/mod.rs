//! Writes that no trigger sees: `visitas check --count` finds the difference, `visitas recount`
//! corrects it under load.

mod dumps;

use ::postgres::Client as Sql;

use crate::support::audit::count;
use crate::support::scratch::Folder;
use crate::support::{Cluster, Database, LIMIT, Load, Settings, Stop, Visitas, within};

fn settings(database: &Database<'_>) -> Settings {
    Settings::new().postgres(database)
}

/// Total and history equal the rows, and a count agrees.
#[track_caller]
fn is_right(visitas: &Visitas, database: &Database<'_>) {
    let rows = database.rows();
    assert_eq!(visitas.stats().total, rows, "{}", visitas.output());
    crate::support::history::is_exact(visitas, database);
    let counted = count(settings(database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// A count finds that the total differs from the rows, shows both numbers, and changes nothing.
#[track_caller]
fn is_found(visitas: &Visitas, database: &Database<'_>) {
    let (total, rows) = (visitas.stats().total, database.rows());
    assert_ne!(
        total, rows,
        "the hidden rows were counted: this proves nothing"
    );
    for _ in 0..2 {
        let found = count(settings(database));
        assert_eq!(found.code, Some(1), "{found:?}");
        for number in [total, rows] {
            let is_named = found
                .stdout
                .split(|c: char| !c.is_ascii_digit())
                .any(|word| word == number.to_string());
            assert!(is_named, "no {number} in {found:?}");
        }
    }
    assert_eq!(
        (visitas.stats().total, database.rows()),
        (total, rows),
        "a check changes nothing"
    );
}

/// A recount under load corrects total and history, says what it changed, and costs no visit its
/// answer.
#[track_caller]
fn is_corrected(visitas: &Visitas, database: &Database<'_>) {
    let load = Load::start(visitas.port(), 4);
    let before = visitas.stats().total;
    within(LIMIT, "visits", || visitas.stats().total > before + 20);
    let mended = settings(database).argument("recount").run();
    assert_eq!(mended.code, Some(0), "{mended:?}");
    assert!(
        mended.stdout.contains("total") && !mended.stderr.contains("panicked"),
        "what it changed: {mended:?}"
    );
    let before = visitas.stats().total;
    within(LIMIT, "visits", || visitas.stats().total > before + 20);
    let outcomes = load.stop();
    assert_eq!(
        outcomes.unsure(),
        0,
        "visits go on: {outcomes:?}\n{}",
        visitas.output()
    );
    is_right(visitas, database);
    // A second recount has nothing to do.
    let again = settings(database).argument("recount").run();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_ne!(again.stdout, mended.stdout, "it says what it changed");
    is_right(visitas, database);
}

/// Hides rows from the triggers, finds the difference and corrects it.
#[track_caller]
fn found_and_corrected(table: &str, hidden: impl FnOnce(&mut Sql)) {
    let database = Cluster::shared().database();
    database.sql().batch_execute(table).expect(table);
    let visitas = settings(&database).start();
    (0..3).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    is_right(&visitas, &database);
    hidden(&mut database.superuser());
    is_found(&visitas, &database);
    is_corrected(&visitas, &database);
}

const PARTITIONED: &str = "CREATE TABLE acessos (id bigserial, momento timestamptz \
    NOT NULL DEFAULT now(), PRIMARY KEY (id)) \
    PARTITION BY RANGE (id); \
    CREATE TABLE acessos_1 PARTITION OF acessos FOR VALUES FROM (1) TO (1000000); \
    CREATE TABLE acessos_2 PARTITION OF acessos FOR VALUES FROM (1000000) TO (2000000)";

/// Rows of the last three days with ids from a million on.
fn old_rows(table: &str) -> String {
    format!(
        "INSERT INTO {table} (id, momento) SELECT 1000000 + n, now() - n * interval '17 minutes' \
         FROM generate_series(0, 250) n"
    )
}

#[test]
fn rows_written_to_a_partition() {
    found_and_corrected(PARTITIONED, |sql| {
        sql.batch_execute(&old_rows("acessos_2"))
            .expect("rows in a partition");
        sql.batch_execute("DELETE FROM acessos_1 WHERE id = (SELECT min(id) FROM acessos_1)")
            .expect("a row less");
    });
}

#[test]
fn a_partition_that_is_attached_with_its_rows() {
    found_and_corrected(PARTITIONED, |sql| {
        sql.batch_execute("CREATE TABLE acessos_3 (LIKE acessos)")
            .expect("a table");
        sql.batch_execute(&old_rows("acessos_3").replace("1000000", "2000000"))
            .expect("its rows");
        sql.batch_execute(
            "ALTER TABLE acessos ATTACH PARTITION acessos_3 FOR VALUES FROM (2000000) TO (3000000)",
        )
        .expect("a partition more");
    });
}

#[test]
fn rows_written_to_an_inheriting_table() {
    found_and_corrected("SELECT 1", |sql| {
        sql.batch_execute("CREATE TABLE older () INHERITS (acessos)")
            .expect("an inheriting table");
        sql.batch_execute(&old_rows("older")).expect("rows in it");
    });
}

#[test]
fn triggers_switched_off_and_on() {
    found_and_corrected("SELECT 1", |sql| {
        sql.batch_execute("ALTER TABLE acessos DISABLE TRIGGER USER")
            .expect("triggers off");
        sql.batch_execute(
            "INSERT INTO acessos (momento) SELECT now() - n * interval '7 minutes' \
             FROM generate_series(1, 90) n",
        )
        .expect("rows");
        sql.batch_execute("DELETE FROM acessos WHERE id = 1")
            .expect("a row less");
        sql.batch_execute("ALTER TABLE acessos ENABLE TRIGGER USER")
            .expect("triggers on");
    });
}

#[test]
fn rows_that_are_replicated() {
    found_and_corrected("SELECT 1", |sql| {
        // As a subscription's worker does (PostgreSQL manual, 19.11).
        sql.batch_execute("SET session_replication_role = replica")
            .expect("a replica's session");
        sql.batch_execute(
            "INSERT INTO acessos (momento) SELECT now() - n * interval '1 hour' \
             FROM generate_series(0, 99) n",
        )
        .expect("rows");
        sql.batch_execute(
            "TRUNCATE acessos; INSERT INTO acessos SELECT FROM generate_series(1, 1000)",
        )
        .expect("rows");
    });
}

#[test]
fn rows_written_while_the_table_has_another_name() {
    found_and_corrected("SELECT 1", |sql| {
        sql.batch_execute(
            "BEGIN; ALTER TABLE acessos RENAME TO other; \
             INSERT INTO other (momento) SELECT now() FROM generate_series(1, 4); \
             ALTER TABLE other RENAME TO acessos; COMMIT",
        )
        .expect("rows");
    });
}

#[test]
fn rows_of_a_writer_that_says_it_is_a_lane() {
    found_and_corrected("SELECT 1", |sql| {
        sql.batch_execute("SET visitas.lane = 'on'; INSERT INTO acessos DEFAULT VALUES")
            .expect("a row");
    });
}

/// The total is right and the history is not.
#[test]
fn moments_changed_while_triggers_were_off() {
    let database = Cluster::shared().database();
    let visitas = settings(&database).start();
    (0..5).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    database
        .sql()
        .batch_execute(
            "ALTER TABLE acessos DISABLE TRIGGER USER; \
             UPDATE acessos SET momento = momento - interval '3 days'; \
             ALTER TABLE acessos ENABLE TRIGGER USER",
        )
        .expect("other moments");
    let found = count(settings(&database));
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains("history"), "{found:?}");
    is_corrected(&visitas, &database);
}

#[test]
fn an_unlogged_table_after_a_crash() {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let visitas = settings(&database).start();
    (0..20).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    database
        .sql()
        .batch_execute("ALTER TABLE acessos SET UNLOGGED")
        .expect("a table without a log");
    within(LIMIT, "visits", || visitas.try_visit().status == 200);
    cluster.stop(Stop::Immediate);
    cluster.restart();
    within(LIMIT, "the database to be reached again", || {
        visitas.get("/stats").status == 200
    });
    assert_eq!(database.rows(), 0, "the crash took the rows");
    is_found(&visitas, &database);
    is_corrected(&visitas, &database);
}

/// Other writers have transactions that begin before the recount and end after it.
#[test]
fn a_recount_beside_other_writers() {
    let database = Cluster::shared().database();
    database
        .sql()
        .batch_execute(
            "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamptz DEFAULT now())",
        )
        .expect("a table");
    database
        .sql()
        .batch_execute(
            "INSERT INTO acessos (momento) SELECT now() - n * interval '1 minute' \
             FROM generate_series(1, 100000) n",
        )
        .expect("rows from before");
    let visitas = settings(&database).start();
    let load = Load::start(visitas.port(), 4);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let end = crate::other_writers::Ends(&stop);
        for statement in [
            "INSERT INTO acessos (momento) SELECT now() - interval '9 minutes' \
             FROM generate_series(1, 3)",
            "DELETE FROM acessos WHERE id IN (SELECT id FROM acessos ORDER BY id LIMIT 5 FOR \
             UPDATE SKIP LOCKED)",
            "UPDATE acessos SET momento = momento - interval '2 hours' \
                WHERE id IN (SELECT id FROM acessos ORDER BY id DESC LIMIT 5 FOR \
                UPDATE SKIP LOCKED)",
        ] {
            let database = &database;
            scope.spawn(move || {
                let mut sql = database.sql();
                while !is_over() {
                    let mut transaction = sql.transaction().expect("BEGIN");
                    for _ in 0..5 {
                        transaction.batch_execute(statement).expect(statement);
                    }
                    transaction.commit().expect("COMMIT");
                }
            });
        }
        for _ in 0..4 {
            let hidden = "BEGIN; SET LOCAL session_replication_role = replica; \
                INSERT INTO acessos DEFAULT VALUES; COMMIT";
            database
                .superuser()
                .batch_execute(hidden)
                .expect("a hidden row");
            let mended = settings(&database).argument("recount").run();
            assert_eq!(mended.code, Some(0), "{mended:?}");
            let counted = count(settings(&database));
            assert_eq!(counted.code, Some(0), "after a recount: {counted:?}");
        }
        drop(end);
    });
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}\n{}", visitas.output());
    is_right(&visitas, &database);
}

/// Two transactions begin before a count and a recount and end during it: one commits, one rolls
/// back.
#[test]
fn transactions_open_across_a_recount_are_counted_once() {
    let database = Cluster::shared().database();
    let visitas = settings(&database).start();
    visitas.visit();
    let open = |row: &str| {
        let mut sql = database.sql();
        sql.batch_execute(&format!(
            "SET lock_timeout = '5s'; BEGIN; INSERT INTO acessos (momento) VALUES {row}"
        ))
        .expect("rows in a transaction");
        sql
    };
    let (mut kept, mut undone) = (
        open("(now()), (now())"),
        open("(now() - interval '2 hours')"),
    );
    let counted = count(settings(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
    let recount = settings(&database).argument("recount").launch();
    let mut recount = recount;
    // It may wait for them or not, and ends soon after them.
    kept.batch_execute("INSERT INTO acessos DEFAULT VALUES; COMMIT")
        .expect("COMMIT");
    undone.batch_execute("ROLLBACK").expect("ROLLBACK");
    let ended = recount.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(database.rows(), 4);
    is_right(&visitas, &database);
}

#[test]
fn the_embedded_store_is_counted_and_corrected_too() {
    let folder = Folder::new("store");
    let over = || Settings::new().set("DATA_DIR", folder.path().join("store").display());
    let visitas = over().start();
    (0..7).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    visitas.stop();
    let counted = count(over());
    assert_eq!(counted.code, Some(0), "{counted:?}");
    let mended = over().argument("recount").run();
    assert_eq!(mended.code, Some(0), "{mended:?}");
    assert_eq!(over().start().stats().total, 7);
}

#[test]
fn a_recount_without_tables_or_without_a_connection_fails() {
    let database = Cluster::shared().database();
    for settings in [
        settings(&database),
        Settings::new()
            .set("DB_HOST", "127.0.0.1")
            .set("DB_PORT", 1),
    ] {
        let ended = settings.argument("recount").run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
    let tables: i64 = database
        .superuser()
        .query_one(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
            &[],
        )
        .expect("tables")
        .get(0);
    assert_eq!(tables, 0, "it made something");
}

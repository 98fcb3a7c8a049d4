//! Writes that no trigger sees: `visitas check --count` finds the difference, `visitas recount`
//! sets it right under load.

use std::io::{Read, Write};
use std::process::Command;

use ::postgres::Client as Sql;

use crate::support::audit::count;
use crate::support::postgres::{PASSWORD, USER};
use crate::support::programs;
use crate::support::scratch::Folder;
use crate::support::{
    Cluster, Database, LIMIT, Load, Settings, Stop, Visitas, machine, skipped, tools, within,
};

fn settings(database: &Database<'_>) -> Settings {
    Settings::new().postgres(database)
}

/// Total and history are what the rows say, and a count says so.
#[track_caller]
fn is_right(visitas: &Visitas, database: &Database<'_>) {
    let rows = database.rows();
    assert_eq!(visitas.stats().total, rows, "{}", visitas.output());
    crate::history::is_exact(visitas, database);
    let counted = count(settings(database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// A count finds that the total is not the rows, names both, and changes nothing.
#[track_caller]
fn is_found(visitas: &Visitas, database: &Database<'_>) {
    let (total, rows) = (visitas.stats().total, database.rows());
    assert_ne!(
        total, rows,
        "somebody saw the rows that nobody was to see: this proves nothing"
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

/// A recount under load sets total and history right, says what it changed, and costs no visit its
/// answer.
#[track_caller]
fn is_mended(visitas: &Visitas, database: &Database<'_>) {
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
    // A second one has nothing to do.
    let again = settings(database).argument("recount").run();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_ne!(again.stdout, mended.stdout, "it says what it changed");
    is_right(visitas, database);
}

/// Rows that no trigger sees, in a database that was all right before.
#[track_caller]
fn found_and_mended(table: &str, hidden: impl FnOnce(&mut Sql)) {
    let _machine = machine();
    let database = Cluster::shared().database();
    database.sql().batch_execute(table).expect(table);
    let visitas = settings(&database).start();
    (0..3).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    is_right(&visitas, &database);
    hidden(&mut database.superuser());
    is_found(&visitas, &database);
    is_mended(&visitas, &database);
}

const PARTITIONED: &str = "CREATE TABLE acessos (id bigserial, momento timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id)) \
    PARTITION BY RANGE (id); \
    CREATE TABLE acessos_1 PARTITION OF acessos FOR VALUES FROM (1) TO (1000000); \
    CREATE TABLE acessos_2 PARTITION OF acessos FOR VALUES FROM (1000000) TO (2000000)";

/// Rows of the last three days, whose ids are a million and more.
fn old_rows(table: &str) -> String {
    format!(
        "INSERT INTO {table} (id, momento) SELECT 1000000 + n, now() - n * interval '17 minutes' FROM generate_series(0, 250) n"
    )
}

#[test]
fn rows_written_to_a_partition() {
    found_and_mended(PARTITIONED, |sql| {
        sql.batch_execute(&old_rows("acessos_2"))
            .expect("rows in a partition");
        sql.batch_execute("DELETE FROM acessos_1 WHERE id = (SELECT min(id) FROM acessos_1)")
            .expect("a row less");
    });
}

#[test]
fn a_partition_that_is_attached_with_its_rows() {
    found_and_mended(PARTITIONED, |sql| {
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
    found_and_mended("SELECT 1", |sql| {
        sql.batch_execute("CREATE TABLE older () INHERITS (acessos)")
            .expect("an inheriting table");
        sql.batch_execute(&old_rows("older")).expect("rows in it");
    });
}

#[test]
fn triggers_switched_off_and_on() {
    found_and_mended("SELECT 1", |sql| {
        sql.batch_execute("ALTER TABLE acessos DISABLE TRIGGER USER")
            .expect("triggers off");
        sql.batch_execute(
            "INSERT INTO acessos (momento) SELECT now() - n * interval '7 minutes' FROM generate_series(1, 90) n",
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
    found_and_mended("SELECT 1", |sql| {
        // As the worker of a subscription writes (PostgreSQL manual, 19.11).
        sql.batch_execute("SET session_replication_role = replica")
            .expect("a replica's session");
        sql.batch_execute(
            "INSERT INTO acessos (momento) SELECT now() - n * interval '1 hour' FROM generate_series(0, 99) n",
        )
        .expect("rows");
        sql.batch_execute(
            "TRUNCATE acessos; INSERT INTO acessos SELECT FROM generate_series(1, 1000)",
        )
        .expect("rows");
    });
}

/// The total is right, the history is not.
#[test]
fn moments_changed_while_triggers_were_off() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = settings(&database).start();
    (0..5).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    database
        .sql()
        .batch_execute(
            "ALTER TABLE acessos DISABLE TRIGGER USER; UPDATE acessos SET momento = momento - interval '3 days'; \
             ALTER TABLE acessos ENABLE TRIGGER USER",
        )
        .expect("other moments");
    let found = count(settings(&database));
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains("history"), "{found:?}");
    is_mended(&visitas, &database);
}

#[test]
fn an_unlogged_table_after_a_crash() {
    let _machine = machine();
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
    is_mended(&visitas, &database);
}

/// Other writers go on too, whose transactions began before the recount and end after it.
#[test]
fn a_recount_beside_other_writers() {
    let _machine = machine();
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
            "INSERT INTO acessos (momento) SELECT now() - n * interval '1 minute' FROM generate_series(1, 100000) n",
        )
        .expect("rows from before");
    let visitas = settings(&database).start();
    let load = Load::start(visitas.port(), 4);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let end = crate::other_writers::Ends(&stop);
        for statement in [
            "INSERT INTO acessos (momento) SELECT now() - interval '9 minutes' FROM generate_series(1, 3)",
            "DELETE FROM acessos WHERE id IN (SELECT id FROM acessos ORDER BY id LIMIT 5 FOR UPDATE SKIP LOCKED)",
            "UPDATE acessos SET momento = momento - interval '2 hours' \
                WHERE id IN (SELECT id FROM acessos ORDER BY id DESC LIMIT 5 FOR UPDATE SKIP LOCKED)",
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
            let hidden = "BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO acessos DEFAULT VALUES; COMMIT";
            database
                .superuser()
                .batch_execute(hidden)
                .expect("a row that nobody sees");
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

/// Two transactions that began before a count and before a recount end after it: one is undone, the
/// other is not.
#[test]
fn transactions_open_across_a_recount_are_counted_once() {
    let _machine = machine();
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
    // Whether it waits for them or not, it is over soon after them.
    kept.batch_execute("INSERT INTO acessos DEFAULT VALUES; COMMIT")
        .expect("COMMIT");
    undone.batch_execute("ROLLBACK").expect("ROLLBACK");
    let ended = recount.wait_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(database.rows(), 4);
    is_right(&visitas, &database);
}

/// PostgreSQL's own programs, as the superuser: this one's standard output.
#[track_caller]
fn program(database: &Database<'_>, name: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(programs::program(name));
    command.args([
        "--host",
        "127.0.0.1",
        "--port",
        &database.port().to_string(),
        "--username",
        USER,
    ]);
    command
        .args(["--dbname", &database.name])
        .args(arguments)
        .env("PGPASSWORD", PASSWORD)
        .env("LC_ALL", "C");
    let folder = Folder::new("dump");
    let file = folder.path().join("input");
    std::fs::File::create(&file)
        .and_then(|mut file| file.write_all(input))
        .expect("the input");
    command.stdin(std::fs::File::open(&file).expect("the input"));
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Whether PostgreSQL's programs for dumps are there, of the server's version or a later one.
#[track_caller]
fn may_dump(database: &Database<'_>) -> bool {
    let server: i32 = database
        .superuser()
        .query_one(
            "SELECT current_setting('server_version_num')::int / 10000",
            &[],
        )
        .expect("a version")
        .get(0);
    let Some(program) = programs::find_program("pg_dump") else {
        skipped("dumps", "pg_dump is not installed");
        return false;
    };
    let version = tools::output(Command::new(program).arg("--version"));
    let major = version
        .split_whitespace()
        .find_map(|word| word.split('.').next()?.parse::<i32>().ok());
    let fits = major.is_some_and(|major| major >= server);
    if !fits {
        skipped(
            "dumps",
            &format!("{} is older than the server, {server}", version.trim()),
        );
    }
    fits
}

/// Rows, foreign changes and visits, so that every table of visitas has something in it.
fn filled(database: &Database<'_>) {
    let visitas = settings(database).start();
    (0..10).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    let mut sql = database.sql();
    for statement in [
        "INSERT INTO acessos (momento) SELECT now() - n * interval '11 minutes' FROM generate_series(1, 300) n",
        "DELETE FROM acessos WHERE id % 7 = 0",
        "UPDATE acessos SET momento = momento - interval '1 day' WHERE id % 5 = 0",
    ] {
        sql.batch_execute(statement).expect(statement);
    }
    visitas.visit();
    is_right(&visitas, database);
}

/// The schema first, with its triggers, then the data of every table: the rows are counted as they
/// come, and the numbers come too. The first start finds another table, and counts.
#[test]
fn a_dump_restored_in_two_steps() {
    let _machine = machine();
    let (from, to) = (Cluster::shared().database(), Cluster::shared().database());
    if !may_dump(&from) {
        return;
    }
    filled(&from);
    let dump = program(&from, "pg_dump", &["--format=custom"], b"");
    program(&to, "pg_restore", &["--schema-only"], &dump);
    program(&to, "pg_restore", &["--data-only"], &dump);
    let visitas = settings(&to).start();
    assert_eq!(to.rows(), from.rows());
    is_right(&visitas, &to);
}

/// In one step, into another cluster, whose transactions are numbered from the beginning again:
/// nothing is to be mended.
#[test]
fn a_dump_restored_in_one_step_is_right() {
    let _machine = machine();
    let (from, cluster) = (Cluster::shared().database(), Cluster::start());
    let to = cluster.default_database();
    if !may_dump(&from) {
        return;
    }
    // Many transactions later than a fresh cluster is.
    from.superuser()
        .batch_execute(
            "CREATE PROCEDURE later() LANGUAGE plpgsql AS $$ BEGIN \
             FOR n IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$; SET synchronous_commit = off",
        )
        .expect("a procedure");
    let mut later = from.superuser();
    later
        .batch_execute("SET synchronous_commit = off")
        .expect("a setting");
    later
        .batch_execute("CALL later()")
        .expect("many transactions");
    filled(&from);
    let dump = program(&from, "pg_dump", &["--format=custom"], b"");
    program(
        &to,
        "pg_restore",
        &["--single-transaction", "--no-owner"],
        &dump,
    );
    let visitas = settings(&to).start();
    assert_eq!(to.rows(), from.rows());
    is_right(&visitas, &to);
    // And what comes now is counted as ever.
    let mut sql = to.sql();
    for statement in [
        "INSERT INTO acessos SELECT FROM generate_series(1, 5)",
        "DELETE FROM acessos WHERE id % 11 = 0",
    ] {
        for _ in 0..3 {
            sql.batch_execute(statement).expect(statement);
            visitas.visit();
            is_right(&visitas, &to);
        }
    }
}

/// The same without PostgreSQL's programs: the data of every table copied into a database where
/// visitas has made its own.
#[test]
fn the_data_of_every_table_copied_to_another_database() {
    let _machine = machine();
    let (from, to) = (Cluster::shared().database(), Cluster::shared().database());
    filled(&from);
    let settings_of_other = settings(&to).start().stop();
    let (mut there, mut here) = (from.superuser(), to.superuser());
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1";
    for row in there.query(tables, &[]).expect("the tables") {
        let table: &str = row.get(0);
        let mut data = Vec::new();
        there
            .copy_out(&format!("COPY {table} TO STDOUT"))
            .expect(table)
            .read_to_end(&mut data)
            .expect(table);
        let mut into = here
            .copy_in(&format!("COPY {table} FROM STDIN"))
            .expect(table);
        into.write_all(&data).expect(table);
        into.finish().expect(table);
    }
    let visitas = settings_of_other.start();
    assert_eq!(to.rows(), from.rows());
    is_right(&visitas, &to);
}

#[test]
fn the_embedded_store_is_counted_and_set_right_too() {
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
fn a_recount_of_what_is_not_there_or_not_reached_fails() {
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

//! Restored dumps and copied data: the total is right, or the next start corrects it.

use std::io::{Read, Write};
use std::process::Command;

use super::{is_right, settings};
use crate::support::postgres::{PASSWORD, USER};
use crate::support::programs;
use crate::support::scratch::Folder;
use crate::support::{Cluster, Database, skipped, tools};

/// Runs a program of PostgreSQL as the role of visitas; gives its output.
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

/// Whether pg_dump is installed, and not older than the server.
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

/// Fills every table of visitas: rows, foreign changes and visits.
fn filled(database: &Database<'_>) {
    let visitas = settings(database).start();
    (0..10).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    let mut sql = database.sql();
    for statement in [
        "INSERT INTO acessos (momento) SELECT now() - n * interval '11 minutes' \
         FROM generate_series(1, 300) n",
        "DELETE FROM acessos WHERE id % 7 = 0",
        "UPDATE acessos SET momento = momento - interval '1 day' WHERE id % 5 = 0",
    ] {
        sql.batch_execute(statement).expect(statement);
    }
    visitas.visit();
    is_right(&visitas, database);
}

/// First the schema with its triggers, then the data: the rows are counted while they are restored,
/// and the old totals are restored too. The next start notices and counts.
#[test]
fn a_dump_restored_in_two_steps() {
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

/// In one step into another cluster with low transaction numbers: nothing needs to be corrected.
#[test]
fn a_dump_restored_in_one_step_is_right() {
    let (from, cluster) = (Cluster::shared().database(), Cluster::start());
    let to = cluster.default_database();
    if !may_dump(&from) {
        return;
    }
    // Higher transaction numbers than a fresh cluster has.
    from.superuser()
        .batch_execute(
            "CREATE PROCEDURE later() LANGUAGE plpgsql AS $$ BEGIN \
             FOR n IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$; \
             SET synchronous_commit = off",
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
    // New writes are counted as before.
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

/// Without PostgreSQL's programs: the data of every table is copied into a database where visitas
/// has created its tables.
#[test]
fn the_data_of_every_table_copied_to_another_database() {
    let (from, to) = (Cluster::shared().database(), Cluster::shared().database());
    filled(&from);
    let settings_of_other = settings(&to).start().stop();
    let (mut there, mut here) = (from.superuser(), to.superuser());
    // Both may have folded equally often; the copied base must be the newer one.
    here.batch_execute("UPDATE visitas_base SET number = number - 1000")
        .expect("an older base");
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
        AND relkind = 'r' ORDER BY 1";
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
        // As pg_restore does: a table whose rows are there already is left as it is.
        let copied = into.finish();
        assert!(copied.is_ok() || table != "acessos", "{copied:?}");
    }
    let visitas = settings_of_other.start();
    assert_eq!(to.rows(), from.rows());
    is_right(&visitas, &to);
}

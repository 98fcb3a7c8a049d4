//! Other writers of the table, and visitas as their guest: no deadlock, no serialization failure,
//! no long lock, no right lent.

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

/// A table of the shape of `acessos` that visitas knows nothing of.
const PLAIN: &str = "CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    momento timestamptz NOT NULL DEFAULT now())";

/// Rows a second that three writers of single rows get into that table, in transactions of ten.
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

/// Beside visits, and against the same table without visitas beside the same visits.
#[test]
fn writers_of_single_rows_keep_half_of_their_rate() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    database.sql().batch_execute(PLAIN).expect("a plain table");
    let load = Load::start(visitas.port(), 8);
    let mut seen = Vec::new();
    // What else the machine does may hit either half of a round.
    for _ in 0..4 {
        let (plain, counted) = (rate(&database, "plain"), rate(&database, "acessos"));
        seen.push(format!("{counted:.0} of {plain:.0} rows/s"));
        if counted >= plain / 2.0 {
            break;
        }
        assert!(seen.len() < 4, "{seen:?}\n{}", visitas.output());
    }
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}");
    total_is_rows(&visitas, &database);
}

/// One kind of writer: what each of its transactions begins with, and what it does, given some rows
/// of its own.
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

/// Tells the threads of a scope to stop, also when a test fails while they run.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Transactions of that kind until told to stop, counted in `done`; gives the errors.
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

/// Every writer has rows of its own, so nothing but visitas could make one wait for another.
#[test]
fn no_writer_of_any_kind_fails_because_of_visits() {
    let _machine = machine();
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
    crate::history::is_exact(&visitas, &database);
}

/// An operator or a function of `public` that is a better match than PostgreSQL's own is found by
/// whoever has `public` in its path. Whoever calls it runs it with the caller's rights: here it
/// notes who that was.
fn traps(stranger: &str) -> String {
    let types = [
        "bigint",
        "integer",
        "smallint",
        "numeric",
        "float8",
        "text",
        "name",
        "timestamptz",
        "oid",
        "regclass",
        "xid8",
        "interval",
    ];
    let spy = "INSERT INTO public.spied VALUES (current_user, '{name}')";
    let mut sql = format!(
        "CREATE TABLE public.spied (who name, what text); GRANT ALL ON public.spied TO PUBLIC; \
         SET SESSION AUTHORIZATION {stranger}; "
    );
    let mut function = |name: &str, arguments: &str, gives: &str, body: &str| {
        let spy = spy.replace("{name}", &format!("{name}({arguments})").replace('\'', ""));
        sql += &format!(
            "CREATE FUNCTION public.\"{name}\"({arguments}) RETURNS {gives} LANGUAGE plpgsql AS \
             $$ BEGIN {spy}; RETURN {body}; EXCEPTION WHEN OTHERS THEN RETURN {body}; END $$; "
        );
    };
    for left in types {
        for name in [
            "count",
            "sum",
            "max",
            "min",
            "coalesce",
            "floor",
            "to_regclass",
            "abs",
            "date_part",
            "isfinite",
        ] {
            function(name, left, "bigint", "7");
        }
        for right in types {
            function("arithmetic", &format!("{left}, {right}"), "bigint", "1");
            function("compare", &format!("{left}, {right}"), "boolean", "true");
        }
    }
    for left in types {
        for right in types {
            for (operators, function) in [
                (["+", "-", "*", "/", "%"], "arithmetic"),
                (["=", "<>", "<", "<=", ">"], "compare"),
            ] {
                for operator in operators {
                    sql += &format!(
                        "CREATE OPERATOR public.{operator} (FUNCTION = public.{function}, \
                         LEFTARG = {left}, RIGHTARG = {right}); "
                    );
                }
            }
        }
    }
    // Temporary tables come before all others in a path that does not say otherwise.
    for table in [
        "visitas_changes",
        "visitas_base",
        "visitas_log",
        "visitas_history",
        "visitas_writers",
        "acessos",
    ] {
        sql += &format!(
            "CREATE TEMPORARY TABLE {table} (id bigint, total bigint, momento timestamptz); "
        );
    }
    sql
}

/// The role that works puts a schema of its own before PostgreSQL's, for its own sessions, with
/// operators of exactly the types that are used most. What runs with the owner's rights must not
/// meet them.
fn nothing_is_lent_to_the_worker(
    database: &Database<'_>,
    worker: &str,
    settings: impl Fn() -> Settings,
) {
    let spy = "INSERT INTO spies.spied VALUES (current_user, 'FUNCTION')";
    let mut sql = format!(
        "CREATE SCHEMA spies AUTHORIZATION {worker}; GRANT USAGE ON SCHEMA spies TO PUBLIC; \
         SET SESSION AUTHORIZATION {worker}; \
         CREATE TABLE spies.spied (who name, what text); GRANT ALL ON spies.spied TO PUBLIC; "
    );
    let types = [
        "bigint",
        "integer",
        "oid",
        "text",
        "xid8",
        "timestamptz",
        "float8",
        "boolean",
        "name",
    ];
    let operators: [(&str, &str, &[&str]); 8] = [
        (
            "+",
            "l OPERATOR(pg_catalog.+) r",
            &["bigint", "integer", "float8"],
        ),
        (
            "-",
            "l OPERATOR(pg_catalog.-) r",
            &["bigint", "integer", "float8"],
        ),
        ("%", "l OPERATOR(pg_catalog.%) r", &["bigint", "integer"]),
        ("=", "l OPERATOR(pg_catalog.=) r", &types),
        ("<>", "l OPERATOR(pg_catalog.<>) r", &types),
        ("<", "l OPERATOR(pg_catalog.<) r", &types),
        (">", "l OPERATOR(pg_catalog.>) r", &types),
        (">=", "l OPERATOR(pg_catalog.>=) r", &types),
    ];
    for (operator, body, types) in operators {
        for of in types {
            let gives = if ["+", "-", "%"].contains(&operator) {
                *of
            } else {
                "boolean"
            };
            let spy = spy.replace("FUNCTION", &format!("{operator} ({of}, {of})"));
            sql += &format!(
                "CREATE FUNCTION spies.\"{operator}\"(l {of}, r {of}) RETURNS {gives} LANGUAGE plpgsql AS \
                 $$ BEGIN {spy}; RETURN {body}; EXCEPTION WHEN OTHERS THEN RETURN {body}; END $$; \
                 CREATE OPERATOR spies.{operator} (FUNCTION = spies.\"{operator}\", LEFTARG = {of}, RIGHTARG = {of}); "
            );
        }
    }
    sql += &format!(
        "CREATE FUNCTION spies.\"||\"(l text, r text) RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN {spy}; RETURN l OPERATOR(pg_catalog.||) r; EXCEPTION WHEN OTHERS THEN RETURN l; END $$; \
         CREATE OPERATOR spies.|| (FUNCTION = spies.\"||\", LEFTARG = text, RIGHTARG = text); \
         ALTER ROLE {worker} SET search_path = spies, pg_catalog, site"
    );
    database
        .superuser()
        .batch_execute(&sql)
        .expect("operators of the worker's");
    let visitas = settings().start();
    (0..3).for_each(|_| assert_eq!(visitas.try_visit().status, 200, "{}", visitas.output()));
    for path in ["/history?by=minute", "/history?by=day", "/stats"] {
        assert_eq!(
            visitas.get(path).status,
            200,
            "{path}: {}",
            visitas.output()
        );
    }
    visitas.stop();
    let spied = format!(
        "SELECT DISTINCT who::text || ': ' || what FROM spies.spied WHERE who <> '{worker}' ORDER BY 1"
    );
    let rows = database
        .superuser()
        .query(&spied, &[])
        .expect("what was spied");
    let spied: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(
        spied.is_empty(),
        "run with the rights of the owner: {spied:#?}"
    );
}

/// PostgreSQL 14 as it ships lets everybody create things in `public`; later ones do where somebody
/// granted it.
#[test]
fn nobody_gets_rights_through_a_trigger_or_a_visit() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    visitas.visit();
    let stranger = format!("stranger_{}", database.name);
    let mut sql = database.superuser();
    let role = format!(
        "CREATE ROLE {stranger} LOGIN PASSWORD 'p'; GRANT INSERT, DELETE, UPDATE, SELECT ON acessos TO {stranger}; \
         GRANT CREATE ON SCHEMA public TO {stranger}; \
         GRANT TEMPORARY ON DATABASE {} TO {stranger}",
        database.name
    );
    sql.batch_execute(&role).expect("a role with few rights");
    sql.batch_execute(&traps(&stranger)).expect("traps");
    for statement in [
        "INSERT INTO public.acessos (momento) SELECT now() FROM generate_series(1, 9)",
        "UPDATE public.acessos SET momento = pg_catalog.now() OPERATOR(pg_catalog.-) interval '90 minutes'",
        "DELETE FROM public.acessos WHERE id OPERATOR(pg_catalog.=) 3::bigint",
        "RESET SESSION AUTHORIZATION",
        "TRUNCATE public.acessos",
        "INSERT INTO public.acessos (momento) SELECT now() FROM generate_series(1, 4)",
    ] {
        sql.batch_execute(statement).expect(statement);
    }
    let nothing_was_spied = || {
        let spied = format!(
            "SELECT DISTINCT who::text || ': ' || what FROM public.spied WHERE who <> '{stranger}' ORDER BY 1"
        );
        let rows = database
            .superuser()
            .query(&spied, &[])
            .expect("what was spied");
        let spied: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(
            spied.is_empty(),
            "run with the rights of others: {spied:#?}"
        );
    };
    nothing_was_spied();
    assert_eq!(total_is_rows(&visitas, &database), 4);
    // The sessions of visitas have `public` in their path: those of old, and those of a start among
    // the traps.
    assert_eq!(visitas.visit().total, 5);
    let visitas = visitas.stop().start();
    assert_eq!(visitas.visit().total, 6);
    for path in [
        "/history?by=minute",
        "/history?by=hour",
        "/history?by=day",
        "/stats",
        "/readyz?verbose",
        "/",
    ] {
        assert_eq!(
            visitas.get(path).status,
            200,
            "{path}: {}",
            visitas.output()
        );
    }
    for arguments in [&["check"][..], &["check", "--count"], &["recount"]] {
        let settings = Settings::new().postgres(&database);
        let ended = arguments
            .iter()
            .fold(settings, |settings, argument| settings.argument(argument))
            .run();
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    }
    nothing_was_spied();
    assert_eq!(total_is_rows(&visitas, &database), 7);
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
            "CREATE OR REPLACE FUNCTION dropper() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN {rule}; END $$; \
             CREATE OR REPLACE TRIGGER dropper BEFORE INSERT ON acessos FOR EACH ROW EXECUTE FUNCTION dropper()"
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
    database
        .sql()
        .batch_execute("DROP TRIGGER dropper ON acessos")
        .expect("no such trigger any more");
    within(LIMIT, "visits again", || visitas.try_visit().status == 200);
    total_is_rows(&visitas, &database);
}

#[test]
fn what_happens_to_an_archive_is_not_counted() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    (1..=10).for_each(|visit| assert_eq!(visitas.visit().total, visit));
    let settings = visitas.stop();
    let mut sql = database.sql();
    sql.batch_execute("ALTER TABLE acessos RENAME TO archive")
        .expect("an archive");
    // A table of the same shape: with no trigger of its own, and an identity of its own.
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
        crate::history::is_exact(&visitas, &database);
    }
    visitas.visit();
    let counted = count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// Renamed while visits come, in one transaction with the table that takes its place: whatever
/// visitas makes of it before the next start, no 200 is without a row in one of the two, and after
/// that start the total is right.
#[test]
fn a_table_that_is_replaced_under_visits_loses_none() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::start(visitas.port(), 8);
    within(LIMIT, "visits", || visitas.stats().total > 50);
    database
        .sql()
        .batch_execute(
            "BEGIN; ALTER TABLE acessos RENAME TO archive; CREATE TABLE acessos (LIKE archive INCLUDING ALL); COMMIT",
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

/// A transaction that has written to the table keeps its lock for seconds. Adoption wants a lock
/// that waits for it, and every writer that comes later would wait behind adoption.
#[test]
fn adoption_does_not_queue_others_behind_its_lock() {
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    sql.batch_execute(
        "CREATE TABLE acessos (id serial PRIMARY KEY, note text); \
         INSERT INTO acessos (note) SELECT 'row ' || n FROM generate_series(1, 100000) n",
    )
    .expect("a big table");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = Ends(&stop);
        let mut holder = database.sql();
        holder
            .batch_execute("BEGIN; INSERT INTO acessos (note) VALUES ('held')")
            .expect("a transaction that stays open");
        let writer = scope.spawn(|| {
            let mut sql = database.sql();
            let (mut rows, mut longest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                sql.batch_execute("INSERT INTO acessos (note) VALUES ('other')")
                    .expect("a row of another's");
                (rows, longest) = (rows + 1, longest.max(began.elapsed()));
                thread::sleep(Duration::from_millis(2));
            }
            (rows, longest)
        });
        let mut visitas = Settings::new()
            .postgres(&database)
            .set("CONNECT_ATTEMPTS", 0)
            .launch();
        let began = Instant::now();
        let says = |line: &str| line.contains("waiting for") && line.contains("acessos");
        let said = visitas.stderr().find(LIMIT, says);
        within(LIMIT, "time", || {
            began.elapsed() > Duration::from_millis(3500)
        });
        assert!(
            said.is_some(),
            "it does not say what it waits for: {}",
            visitas.output()
        );
        assert!(
            visitas.stdout().all().is_empty(),
            "ready without its lock: {}",
            visitas.output()
        );
        let before = database.number("SELECT count(*) FROM acessos");
        holder
            .batch_execute("COMMIT")
            .expect("the end of the transaction");
        visitas.wait_ready();
        drop(end);
        let (rows, longest) = writer.join().expect("the other writer");
        // Each try is shorter than a second; the rest is for a busy machine.
        assert!(
            longest < Duration::from_millis(1600),
            "a row took {longest:?}\n{}",
            visitas.output()
        );
        assert!(rows > 50, "{rows} rows of the other");
        let lines = visitas.stderr().all();
        assert!(lines.len() < 20, "{lines:#?}");
        let total = visitas.visit().total;
        assert!(total > u64::try_from(before).expect("a count"));
        total_is_rows(&visitas, &database);
    });
}

#[test]
fn a_truncate_is_counted_or_clearly_refused() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let load = Load::start(visitas.port(), 8);
    let mut sql = database.sql();
    for _ in 0..5 {
        within(LIMIT, "visits", || visitas.stats().total > 20);
        sql.batch_execute("TRUNCATE acessos").expect("a TRUNCATE");
        sql.batch_execute(
            "BEGIN; TRUNCATE acessos; INSERT INTO acessos DEFAULT VALUES; SAVEPOINT s; TRUNCATE acessos; \
            ROLLBACK TO s; COMMIT",
        )
        .expect("a TRUNCATE among others");
    }
    // A snapshot from before the lock does not see what was committed since, so nobody could know
    // what to subtract.
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
    crate::history::is_exact(&visitas, &database);
    sql.batch_execute("TRUNCATE acessos").expect("a TRUNCATE");
    assert_eq!(total_is_rows(&visitas, &database), 0);
    crate::history::is_exact(&visitas, &database);
}

/// One role owns the schema, another does the work with the rights that docs/operations.md names
/// and no other.
#[test]
fn the_role_that_works_needs_no_right_on_a_table() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let (worker, stranger) = (
        format!("worker_{}", database.name),
        format!("passer_{}", database.name),
    );
    let mut sql = database.superuser();
    sql.batch_execute(&format!(
        "CREATE SCHEMA site AUTHORIZATION user_app; ALTER DATABASE {} SET search_path = site; \
         CREATE ROLE {worker} LOGIN PASSWORD 'p'; CREATE ROLE {stranger} LOGIN PASSWORD 'p'; \
         GRANT USAGE ON SCHEMA site TO {worker}, {stranger}",
        database.name
    ))
    .expect("roles and a schema");
    Settings::new().postgres(&database).start().stop();
    let mut sql = database.superuser();
    let grants = format!(
        "SELECT coalesce(string_agg(format('GRANT EXECUTE ON FUNCTION %s TO {worker}', oid::regprocedure), '; '), '') \
         FROM pg_proc WHERE pronamespace = 'site'::regnamespace AND proname LIKE 'visitas\\_%'"
    );
    let grants: String = sql.query_one(&grants, &[]).expect("functions").get(0);
    assert!(
        grants.contains("visitas_total"),
        "in the schema of acessos: {grants:?}"
    );
    sql.batch_execute(&grants).expect("GRANTs");
    let url = database
        .url()
        .replace("user_app:app_password", &format!("{worker}:p"));
    let settings = || Settings::new().set("DATABASE_URL", &url);
    let checked = settings().argument("check").run();
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let visitas = settings().start();
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, visit);
    }
    let mut foreign = database.sql();
    foreign
        .batch_execute(
            "INSERT INTO site.acessos (momento) SELECT now() - interval '3 minutes' FROM generate_series(1, 4)",
        )
        .expect("rows of another's");
    assert_eq!(total_is_rows(&visitas, &database), 9);
    for by in ["minute", "hour", "day"] {
        assert_eq!(crate::history::sum(&visitas, by), 9);
    }
    assert_eq!(visitas.get("/readyz").status, 200);
    // Also after it connects anew, and what others appended is folded with its rights.
    within(LIMIT, "a session to end", || {
        let ended = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{worker}'"
        );
        database.number(&ended) > 0
    });
    assert_eq!(visitas.visit().total, 10);
    for _ in 0..50 {
        foreign
            .batch_execute("INSERT INTO site.acessos DEFAULT VALUES")
            .expect("a row of another's");
    }
    within_value(LIMIT, "the changes to be folded", || {
        visitas.visit();
        match database.number("SELECT count(*) FROM site.visitas_changes") {
            0..10 => Ok(()),
            left => Err(left),
        }
    });
    let counted = count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
    // It has no right on any table, and nobody else may call what runs with the owner's rights.
    let rights = format!(
        "SELECT coalesce(string_agg(c.relname || ' ' || r.name, ', '), '') FROM pg_class c, \
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r(name) \
         WHERE c.relnamespace = 'site'::regnamespace AND c.relkind IN ('r', 'p') \
           AND has_table_privilege('{worker}', c.oid, r.name)"
    );
    let rights: String = sql.query_one(&rights, &[]).expect("rights").get(0);
    assert_eq!(rights, "");
    let open = format!(
        "SELECT coalesce(string_agg(oid::regprocedure::text, ', '), '') FROM pg_proc \
         WHERE pronamespace = 'site'::regnamespace AND prosecdef AND prorettype <> 'trigger'::regtype \
           AND has_function_privilege('{stranger}', oid, 'EXECUTE')"
    );
    let open: String = sql.query_one(&open, &[]).expect("functions").get(0);
    assert_eq!(open, "", "anybody may run these with the owner's rights");
    visitas.stop();
    nothing_is_lent_to_the_worker(&database, &worker, settings);
}

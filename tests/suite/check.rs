//! `visitas check`: what it finds, what it advises, its exit code. It changes nothing.

use crate::support::scratch::Folder;
use crate::support::server::Ended;
use crate::support::{Cluster, Redis, Settings};

fn check(settings: Settings) -> Ended {
    let ended = settings.argument("check").run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// The line with this word, and the advice below it.
#[track_caller]
fn line<'a>(ended: &'a Ended, word: &str) -> (&'a str, Option<&'a str>) {
    let mut lines = ended.stdout.lines();
    let line = lines
        .find(|line| line.contains(word))
        .unwrap_or_else(|| panic!("no {word:?} in {ended:?}"));
    (
        line,
        lines
            .next()
            .and_then(|next| next.trim_start().strip_prefix("-> ")),
    )
}

#[test]
fn working_stores_are_ok_and_left_unchanged() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let before = check(Settings::new().postgres(&database).redis(&redis));
    assert_eq!(
        (before.code, before.stderr.as_str()),
        (Some(0), ""),
        "{before:?}"
    );
    assert!(
        before.stdout.ends_with("visits can be served"),
        "{before:?}"
    );
    assert!(line(&before, "table acessos").0.contains("not there yet"));
    let tables =
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'acessos%' OR relname LIKE 'visitas%'";
    assert_eq!(
        database
            .superuser()
            .query_one(tables, &[])
            .expect("tables")
            .get::<_, i64>(0),
        0,
        "it made something"
    );
    assert_eq!(redis.counter(), None);
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    for _ in 0..3 {
        visitas.visit();
    }
    let after = check(Settings::new().postgres(&database).redis(&redis));
    assert_eq!(after.code, Some(0));
    assert!(line(&after, "the total").0.contains("3 rows"), "{after:?}");
    assert!(
        line(&after, "contador_cache").0.contains("is 3"),
        "{after:?}"
    );
    assert_eq!(visitas.stats().total, 3);
}

#[test]
fn a_failure_comes_with_advice_and_without_a_password() {
    let database = Cluster::shared().database();
    let wrong = |from: &str, to: &str| {
        Settings::new().set("DATABASE_URL", database.url().replace(from, to))
    };
    for (settings, what, todo) in [
        (wrong("app_password", "s3cret"), "28P01", "DB_PASSWORD"),
        (wrong("//user_app", "//nobody"), "28P01", "create that role"),
        (
            wrong(&format!("/{}", database.name), "/nowhere"),
            "3D000",
            "DB_NAME",
        ),
        (
            Settings::new()
                .set("DB_HOST", "127.0.0.1")
                .set("DB_PORT", 1),
            "refused",
            "DB_HOST",
        ),
        (
            Settings::new()
                .set("REDIS_HOST", "127.0.0.1")
                .set("REDIS_PORT", 1),
            "refused",
            "REDIS_HOST",
        ),
    ] {
        let ended = check(settings);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let (line, next) = line(&ended, what);
        assert!(
            line.starts_with("FAIL") && next.is_some_and(|next| next.contains(todo)),
            "{ended:?}"
        );
        assert!(
            !ended.stdout.contains("s3cret") && ended.stdout.contains("1 thing to do"),
            "{ended:?}"
        );
    }
}

#[test]
fn missing_rights_are_found() {
    let database = Cluster::shared().database();
    database
        .superuser()
        .batch_execute("CREATE TABLE acessos (id serial PRIMARY KEY)")
        .expect("a foreign table");
    let ended = check(Settings::new().postgres(&database));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (line, next) = line(&ended, "a visit");
    assert!(
        line.contains("42501") && next.is_some_and(|next| next.contains("GRANT")),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("visits cannot be served"),
        "{ended:?}"
    );
}

/// Checks and starts: `check` must say that visits can be served exactly when a start serves them.
#[track_caller]
fn agrees(settings: impl Fn() -> Settings, case: &str) -> Ended {
    let ended = check(settings());
    let says = ended.stdout.ends_with("visits can be served\n")
        || ended.stdout.ends_with("visits can be served");
    assert_eq!(ended.code, Some(i32::from(!says)), "{case}: {ended:?}");
    let mut visitas = settings().set("CONNECT_ATTEMPTS", 1).launch();
    let is_ready = crate::embedded::is_ready(&mut visitas);
    let serves = is_ready && {
        visitas.wait_ready();
        visitas.try_visit().status == 200
    };
    assert_eq!(
        says,
        serves,
        "{case}: {ended:?}\nand a start: {}",
        visitas.output()
    );
    ended
}

/// A problem: whether it exists before the first start, the SQL that makes it, and a word of its
/// line.
const PROBLEMS: &[(bool, &str, &str)] = &[
    (
        false,
        "ALTER TABLE acessos DISABLE TRIGGER visitas_insert",
        "visitas_insert",
    ),
    (false, "ALTER TABLE acessos SET UNLOGGED", "UNLOGGED"),
    (false, "CREATE TABLE more () INHERITS (acessos)", "inherit"),
    (
        true,
        "CREATE TABLE acessos (id bigserial, momento timestamptz DEFAULT now()) \
         PARTITION BY RANGE (id); \
         CREATE TABLE a_part PARTITION OF acessos FOR VALUES FROM (1) TO (100000)",
        "partition",
    ),
    (
        true,
        "CREATE TABLE acessos (id bigserial, momento timestamptz DEFAULT now()) \
         PARTITION BY RANGE (id); \
         CREATE TABLE a_part PARTITION OF acessos FOR VALUES FROM (100000) TO (200000)",
        "partition",
    ),
    (
        true,
        "CREATE TABLE acessos (id serial PRIMARY KEY); SELECT setval('acessos_id_seq', 2147483647)",
        "2200H",
    ),
    (
        true,
        "CREATE TABLE acessos (id smallserial PRIMARY KEY); SELECT setval('acessos_id_seq', 32767)",
        "2200H",
    ),
    (
        true,
        "CREATE TABLE acessos (id serial PRIMARY KEY); SELECT setval('acessos_id_seq', 2147480000)",
        "left",
    ),
    // A column that is narrower than its sequence.
    (
        true,
        "CREATE SEQUENCE n START 32768; CREATE TABLE acessos (id smallint DEFAULT nextval('n')); \
         ALTER SEQUENCE n OWNED BY acessos.id",
        "out of range",
    ),
    (
        true,
        "CREATE TABLE acessos (id serial PRIMARY KEY, visitor text NOT NULL)",
        "visitor",
    ),
    (true, "CREATE VIEW acessos AS SELECT 1 AS id", "acessos"),
    (
        false,
        "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER drop_it BEFORE INSERT ON acessos FOR EACH ROW EXECUTE FUNCTION drop_it()",
        "a visit",
    ),
    (
        false,
        "CREATE TABLE other (id bigint); CREATE RULE elsewhere AS ON INSERT TO acessos \
         DO INSTEAD INSERT INTO other VALUES (NEW.id)",
        "a visit",
    ),
    // It fails in the commit.
    (
        false,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'; \
         CREATE CONSTRAINT TRIGGER no AFTER INSERT ON acessos DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION no()",
        "a visit",
    ),
    (
        false,
        "ALTER TABLE acessos ADD CHECK (id < 2) NOT VALID",
        "a visit",
    ),
    (
        false,
        "ALTER TABLE acessos DROP COLUMN momento CASCADE",
        "a visit",
    ),
    (
        false,
        "ALTER TABLE visitas_log DROP COLUMN minute_visits CASCADE",
        "a visit",
    ),
    (false, "DROP TABLE visitas_base CASCADE", "a visit"),
    (false, "DROP TABLE acessos", "acessos"),
];

#[test]
fn check_and_start_agree() {
    for (before, sql, word) in PROBLEMS {
        let database = Cluster::shared().database();
        let settings = || Settings::new().postgres(&database);
        if !before {
            let visitas = settings().start();
            (0..3).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
            visitas.stop();
        }
        database.sql().batch_execute(sql).expect(sql);
        let ended = agrees(settings, sql);
        // Its line is a warning or a failure with advice, unless the next start repairs it.
        let (line, advice) = line(&ended, word);
        let is_repaired = line.starts_with("ok");
        assert!(
            !is_repaired || ended.code == Some(0),
            "{sql}: nothing is said about {word:?}: {ended:?}"
        );
        assert!(
            is_repaired || advice.is_some_and(|advice| !advice.is_empty()),
            "{sql}: no advice: {ended:?}"
        );
    }
}

#[test]
fn a_database_that_takes_no_rows_is_found() {
    let read_only =
        |name: &str| format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    let revoked = |_: &str| {
        "ALTER TABLE acessos OWNER TO postgres; GRANT SELECT, INSERT ON acessos TO user_app; \
         REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM user_app; \
         ALTER FUNCTION visitas_total() OWNER TO postgres"
            .to_owned()
    };
    for (wrong, word) in [
        (read_only as fn(&str) -> String, "read-only"),
        (revoked, "42501"),
    ] {
        let database = Cluster::shared().database();
        let settings = || Settings::new().postgres(&database);
        settings().start().stop();
        let sql = wrong(&database.name);
        database.superuser().batch_execute(&sql).expect("a wrong");
        let ended = agrees(settings, &sql);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(line(&ended, word).0.starts_with("FAIL"), "{ended:?}");
    }
}

/// Uncounted rows are found at once in a small table, and by a count in any table.
#[test]
fn a_wrong_total_is_found() {
    let database = Cluster::shared().database();
    let settings = || Settings::new().postgres(&database);
    let visitas = settings().start();
    (0..3).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    let hidden = "SET session_replication_role = replica; \
                  INSERT INTO acessos SELECT FROM generate_series(1, 8)";
    database
        .superuser()
        .batch_execute(hidden)
        .expect("hidden rows");
    let ended = check(settings());
    let (line, todo) = line(&ended, "the total");
    assert!(
        !line.starts_with("ok") && line.contains("11") && line.contains('3'),
        "{ended:?}"
    );
    assert!(
        todo.is_some_and(|todo| todo.contains("recount")),
        "{ended:?}"
    );
    assert_eq!(crate::support::audit::count(settings()).code, Some(1));
}

#[test]
fn a_counter_that_is_no_number_is_found() {
    for command in [
        &["SET", "contador_cache", "many"][..],
        &["LPUSH", "contador_cache", "1"],
    ] {
        let redis = Redis::start();
        redis.command(command);
        let ended = check(Settings::new().redis(&redis));
        let (line, todo) = line(&ended, "its counter");
        assert!(line.starts_with("FAIL") && todo.is_some(), "{ended:?}");
    }
}

#[test]
fn the_embedded_store_is_checked_too() {
    let folder = Folder::new("store");
    let over = || Settings::new().set("DATA_DIR", folder.path().join("store").display());
    let new = check(over());
    assert_eq!(new.code, Some(0), "{new:?}");
    assert!(!folder.path().join("store").exists(), "it made something");
    let visitas = over().start();
    visitas.visit();
    let used = check(over());
    assert_eq!(used.code, Some(0), "{used:?}");
    assert!(
        line(&used, "in use by a running visitas")
            .0
            .starts_with("warn")
    );
    visitas.stop();
    assert!(line(&check(over()), "its file").0.contains("1 rows"));
    let file = folder.file("no-folder", "");
    let wrong = check(Settings::new().set("DATA_DIR", file.join("x").display()));
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
}

#[test]
fn a_wrong_variable_is_exit_code_2() {
    let ended = check(Settings::new().set("PORT", "many"));
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(2), ""),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("PORT"));
}

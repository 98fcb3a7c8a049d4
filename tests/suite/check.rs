//! `visitas check`: what it finds, what it says to do, its exit code; and that it changes nothing.

use crate::support::run::Folder;
use crate::support::server::Ended;
use crate::support::{Cluster, Redis, Settings};

fn check(settings: Settings) -> Ended {
    let ended = settings.argument("check").run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// The line about that, and what to do below it.
#[track_caller]
fn line<'a>(ended: &'a Ended, word: &str) -> (&'a str, Option<&'a str>) {
    let mut lines = ended.stdout.lines();
    let line = lines.find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word:?} in {ended:?}"));
    (line, lines.next().and_then(|next| next.trim_start().strip_prefix("-> ")))
}

#[test]
fn stores_that_work_are_ok_and_left_as_they_are() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let before = check(Settings::new().postgres(&database).redis(&redis));
    assert_eq!((before.code, before.stderr.as_str()), (Some(0), ""), "{before:?}");
    assert!(before.stdout.ends_with("visits can be served"), "{before:?}");
    assert!(line(&before, "table acessos").0.contains("not there yet"));
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'acessos%' OR relname LIKE 'visitas%'";
    assert_eq!(database.superuser().query_one(tables, &[]).expect("tables").get::<_, i64>(0), 0, "it made something");
    assert_eq!(redis.counter(), None);
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    for _ in 0..3 {
        visitas.visit();
    }
    let after = check(Settings::new().postgres(&database).redis(&redis));
    assert_eq!(after.code, Some(0));
    assert!(line(&after, "the total").0.contains("3 rows"), "{after:?}");
    assert!(line(&after, "contador_cache").0.contains("is 3"), "{after:?}");
    assert_eq!(visitas.stats().total, 3);
}

#[test]
fn what_fails_is_said_with_what_to_do_and_without_a_password() {
    let database = Cluster::shared().database();
    let wrong = |from: &str, to: &str| Settings::new().set("DATABASE_URL", database.url().replace(from, to));
    for (settings, what, todo) in [
        (wrong("app_password", "s3cret"), "28P01", "DB_PASSWORD"),
        (wrong(&format!("/{}", database.name), "/nowhere"), "3D000", "DB_NAME"),
        (Settings::new().set("DB_HOST", "127.0.0.1").set("DB_PORT", 1), "refused", "DB_HOST"),
        (Settings::new().set("REDIS_HOST", "127.0.0.1").set("REDIS_PORT", 1), "refused", "REDIS_HOST"),
    ] {
        let ended = check(settings);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let (line, next) = line(&ended, what);
        assert!(line.starts_with("FAIL") && next.is_some_and(|next| next.contains(todo)), "{ended:?}");
        assert!(!ended.stdout.contains("s3cret") && ended.stdout.contains("1 thing to do"), "{ended:?}");
    }
}

#[test]
fn rights_that_are_missing_are_found() {
    let database = Cluster::shared().database();
    database.superuser().batch_execute("CREATE TABLE acessos (id serial PRIMARY KEY)").expect("a table of another's");
    let ended = check(Settings::new().postgres(&database));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (line, next) = line(&ended, "a visit");
    assert!(line.contains("42501") && next.is_some_and(|next| next.contains("GRANT")), "{ended:?}");
    assert!(ended.stdout.contains("visits cannot be served"), "{ended:?}");
}

#[test]
fn the_embedded_store_is_looked_at_too() {
    let folder = Folder::new("store");
    let over = || Settings::new().set("DATA_DIR", folder.path().join("store").display());
    let new = check(over());
    assert_eq!(new.code, Some(0), "{new:?}");
    assert!(!folder.path().join("store").exists(), "it made something");
    let visitas = over().start();
    visitas.visit();
    let used = check(over());
    assert_eq!(used.code, Some(0), "{used:?}");
    assert!(line(&used, "in use by a running visitas").0.starts_with("warn"));
    visitas.stop();
    assert!(line(&check(over()), "its file").0.contains("1 rows"));
    let file = folder.file("no-folder", "");
    let wrong = check(Settings::new().set("DATA_DIR", file.join("x").display()));
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
}

#[test]
fn a_wrong_variable_is_exit_code_2() {
    let ended = check(Settings::new().set("PORT", "many"));
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.stderr.contains("PORT"));
}

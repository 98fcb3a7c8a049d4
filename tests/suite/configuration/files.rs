//! Passwords and addresses in files: `DB_PASSWORD_FILE` and its kind.

use super::is_refused;
use crate::support::scratch::Folder;
use crate::support::{Cluster, Redis, Settings};

#[test]
fn passwords_and_addresses_are_read_from_files() {
    let (database, redis) = (
        Cluster::shared().database(),
        Redis::with_password("redis-s3cret"),
    );
    let folder = Folder::new("secrets");
    for ending in ["", "\n", "\r\n"] {
        let file = |name: &str, value: &str| {
            folder
                .file(name, &format!("{value}{ending}"))
                .display()
                .to_string()
        };
        let parts = Settings::new()
            .set("DB_HOST", "127.0.0.1")
            .set("DB_PORT", database.port())
            .set("DB_NAME", &database.name)
            .set("DB_PASSWORD_FILE", file("db-password", "app_password"))
            .set("REDIS_HOST", "127.0.0.1")
            .set("REDIS_PORT", redis.port())
            .set(
                "REDIS_PASSWORD_FILE",
                file("redis-password", "redis-s3cret"),
            );
        let addresses = Settings::new()
            .set("DATABASE_URL_FILE", file("database-url", &database.url()))
            .set("REDIS_URL_FILE", file("redis-url", &redis.url()));
        for settings in [parts, addresses] {
            let visitas = settings.start();
            let rows = database.rows();
            let counts = visitas.visit();
            assert_eq!((counts.total, counts.cache), (rows + 1, redis.counter()));
            assert_eq!(database.rows(), rows + 1);
        }
    }
}

#[test]
fn a_variable_and_its_file_at_once_are_refused() {
    let folder = Folder::new("secrets");
    let file = folder.file("s", "from-a-file");
    for variable in ["DB_PASSWORD", "DATABASE_URL", "REDIS_PASSWORD", "REDIS_URL"] {
        let twin = format!("{variable}_FILE");
        let settings = Settings::new()
            .set("DB_HOST", "127.0.0.1")
            .set("REDIS_HOST", "127.0.0.1");
        let ended = settings
            .set(variable, "s3cret")
            .set(&twin, file.display())
            .run();
        is_refused(&ended, variable);
        assert!(ended.stderr.contains(&twin), "{ended:?}");
        assert!(
            !ended.stderr.contains("s3cret") && !ended.stderr.contains("from-a-file"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_name() {
    for variable in [
        "DB_PASSWORD_FILE",
        "DATABASE_URL_FILE",
        "REDIS_PASSWORD_FILE",
        "REDIS_URL_FILE",
    ] {
        let settings = Settings::new()
            .set("DB_HOST", "127.0.0.1")
            .set("REDIS_HOST", "127.0.0.1");
        let ended = settings.set(variable, "/no/such/file").run();
        is_refused(&ended, variable);
        assert!(ended.stderr.contains("/no/such/file"), "{ended:?}");
    }
}

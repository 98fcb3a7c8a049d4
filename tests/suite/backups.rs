//! Backups as docs/operations.md describes them: its own commands, then visitas on the restored
//! data.

use std::process::Command;

use crate::support::markdown::code_blocks;
use crate::support::ports::free_port;
use crate::support::postgres::{PASSWORD, USER};
use crate::support::process::send_signal;
use crate::support::shell::Shell;
use crate::support::{Cluster, LIMIT, Redis, Settings, Stop, scratch, within};

const DOCUMENT: &str = include_str!("../../docs/operations.md");
const DATABASE: &str = "desafio3_db";

fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}")
}

/// visitas continues there: the total is the number of rows, and a visit adds one.
#[track_caller]
fn goes_on(url: &str, rows: u64) {
    // A restored server takes no writes before its recovery ends.
    let settings = Settings::new()
        .set("DATABASE_URL", url)
        .set("CONNECT_ATTEMPTS", 30)
        .set("CONNECT_INTERVAL", "200ms");
    let visitas = settings.start();
    assert_eq!(visitas.stats().total, rows, "{}", visitas.output());
    assert_eq!(visitas.visit().total, rows + 1, "{}", visitas.output());
    let counted = Settings::new()
        .set("DATABASE_URL", url)
        .argument("check")
        .argument("--count")
        .run();
    assert_eq!(counted.code, Some(0), "{counted:?}");
    visitas.stop();
}

/// Makes visits and foreign rows, some of other days, some deleted.
fn fill(cluster: &Cluster) -> u64 {
    let database = cluster.default_database();
    let visitas = Settings::new().postgres(&database).start();
    for _ in 0..5 {
        visitas.visit();
    }
    let others = "INSERT INTO acessos (momento) \
            SELECT now() - make_interval(days => d) FROM generate_series(1, 9) d; \
        DELETE FROM acessos WHERE id IN (SELECT id FROM acessos ORDER BY momento LIMIT 2)";
    database
        .sql()
        .batch_execute(others)
        .expect("rows of others");
    visitas.visit();
    visitas.kill();
    database.rows()
}

#[test]
fn a_dump_is_restored_as_a_whole_or_in_two_parts() {
    let (from, to) = (Cluster::stopped(), Cluster::start());
    // Its transaction numbers mean nothing on another server.
    from.advance_transactions();
    from.restart();
    let rows = fill(&from);
    let (dump, restore) = (Shell::on(&from), Shell::on(&to));
    let blocks = code_blocks(DOCUMENT, "A dump");
    let [take, whole, apart] = &blocks[..] else {
        panic!("three blocks: {blocks:#?}")
    };
    dump.run(take);
    let file = dump.folder().join("visitas.dump");
    restore.run(&format!(
        "cp {} visitas.dump\n{whole}\n{apart}",
        file.display()
    ));
    for database in ["restored", "apart"] {
        goes_on(&url(to.port(), database), rows);
        // A later start finds nothing to do.
        goes_on(&url(to.port(), database), rows + 1);
    }
}

#[test]
fn the_database_is_restored_to_a_moment() {
    let cluster = Cluster::stopped();
    cluster.configure("unix_socket_directories = ''");
    cluster.restart();
    let blocks = code_blocks(DOCUMENT, "Any moment: a base backup and the log");
    let [once, nightly, restore] = &blocks[..] else {
        panic!("three blocks: {blocks:#?}")
    };
    let shell = Shell::on(&cluster);
    let (backups, restored) = (
        shell.folder().join("backups"),
        shell.folder().join("restored"),
    );
    let shell = shell
        .set("BACKUPS", backups.display())
        .set("RESTORED", restored.display());
    // The server is a child of this process, which restarts it itself.
    let (once, restarts): (Vec<&str>, Vec<&str>) = once
        .lines()
        .partition(|line| !line.starts_with("pg_ctl restart"));
    assert_eq!(restarts.len(), 1, "{once:?}");
    shell.run(&once.join("\n"));
    cluster.stop(Stop::Fast);
    cluster.restart();
    let database = cluster.default_database();
    let visitas = Settings::new().postgres(&database).start();
    visitas.visit();
    shell.run(nightly);
    for _ in 0..3 {
        visitas.visit();
    }
    let mut sql = database.superuser();
    let moment: String = sql
        .query_one("SELECT clock_timestamp()::text", &[])
        .expect("the time")
        .get(0);
    for _ in 0..4 {
        visitas.visit();
    }
    sql.batch_execute("SELECT pg_switch_wal()")
        .expect("the log's last piece");
    visitas.visit();
    within(LIMIT, "the log to be archived", || {
        let archived = "SELECT last_archived_wal IS NOT NULL AND (SELECT count(*) \
            FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') = 0 FROM pg_stat_archiver";
        sql.query_one(archived, &[]).expect("the archiver").get(0)
    });
    let port = free_port();
    let base = std::fs::read_dir(&backups)
        .expect("the backups")
        .flatten()
        .map(|entry| entry.path());
    let base = base
        .into_iter()
        .find(|path| !path.ends_with("log"))
        .expect("a base backup");
    let shell = shell
        .set("MOMENT", moment)
        .set("BASE", base.display())
        .set("PGPORT", port);
    let server = Restored { data: restored };
    shell.run(restore);
    scratch::watch(server.pid(), "QUIT");
    goes_on(&url(port, DATABASE), 4);
}

/// A server that the document's commands have started.
struct Restored {
    data: std::path::PathBuf,
}

impl Restored {
    fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        file.lines()
            .next()
            .and_then(|line| line.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let pid = self.pid();
        if pid > 1 {
            send_signal(pid, "QUIT");
            scratch::forget(pid);
        }
    }
}

#[test]
fn the_counter_is_set_to_the_total() {
    let (cluster, redis) = (Cluster::shared(), Redis::start());
    let database = cluster.database();
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    for _ in 0..3 {
        visitas.visit();
    }
    database
        .sql()
        .batch_execute("DELETE FROM acessos WHERE id = (SELECT min(id) FROM acessos)")
        .expect("a row less");
    let blocks = code_blocks(DOCUMENT, "After an asynchronous failover");
    let [set] = &blocks[..] else {
        panic!("one block: {blocks:#?}")
    };
    let script = format!("set -eu\n{set}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .env("DATABASE_URL", database.url())
        .env("REDIS_URL", redis.url());
    crate::support::tools::output(&mut command);
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (3, Some(3)));
}

//! PostgreSQL ended, killed, restarted, read-only, in recovery, full, closed to new sessions, or
//! without its table.

use std::time::Duration;

use super::account::{Account, Allow, Rows, TABLE, prepare};
use super::play::{Form, Play, any, last};
use crate::support::postgres::{PASSWORD, USER};
use crate::support::{Cluster, Database, Settings, SmallDisk, Stop, within};

/// How long a fault lasts that does not end of itself: longer than it takes to be noticed, and than
/// the first tries.
const A_WHILE: Duration = Duration::from_millis(400);

/// Runs a scenario over that database; every process connects to it directly.
pub fn over(
    form: &Form,
    database: &Database<'_>,
    least: usize,
    fault: impl FnMut(&mut Play),
) -> Account {
    prepare(database);
    let mut play = Play::start(form, || Settings::new().postgres(database));
    play.run(least, fault);
    play.end(&Rows::Database(database), None)
}

/// An administrator ends every session of visitas, at any moment.
pub fn sessions_ended(form: &Form) -> Result<Account, String> {
    let database = Cluster::shared().database();
    Ok(over(form, &database, 1, |_| {
        last(Duration::from_millis(any(50)));
        database.terminate_sessions();
    }))
}

/// The whole server is killed as by a crash of the machine; it recovers from its log.
pub fn server_killed(form: &Form) -> Result<Account, String> {
    stopped(form, Stop::KillAll)
}

/// The server is stopped in good order, and started again.
pub fn server_restarted(form: &Form) -> Result<Account, String> {
    stopped(form, Stop::Fast)
}

fn stopped(form: &Form, how: Stop) -> Result<Account, String> {
    let cluster = Cluster::start();
    Ok(over(form, &cluster.default_database(), 1, |_| {
        last(Duration::from_millis(any(300)));
        cluster.stop(how);
        last(Duration::from_millis(any(500)));
        cluster.restart();
    }))
}

/// Every transaction becomes read-only, in the sessions that are there: as on a server that is
/// being replaced.
pub fn server_read_only(form: &Form) -> Result<Account, String> {
    let cluster = Cluster::start();
    let read_only = |state: &str| {
        cluster.configure(&format!("default_transaction_read_only = {state}"));
        cluster.reload();
    };
    Ok(over(form, &cluster.default_database(), 1, |_| {
        read_only("on");
        last(A_WHILE);
        read_only("off");
    }))
}

/// The server comes back as a standby in recovery, which takes sessions and no writes, and is
/// promoted later.
pub fn server_in_recovery(form: &Form) -> Result<Account, String> {
    let cluster = Cluster::start();
    Ok(over(form, &cluster.default_database(), 1, |_| {
        cluster.stop(Stop::Fast);
        cluster.demote();
        cluster.restart();
        last(A_WHILE);
        cluster.promote();
    }))
}

/// The server's disk fills up until it takes no row, or no log, which ends all of it; then there is
/// room again.
pub fn server_disk_full(form: &Form) -> Result<Account, String> {
    let cluster = Cluster::on(SmallDisk::new(256)?);
    // The sooner what is left is used up, the better.
    let form = Form {
        pause: Duration::ZERO,
        ..*form
    };
    Ok(over(&form, &cluster.default_database(), 1, |play| {
        // Sometimes with a little room, which small batches may fit into and large ones not.
        cluster.disk().fill(any(4) * 64);
        within(Duration::from_secs(20), "a refusal", || {
            play.web[0].get("/stats").status == 503
        });
        last(Duration::from_millis(any(2000)));
        cluster.disk().free();
        // It may have ended for good.
        cluster.wait_ready();
    }))
}

/// The server takes no more sessions (SQLSTATE 53300) after it has ended those of visitas.
pub fn too_many_connections(form: &Form) -> Result<Account, String> {
    let database = Cluster::shared().database();
    let limit = |most: i32| {
        let statement = format!("ALTER DATABASE {} CONNECTION LIMIT {most}", database.name);
        database
            .superuser()
            .batch_execute(&statement)
            .expect("a limit for the database");
    };
    Ok(over(form, &database, 1, |_| {
        limit(0);
        database.terminate_sessions();
        last(A_WHILE);
        limit(-1);
    }))
}

/// The role's password is changed and its sessions are ended; later it is what it was.
pub fn password_changed(form: &Form) -> Result<Account, String> {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let set = |password: &str| {
        let statement = format!("ALTER ROLE {USER} PASSWORD '{password}'");
        database
            .superuser()
            .batch_execute(&statement)
            .expect("a password for the role");
    };
    Ok(over(form, &database, 1, |_| {
        set("another");
        database.terminate_sessions();
        last(A_WHILE);
        set(PASSWORD);
    }))
}

/// The table is renamed and comes back, or dropped and made anew: by turns.
pub fn table_dropped(form: &Form) -> Result<Account, String> {
    let database = Cluster::shared().database();
    let account = over(form, &database, 2, |play| {
        let mut sql = database.sql();
        if play.faults % 2 == 0 {
            sql.batch_execute("ALTER TABLE acessos RENAME TO mislaid")
                .expect("another name");
            last(A_WHILE);
            sql.batch_execute("ALTER TABLE mislaid RENAME TO acessos")
                .expect("its own name");
        } else {
            // No row can come between the count and the end of the table.
            sql.batch_execute("BEGIN; LOCK TABLE acessos")
                .expect("the table alone");
            let rows: i64 = sql
                .query_one("SELECT count(*) FROM acessos", &[])
                .expect("the rows")
                .get(0);
            sql.batch_execute("DROP TABLE acessos; COMMIT")
                .expect("no table");
            play.rows_gone += u64::try_from(rows).expect("a count");
            last(A_WHILE);
            sql.batch_execute(TABLE).expect("a table of visits");
        }
    });
    Ok(account.allow(Allow {
        schema_is_made_again: true,
        ..Allow::default()
    }))
}

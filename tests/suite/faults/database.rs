//! PostgreSQL is stopped, killed, read-only, in recovery, full, closed to new sessions, or without
//! its table.

use std::time::Duration;

use super::report::{Allow, Report, Store};
use super::run::{Parameters, Run, any, last};
use crate::support::audit::TABLE;
use crate::support::postgres::{PASSWORD, USER};
use crate::support::{Cluster, Database, LIMIT, Settings, SmallDisk, Stop, within};

/// The time of a fault that does not end by itself: long enough to be noticed, and for the first
/// retries.
const A_WHILE: Duration = Duration::from_millis(400);

/// Runs a scenario over this database, without a proxy.
pub fn over(
    parameters: &Parameters,
    database: &Database<'_>,
    least: usize,
    fault: impl FnMut(&mut Run),
) -> Report {
    database.prepare();
    let mut run = Run::start(parameters, || Settings::new().postgres(database));
    run.repeat(least, fault);
    run.end(&Store::Database(database), None)
}

/// An administrator terminates every session of visitas, at random moments.
pub fn sessions_ended(parameters: &Parameters) -> Result<Report, String> {
    let database = Cluster::shared().database();
    Ok(over(parameters, &database, 1, |_| {
        last(Duration::from_millis(any(50)));
        database.terminate_sessions();
    }))
}

/// The whole server is killed, as by a crash of the machine, and recovers from its WAL.
pub fn server_killed(parameters: &Parameters) -> Result<Report, String> {
    stopped(parameters, Stop::KillAll)
}

/// The server is shut down and started again.
pub fn server_restarted(parameters: &Parameters) -> Result<Report, String> {
    stopped(parameters, Stop::Fast)
}

fn stopped(parameters: &Parameters, how: Stop) -> Result<Report, String> {
    let cluster = Cluster::start();
    Ok(over(parameters, &cluster.default_database(), 1, |_| {
        last(Duration::from_millis(any(300)));
        cluster.stop(how);
        last(Duration::from_millis(any(500)));
        cluster.restart();
    }))
}

/// Every transaction becomes read-only, in existing sessions too: as on a server that is being
/// replaced.
pub fn server_read_only(parameters: &Parameters) -> Result<Report, String> {
    let cluster = Cluster::start();
    let read_only = |state: &str| {
        cluster.configure(&format!("default_transaction_read_only = {state}"));
        cluster.reload();
    };
    Ok(over(parameters, &cluster.default_database(), 1, |_| {
        read_only("on");
        last(A_WHILE);
        read_only("off");
    }))
}

/// The server comes back as a standby: it takes sessions and no writes until it is promoted.
pub fn server_in_recovery(parameters: &Parameters) -> Result<Report, String> {
    let cluster = Cluster::start();
    Ok(over(parameters, &cluster.default_database(), 1, |_| {
        cluster.stop(Stop::Fast);
        cluster.demote();
        cluster.restart();
        last(A_WHILE);
        cluster.promote();
    }))
}

/// The server's disk fills up until it takes no row, or no WAL, which stops the server. Then there
/// is room again.
pub fn server_disk_full(parameters: &Parameters) -> Result<Report, String> {
    let cluster = Cluster::on(SmallDisk::new(256)?);
    // Without a pause, so that the last room is used up soon.
    let parameters = Parameters {
        pause: Duration::ZERO,
        ..*parameters
    };
    Ok(over(&parameters, &cluster.default_database(), 1, |run| {
        // Sometimes there is room for small batches and none for large ones.
        cluster.disk().fill(any(4) * 64);
        within(LIMIT, "a refusal", || {
            run.web[0].get("/stats").status == 503
        });
        last(Duration::from_millis(any(2000)));
        cluster.disk().free();
        // It may have stopped.
        cluster.wait_ready();
    }))
}

/// The server terminates the sessions of visitas and takes no new ones (SQLSTATE 53300).
pub fn too_many_connections(parameters: &Parameters) -> Result<Report, String> {
    let database = Cluster::shared().database();
    let limit = |most: i32| {
        let statement = format!("ALTER DATABASE {} CONNECTION LIMIT {most}", database.name);
        database
            .superuser()
            .batch_execute(&statement)
            .expect("a limit for the database");
    };
    Ok(over(parameters, &database, 1, |_| {
        limit(0);
        database.terminate_sessions();
        last(A_WHILE);
        limit(-1);
    }))
}

/// The role's password changes and its sessions are terminated; later the old password is back.
pub fn password_changed(parameters: &Parameters) -> Result<Report, String> {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let set = |password: &str| {
        let statement = format!("ALTER ROLE {USER} PASSWORD '{password}'");
        database
            .superuser()
            .batch_execute(&statement)
            .expect("a password for the role");
    };
    Ok(over(parameters, &database, 1, |_| {
        set("another");
        database.terminate_sessions();
        last(A_WHILE);
        set(PASSWORD);
    }))
}

/// The table is renamed and comes back, or it is dropped and created again, in turn.
pub fn table_dropped(parameters: &Parameters) -> Result<Report, String> {
    let database = Cluster::shared().database();
    let report = over(parameters, &database, 2, |run| {
        let mut sql = database.sql();
        if run.faults % 2 == 0 {
            sql.batch_execute("ALTER TABLE acessos RENAME TO mislaid")
                .expect("the table renamed");
            last(A_WHILE);
            sql.batch_execute("ALTER TABLE mislaid RENAME TO acessos")
                .expect("the table renamed back");
        } else {
            // No row can come between the count and the DROP.
            sql.batch_execute("BEGIN; LOCK TABLE acessos")
                .expect("a lock on the table");
            let rows: i64 = sql
                .query_one("SELECT count(*) FROM acessos", &[])
                .expect("the rows")
                .get(0);
            sql.batch_execute("DROP TABLE acessos; COMMIT")
                .expect("the table dropped");
            run.rows_gone += u64::try_from(rows).expect("a count");
            last(A_WHILE);
            sql.batch_execute(TABLE).expect("a table of visits");
        }
    });
    Ok(report.allow(Allow {
        schema_is_made_again: true,
        ..Allow::default()
    }))
}

//! What a person who sets a database up should know of it. Nothing is written.

use std::time::{Duration, Instant};

use tokio_postgres::{Config, Error, Row};

use super::PostgresChronicle;
use crate::visits::survey::Finding;

/// Time for all of it, once connected.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One row of all that is looked at, whatever of it is there.
const SURVEY: &str = "SELECT current_setting('server_version'), current_user::text, current_database()::text, \
     pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on', \
     current_setting('synchronous_commit'), current_setting('fsync') = 'on', \
     (SELECT setting::bigint - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') \
        FROM pg_settings WHERE name = 'max_connections'), \
     to_regclass('acessos') IS NOT NULL, \
     coalesce(has_table_privilege(to_regclass('acessos'), 'INSERT'), false), \
     coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
     to_regclass('acessos_rollup') IS NOT NULL";
/// The rows, the slots in use, and the rows that are not in the history yet.
const NUMBERS: &str = "SELECT (SELECT sum(total)::bigint FROM acessos_total), \
     (SELECT count(*) FROM acessos_total WHERE owner IS NOT NULL), \
     (SELECT sum(until - after)::bigint FROM acessos_rollup)";

/// Looks at the database. A process needs `connections` of it.
#[cold]
pub fn survey(config: &Config, connections: i64) -> Vec<Finding> {
    let mut client = PostgresChronicle::new(config, TIMEOUT);
    let began = Instant::now();
    let looked = client.rows(TIMEOUT, SURVEY, &[]);
    let took = began.elapsed();
    let mut findings = Vec::new();
    let rows = match looked {
        Ok(rows) => rows,
        Err(reason) => {
            let todo = advice(&reason);
            return vec![Finding::fails("PostgreSQL", reason, todo)];
        }
    };
    let kept = rows.first().map_or(Ok(false), |row| report(row, took, connections, &mut findings));
    let failed = match kept {
        Ok(false) => None,
        Ok(true) => match client.rows(TIMEOUT, NUMBERS, &[]) {
            Ok(rows) => {
                rows.first().and_then(|row| report_numbers(row, &mut findings).err()).map(|error| error.to_string())
            }
            Err(reason) => Some(reason),
        },
        Err(error) => Some(error.to_string()),
    };
    findings.extend(failed.map(|reason| Finding::fails("PostgreSQL", reason, "see what it says, and its own log")));
    findings
}

/// What to do when nobody answers, or not as hoped: by the code in the reason (PostgreSQL manual, appendix A).
fn advice(reason: &str) -> &'static str {
    let says = |code: &str| reason.contains(code);
    if says("28P01") || says("28000") {
        "correct DB_USER and DB_PASSWORD (or DATABASE_URL), or what pg_hba.conf allows"
    } else if says("3D000") {
        "create the database, or correct DB_NAME or DATABASE_URL"
    } else if says("53300") {
        "raise max_connections, or close what does not need to be open"
    } else {
        "start PostgreSQL there, or correct DB_HOST and DB_PORT (or DATABASE_URL)"
    }
}

/// Reports what [`SURVEY`] gave; says whether visitas keeps its total there.
#[cold]
fn report(row: &Row, took: Duration, connections: i64, findings: &mut Vec<Finding>) -> Result<bool, Error> {
    let (version, user, name): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    findings.push(Finding::fine("PostgreSQL", format!("{version}, {user} in {name}, answered in {took:.1?}")));
    if row.try_get(3)? {
        findings.push(Finding::fails("its role", "read-only", "name the primary, or let this role write"));
    }
    let (commit, fsync): (&str, bool) = (row.try_get(4)?, row.try_get(5)?);
    findings.push(if fsync {
        Finding::fine("its commits", format!("on disk (synchronous_commit {commit}, fsync on)"))
    } else {
        Finding::mind("its commits", "fsync is off", "set fsync = on: a crash of the machine can lose committed rows")
    });
    let free: i64 = row.try_get(6)?;
    findings.push(if free >= connections {
        Finding::fine("its connections", format!("{free} free, a process takes {connections}"))
    } else {
        Finding::mind("its connections", format!("{free} free, a process takes {connections}"), "raise max_connections")
    });
    let (table, insert, create): (bool, bool, bool) = (row.try_get(7)?, row.try_get(8)?, row.try_get(9)?);
    let ours: bool = row.try_get(10)?;
    findings.push(match (table, insert, create) {
        (true, true, _) => Finding::fine("table acessos", "there, and this role may write to it"),
        (true, false, _) => Finding::fails("table acessos", "there, but not for this role", "GRANT it INSERT"),
        (false, _, true) => Finding::fine("table acessos", "not there yet: the first start creates it"),
        (false, _, false) => Finding::fails(
            "table acessos",
            "not there, and this role may not create it",
            "GRANT it CREATE on the schema",
        ),
    });
    if !ours {
        findings.push(match (table, create) {
            (_, true) => Finding::fine("the total", "not kept yet: the first start counts the rows that are there"),
            (_, false) => Finding::fails("the total", "not kept yet", "GRANT this role CREATE on the schema"),
        });
    }
    Ok(ours)
}

/// Reports what [`NUMBERS`] gave.
#[cold]
fn report_numbers(row: &Row, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let (total, slots): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
    findings.push(Finding::fine("the total", format!("{} rows, {slots} lanes at it", total.unwrap_or(0))));
    let left: Option<i64> = row.try_get(2)?;
    findings.push(match left {
        Some(1..) => Finding::mind(
            "the history",
            format!("up to {} rows are not in it yet", left.unwrap_or(0)),
            "let visitas run: it adds them",
        ),
        _ => Finding::fine("the history", "complete"),
    });
    Ok(())
}

//! `visitas check` for a database. Everything it tries is rolled back.

use std::time::{Duration, Instant};

use super::address::Address;
use super::adopt;
use super::client::Row;
use super::count;
use super::endpoints::Endpoints;
use super::failure::Failure;
use super::session::Session;
use super::table;
use crate::visits::diagnose::Check;

/// Time for each statement, once connected.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A table of up to 64 MB is counted at once; a larger one by `visitas check --count` only.
const COUNTED_BYTES: i64 = 64 << 20;

/// One row about the server.
const FACTS: &str = "SELECT current_setting('server_version'), current_user::text, \
     current_database()::text, \
     current_setting('synchronous_commit'), current_setting('fsync') = 'on', \
     (SELECT setting::bigint \
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') \
        FROM pg_settings WHERE name = 'max_connections'), \
     current_setting('synchronous_standby_names')";
/// One row about the table.
const TABLE: &str = "SELECT c.relpersistence = 'u', c.relkind = 'p', \
     EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid), \
     (SELECT string_agg(tgname::text, ', ') FROM pg_trigger \
       WHERE tgrelid = c.oid AND tgenabled <> 'O' AND tgname IN \
         ('visitas_insert', 'visitas_update', 'visitas_delete', 'visitas_truncate')), \
     pg_total_relation_size(c.oid), pg_get_userbyid(c.relowner)::text, \
     EXISTS (SELECT FROM pg_publication_tables p WHERE p.tablename = 'acessos') \
         OR EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = c.oid), \
     (SELECT min(CASE WHEN a.atttypid = 'int2'::regtype::oid THEN 32767 \
                      WHEN a.atttypid = 'int4'::regtype::oid THEN 2147483647 \
                      ELSE s.max_value END - coalesce(s.last_value, 0)) \
        FROM pg_attribute a JOIN pg_sequences s ON format('%I.%I', s.schemaname, s.sequencename) \
             = pg_get_serial_sequence(c.oid::regclass::text, a.attname::text) \
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) \
     FROM pg_class c WHERE c.oid = to_regclass('acessos')::oid";

/// Checks the database, of which a process needs `connections` connections; with `names` there are
/// counters by name.
#[cold]
pub fn diagnose(address: &Address, connections: usize, names: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    let began = Instant::now();
    let checked = Session::connect(&mut Endpoints::new(address, TIMEOUT))
        .and_then(|mut session| check(&mut session, began, (connections, names), &mut checks));
    if let Err(failure) = checked {
        let reason = failure.to_string();
        let advice = advice(&failure, &reason);
        checks.push(Check::fails("PostgreSQL", reason, advice));
    }
    checks
}

/// What to do about a failed connection, by the SQLSTATE (PostgreSQL manual, appendix A).
fn advice(failure: &Failure, reason: &str) -> &'static str {
    let says = |code: &str| failure.code() == code || reason.contains(code);
    if failure.is_for_encryption() {
        "correct what it names; docs/operations.md says what providers need"
    } else if says("28P01") || says("28000") {
        "create that role, or correct DB_USER and DB_PASSWORD (or DATABASE_URL) or pg_hba.conf"
    } else if says("3D000") {
        "create the database, or correct DB_NAME or DATABASE_URL"
    } else if says("53300") {
        "raise max_connections, or close what does not need to be open"
    } else if says("42501") {
        "GRANT this role what docs/operations.md lists"
    } else if matches!(failure, Failure::ReadOnly) {
        "name the primary, or all hosts, or let this role write"
    } else {
        "start PostgreSQL there, or correct DB_HOST and DB_PORT (or DATABASE_URL)"
    }
}

#[cold]
fn check(
    session: &mut Session,
    began: Instant,
    (connections, names): (usize, bool),
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let facts = row(session, FACTS)?.ok_or(Failure::NoRow)?;
    server(&facts, began.elapsed(), connections, checks)?;
    checks.push(match (session.encryption(), session.plain_since()) {
        (Some(found), _) => Check::fine("its encryption", found),
        (None, Some(why)) => Check::warns(
            "its encryption",
            format!("none, since TLS failed: {why}"),
            "correct what it names, or set DB_SSLMODE (sslmode) to disable",
        ),
        (None, None) => Check::fine(
            "its encryption",
            "none: DB_SSLMODE (sslmode) asks for it from require on",
        ),
    });
    if session.pooled {
        checks.push(Check::fine(
            "its sessions",
            "through a pooler: no settings and no named statements are used",
        ));
    }
    let dry_run = adopt::dry_run(session, super::random_number(), names);
    let undone = session.roll_back();
    checks.push(match dry_run.and(undone) {
        Ok(()) => Check::fine("a visit", "can be committed: one was, and taken back"),
        Err(failure) => {
            let advice = match failure.code() {
                "42501" => {
                    "GRANT this role what docs/operations.md lists, or start visitas as the \
                     table's owner once"
                }
                "2200H" => "the sequence of a column is exhausted: make the column a bigint",
                "55P03" => "another transaction holds the table: try again",
                _ => "see what it says, and the server's own log",
            };
            Check::fails("a visit", failure.to_string(), advice)
        }
    });
    if let Some(facts) = row(session, TABLE)? {
        let bytes = table(&facts, checks)?;
        total(session, bytes, checks)?;
    } else {
        checks.push(Check::fine(
            "table acessos",
            "not there yet: the first start creates it",
        ));
    }
    Ok(())
}

fn row(session: &mut Session, text: &str) -> Result<Option<Row>, Failure> {
    let rows = session.within(TIMEOUT, |session| session.client.query(text, &[]));
    Ok(rows?.into_iter().next())
}

#[cold]
fn server(
    row: &Row,
    took: Duration,
    connections: usize,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let (version, user, name): (&str, &str, &str) = (row.get(0)?, row.get(1)?, row.get(2)?);
    checks.push(Check::fine(
        "PostgreSQL",
        format!("{version}, {user} in {name}, answered in {took:.1?}"),
    ));
    let (commit, fsync, standbys): (&str, bool, &str) = (row.get(3)?, row.get(4)?, row.get(6)?);
    checks.push(if !fsync {
        Check::warns(
            "its commits",
            "fsync is off",
            "set fsync = on: a crash of the machine can lose committed rows",
        )
    } else if commit == "off" {
        Check::warns(
            "its commits",
            "synchronous_commit is off",
            "set it to on: a crash of the server can lose visits that were answered",
        )
    } else if standbys.is_empty() {
        Check::fine(
            "its commits",
            format!("on disk (synchronous_commit {commit}, fsync on)"),
        )
    } else {
        Check::fine(
            "its commits",
            format!("on disk and on standbys (synchronous_commit {commit}: {standbys})"),
        )
    });
    let free: i64 = row.get(5)?;
    let found = format!("{free} free, a process takes {connections}");
    checks.push(
        if usize::try_from(free).is_ok_and(|free| free >= connections) {
            Check::fine("its connections", found)
        } else {
            Check::warns("its connections", found, "raise max_connections")
        },
    );
    Ok(())
}

/// Reports what [`TABLE`] says; returns the table's size in bytes.
#[cold]
fn table(row: &Row, checks: &mut Vec<Check>) -> Result<i64, Failure> {
    const UNSEEN: &str =
        "run visitas check --count now and then, and visitas recount where it says so";
    let bytes: i64 = row.get(4)?;
    let owner: &str = row.get(5)?;
    checks.push(Check::fine(
        "table acessos",
        format!("there, {bytes} bytes, owned by {owner}"),
    ));
    if row.get(0)? {
        let todo =
            "ALTER TABLE acessos SET LOGGED: a crash of the server empties it, and the total stays";
        checks.push(Check::warns("table acessos", "UNLOGGED", todo));
    }
    if let Some(disabled) = row.get::<Option<&str>>(3)? {
        let todo = "start visitas anew: it enables them and counts the rows";
        checks.push(Check::warns(
            "table acessos",
            format!("triggers switched off: {disabled}"),
            todo,
        ));
    }
    if row.get(1)? {
        let found =
            "partitioned: rows written to a partition by its own name are not seen by the total";
        checks.push(Check::warns("table acessos", found, UNSEEN));
    } else if row.get(2)? {
        let found = "inherited from: rows written to an inheriting table are not seen by the total";
        checks.push(Check::warns("table acessos", found, UNSEEN));
    }
    if row.get(6)? {
        let found =
            "replicated logically: rows that come in by a subscription are not seen by the total";
        checks.push(Check::warns("table acessos", found, UNSEEN));
    }
    if let Some(left @ ..1_000_000) = row.get::<Option<i64>>(7)? {
        let todo = "ALTER TABLE acessos ALTER COLUMN id TYPE bigint, and its sequence too \
                    (ALTER SEQUENCE ... AS bigint)";
        checks.push(Check::warns(
            "table acessos",
            format!("{left} numbers are left for its rows"),
            todo,
        ));
    }
    Ok(bytes)
}

/// Compares the total with the rows of a small table.
#[cold]
fn total(session: &mut Session, bytes: i64, checks: &mut Vec<Check>) -> Result<(), Failure> {
    let Some(table) = table::counted(session)? else {
        checks.push(Check::fine(
            "the total",
            "not kept yet: the first start counts the rows that are there",
        ));
        return Ok(());
    };
    if bytes > COUNTED_BYTES {
        let totals = session.within(TIMEOUT, Session::peek)?;
        let found = format!(
            "{}, not compared with the rows: visitas check --count does",
            totals.total
        );
        checks.push(Check::fine("the total", found));
        return Ok(());
    }
    let counted = count::count(session, &table, &mut |_, _| {});
    let undone = session.roll_back();
    match counted.and_then(|counted| undone.map(|()| counted)) {
        Ok(counted) => checks.push(counted.check()),
        // The work role may not read the rows.
        Err(failure) if failure.code() == "42501" => {
            checks.push(Check::fine(
                "the total",
                "not compared with the rows: this role may not read them",
            ));
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

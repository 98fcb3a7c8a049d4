//! Makes the database ready: creates what is missing, adopts an existing table, counts its rows
//! once.
//!
//! Other writers hardly wait: triggers are added under a lock that is requested in short tries, and
//! rows are counted beside writers (`count`).

use std::thread;
use std::time::{Duration, Instant};

use postgres_types::Type;

use super::count;
use super::failure::Failure;
use super::session::{STEP_TIMEOUT, Session};
use super::table::{Table, VERSION, inspect, is_ready, literal};

/// Everything that visitas needs in the database, with placeholders for what differs.
const SCHEMA: &str = include_str!("schema.sql");

/// A try to lock the table waits this long, and the statements of others behind it.
const LOCK_TIMEOUT: &str = "300ms";
/// Time between two tries.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Tries of one opening; the next opening goes on.
const LOCK_TRIES: u32 = 30;
/// Time between two log lines about the lock.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Time for one try, once it has the lock.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes sure that a batch can be committed. `opened`: this process has had the table. Then a
/// missing table is being replaced by somebody, and is not made again.
pub(super) fn prepare(session: &mut Session, opened: bool) -> Result<(), Failure> {
    let (table, state) = session.within(STEP_TIMEOUT, inspect)?;
    if table.is_none() && opened {
        return Err(Failure::Missing);
    }
    let ready = match (&table, &state) {
        (Some(table), Some(state)) => is_ready(table, state)?,
        _ => false,
    };
    if !ready {
        create_in_tries(session)?;
    }
    let (Some(table), Some(state)) = session.within(STEP_TIMEOUT, inspect)? else {
        return Err(Failure::Missing);
    };
    if state.counted != Some(table.oid) {
        log::info!("counting the rows of acessos");
        let counted = count::correct(session, &table, &mut count::log_progress())?;
        log::info!("{} rows of acessos are counted", counted.rows);
    }
    Ok(())
}

/// Creates what is missing, in short tries.
fn create_in_tries(session: &mut Session) -> Result<(), Failure> {
    let mut logged: Option<Instant> = None;
    for tries in 1.. {
        let made = session.within(CREATE_TIMEOUT, |session| {
            create(session)?;
            session.client.batch_execute("COMMIT")
        });
        let failure = match made {
            Ok(()) => break,
            Err(failure) => failure,
        };
        if session.roll_back().is_err() {
            return Err(failure);
        }
        // Another process is creating the same, or holds the table.
        let passes = matches!(
            failure.code(),
            "55P03" | "40P01" | "23505" | "42P07" | "42710" | "XX000"
        );
        if !passes || tries >= LOCK_TRIES {
            return Err(unfit(failure));
        }
        if failure.code() == "55P03" && logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            logged = Some(Instant::now());
            log::info!(
                "waiting for other transactions to release the table acessos, to add triggers to it"
            );
        }
        thread::sleep(LOCK_INTERVAL);
    }
    Ok(())
}

fn create(session: &mut Session) -> Result<(), Failure> {
    let schema = session.schema.clone();
    session.client.batch_execute(&format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
             SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_min_messages = warning; \
             CREATE TABLE IF NOT EXISTS {schema}.acessos ( \
                 id bigint GENERATED ALWAYS AS IDENTITY (CACHE 256) PRIMARY KEY, \
                 momento timestamptz NOT NULL DEFAULT now()); \
             LOCK TABLE {schema}.acessos IN SHARE ROW EXCLUSIVE MODE"
    ))?;
    let mut table = inspect(session)?.0.ok_or(Failure::Missing)?;
    if table.momento == 0 {
        // Old rows stay null, since nobody knows when they came. New rows get the default.
        let add = "ADD COLUMN momento timestamptz, ALTER COLUMN momento SET DEFAULT now()";
        session
            .client
            .batch_execute(&format!("ALTER TABLE {schema}.acessos {add}"))?;
        table.momento = Type::TIMESTAMPTZ.oid();
    }
    session.client.batch_execute(&script(&schema, &table))
}

/// Creates what is missing and commits a batch of one, all in a transaction that the caller rolls
/// back: whether visits can be served.
pub(super) fn dry_run(session: &mut Session, writer: i64) -> Result<(), Failure> {
    let (table, state) = session.within(STEP_TIMEOUT, inspect)?;
    let ready = match (&table, &state) {
        (Some(table), Some(state)) => is_ready(table, state)?,
        _ => false,
    };
    if !ready {
        session.within(CREATE_TIMEOUT, create)?;
    }
    session
        .within(STEP_TIMEOUT, |session| session.dry_run(writer))
        .map_err(unfit)
}

fn script(schema: &str, table: &Table) -> String {
    let (moment, before) = match table.has_zone() {
        Some(false) => {
            let zone = literal(&table.zone);
            (
                format!("m AT TIME ZONE {zone}"),
                format!("(before AT TIME ZONE {zone})"),
            )
        }
        _ => ("m".to_owned(), "before".to_owned()),
    };
    SCHEMA
        .replace("@schema_name@", &literal(schema))
        .replace("@schema@", schema)
        .replace("@acessos@", &literal(&format!("{schema}.acessos")))
        .replace("@table@", &table.oid.to_string())
        .replace("@moment@", &moment)
        .replace("@minute@", &table.minute())
        .replace("@before@", &before)
        .replace("@momento_type@", &table.momento.to_string())
        .replace("@zone@", &literal(&table.zone))
        .replace("@version@", &VERSION.to_string())
}

/// Turns the failure of a table that no visit fits, until a person changes it, into
/// [`Failure::Unfit`].
pub(super) fn unfit(failure: Failure) -> Failure {
    let never = [
        // not_null_violation, wrong_object_type, datatype_mismatch (PostgreSQL manual, appendix A).
        "23502", "42809", "42804", "VI003", "VI004",
    ];
    if never.contains(&failure.code()) {
        return Failure::Unfit(format!("the table acessos cannot take a visit: {failure}"));
    }
    failure
}

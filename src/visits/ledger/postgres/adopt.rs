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
use super::session::Session;
use super::table::{NAMED_VERSION, State, Table, VERSION, inspect, is_ready, literal};
use crate::squeeze::Squeeze;

/// Everything that visitas needs in the database, with placeholders for what differs.
const SCHEMA_SOURCE: &str = include_str!("schema.sql");
static SCHEMA: [u8; Squeeze::Sql.length(SCHEMA_SOURCE)] = Squeeze::Sql.text(SCHEMA_SOURCE);

/// Rules that do something instead of an INSERT (PostgreSQL manual, "pg_rewrite").
const RULES: &str = "SELECT FROM pg_catalog.pg_rewrite r \
     WHERE r.ev_class OPERATOR(pg_catalog.=) @table@::pg_catalog.oid \
       AND r.ev_type OPERATOR(pg_catalog.=) '3'::pg_catalog.\"char\" AND r.is_instead";

/// A try to lock the table waits this long, and the statements of others behind it.
const LOCK_TIMEOUT: &str = "300ms";
/// Time between two tries.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Tries of one opening; the next opening goes on.
const LOCK_TRIES: u32 = 30;
/// Tries of a dry run, beside a process that starts for the first time or holds the table shortly.
const DRY_RUNS: u32 = 3;
/// Time between two log lines about the lock.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Time for one try, once it has the lock.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes sure that a batch can be committed. `opened`: this process has had the table. Then a
/// missing table is being replaced by somebody, and is not made again. With `names` there are
/// counters by name.
pub(super) fn prepare(session: &mut Session, opened: bool, names: bool) -> Result<(), Failure> {
    let found = session.step(inspect)?;
    if found.0.is_none() && opened {
        return Err(Failure::Missing);
    }
    create_in_tries(session, found, names, Run::ForGood)?;
    let (Some(table), Some(state)) = session.step(inspect)? else {
        return Err(Failure::Missing);
    };
    if state.counted != Some(table.oid) {
        log::info!("counting the rows of acessos");
        let counted = count::correct(session, &table, &mut count::log_progress())?;
        log::info!("{} rows of acessos are counted", counted.rows);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Commits, and waits for whoever holds the table.
    ForGood,
    /// Leaves the transaction open.
    Dry,
}

/// Creates what was `found` missing, in short tries.
fn create_in_tries(
    session: &mut Session,
    mut found: (Option<Table>, Option<State>),
    names: bool,
    run: Run,
) -> Result<(), Failure> {
    let most = match run {
        Run::ForGood => LOCK_TRIES,
        Run::Dry => DRY_RUNS,
    };
    let mut logged: Option<Instant> = None;
    for tries in 1.. {
        if let (Some(table), Some(state)) = &found
            && is_ready(table, state, names)?
        {
            break;
        }
        let made = session.within(CREATE_TIMEOUT, |session| {
            create(session, names, run)?;
            match run {
                Run::ForGood => session.client.batch_execute("COMMIT"),
                Run::Dry => Ok(()),
            }
        });
        let failure = match made {
            Ok(()) => break,
            Err(failure) => failure,
        };
        if session.roll_back().is_err() {
            return Err(failure);
        }
        let is_locked = failure.code() == "55P03";
        let passes = is_locked || creates_the_same(&failure);
        if !passes || tries >= most {
            return Err(unfit(failure));
        }
        if is_locked && run == Run::ForGood && logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL)
        {
            logged = Some(Instant::now());
            log::info!(
                "waiting for other transactions to release the table acessos, to add triggers to it"
            );
        }
        thread::sleep(LOCK_INTERVAL);
        found = session.step(inspect)?;
    }
    Ok(())
}

fn create(session: &mut Session, names: bool, run: Run) -> Result<(), Failure> {
    let schema = session.schema.clone();
    session.client.batch_execute(&format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
             SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_min_messages = warning; \
             CREATE TABLE IF NOT EXISTS {schema}.acessos ( \
                 id bigint GENERATED ALWAYS AS IDENTITY (CACHE 256) PRIMARY KEY, \
                 momento timestamptz NOT NULL DEFAULT now())"
    ))?;
    let found = inspect(session)?.0.ok_or(Failure::Missing)?;
    // At once the strongest lock that is needed: two that asked for more later would be a deadlock.
    let lock = match found.momento == 0 || (names && !found.has_names()) {
        true => "ACCESS EXCLUSIVE",
        false => "SHARE ROW EXCLUSIVE",
    };
    let lock = format!("LOCK TABLE {schema}.acessos IN {lock} MODE");
    session.client.batch_execute(&lock)?;
    let (table, state) = inspect(session)?;
    let mut table = table.ok_or(Failure::Missing)?;
    let mut counted = None;
    if table.momento == 0 {
        // Old rows stay null, since nobody knows when they came. New rows get the default.
        let add = "ADD COLUMN momento timestamptz, ALTER COLUMN momento SET DEFAULT now()";
        session
            .client
            .batch_execute(&format!("ALTER TABLE {schema}.acessos {add}"))?;
        table.momento = Type::TIMESTAMPTZ.oid();
        if run == Run::ForGood {
            log::info!("acessos gets a column momento; rows without one are in no history");
        }
    } else if let Some(state) = &state
        && !table.has_names()
        && is_ready(&table, state, false)?
    {
        // Of the rows that are counted none has a name.
        counted = state.counted;
    }
    if names && table.refuses_names() {
        return Err(Failure::Unfit(
            "the column contador of acessos is not of type text, which COUNTERS needs for names: \
             rename it, or unset COUNTERS"
                .to_owned(),
        ));
    }
    if names && !table.has_names() {
        session.client.batch_execute(&format!(
            "ALTER TABLE {schema}.acessos ADD COLUMN contador text"
        ))?;
    }
    table.named |= names;
    let script = script(&schema, &table, counted);
    session.client.batch_execute(&script)
}

/// Whether another process is creating the same at this moment.
fn creates_the_same(failure: &Failure) -> bool {
    ["40P01", "23505", "42P07", "42710", "XX000"].contains(&failure.code())
}

/// Creates what is missing and commits a batch of one, all in a transaction that the caller rolls
/// back: whether visits can be served.
pub(super) fn dry_run(session: &mut Session, writer: i64, names: bool) -> Result<(), Failure> {
    let found = session.step(inspect)?;
    create_in_tries(session, found, names, Run::Dry)?;
    session
        .step(|session| session.dry_run(writer))
        .map_err(unfit)
}

fn script(schema: &str, table: &Table, counted: Option<u32>) -> String {
    let before = match table.has_zone() {
        Some(false) => format!("(before AT TIME ZONE {})", literal(&table.zone)),
        _ => "before".to_owned(),
    };
    let version = match table.named {
        true => NAMED_VERSION,
        false => VERSION,
    };
    let counted = counted.map_or_else(|| "NULL".to_owned(), |oid| oid.to_string());
    String::from_utf8_lossy(&SCHEMA)
        .replace("@schema_name@", &literal(schema))
        .replace("@schema@", schema)
        .replace("@acessos@", &literal(&format!("{schema}.acessos")))
        .replace("@rules@", RULES)
        .replace("@table@", &table.oid.to_string())
        .replace("@moment@", &table.moment())
        .replace("@minute@", &table.minute())
        .replace("@before@", &before)
        .replace("@momento_type@", &table.momento.to_string())
        .replace("@zone@", &literal(&table.zone))
        .replace("@named@", if table.named { "true" } else { "false" })
        .replace("@name@", table.name())
        .replace("@counted@", &counted)
        .replace("@version@", &version.to_string())
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

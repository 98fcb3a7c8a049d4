//! Makes the database ready: creates what is missing, takes an existing table over, counts its rows
//! once.
//!
//! Whoever writes to the table meanwhile is hardly held up: triggers are added under a lock that is
//! waited for in short tries, and rows are counted beside other writers (`count`).

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::count;
use super::session::{Failure, STEP_TIMEOUT, Session, limited};

/// Everything that visitas needs in the database, with places for what differs.
const SCHEMA: &str = include_str!("schema.sql");
/// Its version, kept in `visitas_schema`.
const VERSION: i32 = 1;

/// A try to lock the table waits this long, and everybody else's next statement behind it.
const LOCK_TIMEOUT: &str = "300ms";
/// Time between two tries.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Tries of one opening; the next one goes on.
const LOCK_TRIES: u32 = 30;
/// Time between two log lines about that.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Time for one try, once it has the lock.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the table is, and what it should be for the schema that is there.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// The type of its column `momento`; 0 where that is missing.
    momento: u32,
    /// The time zone of a `momento` without one.
    zone: String,
    /// Those of visitas that are there and enabled.
    triggers: i64,
}

/// What visitas keeps of itself.
#[derive(Debug)]
struct State {
    version: i32,
    /// The table that the functions and triggers were made for.
    made_for: u32,
    /// The table whose rows were counted.
    counted: Option<u32>,
    momento: u32,
    zone: String,
}

/// Sees to it that a batch can be committed. A table that vanishes under a running process is being
/// replaced by somebody, who must not find one in his way: it is `opened` and not made again.
pub(super) async fn prepare(session: &mut Session, opened: bool) -> Result<(), Failure> {
    let (table, state) = limited(STEP_TIMEOUT, look(session)).await?;
    if table.is_none() && opened {
        return Err(Failure::Missing);
    }
    let ready = match (&table, &state) {
        (Some(table), Some(state)) => is_ready(table, state)?,
        _ => false,
    };
    if !ready {
        create_in_tries(session).await?;
    }
    let (Some(table), Some(state)) = limited(STEP_TIMEOUT, look(session)).await? else {
        return Err(Failure::Missing);
    };
    if state.counted != Some(table.oid) {
        log::info!("counting the rows of acessos");
        let counted = count::correct(session, &table, &mut count::log_progress()).await?;
        log::info!("{} rows of acessos are counted", counted.rows);
    }
    Ok(())
}

/// What is there of the table and of visitas' own.
async fn look(session: &Session) -> Result<(Option<Table>, Option<State>), Failure> {
    let schema = &session.schema;
    let table = "SELECT c.oid, coalesce((SELECT atttypid FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'momento' \
                AND NOT a.attisdropped), 0::oid), current_setting('TimeZone'), \
            (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'O' AND t.tgname IN \
                ('visitas_insert', 'visitas_update', 'visitas_delete', 'visitas_truncate')), \
            to_regproc($2) IS NOT NULL \
           FROM (SELECT to_regclass($1)::oid AS oid) AS c";
    let names = [
        format!("{schema}.acessos"),
        format!("{schema}.visitas_state"),
    ];
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&names[0], Type::TEXT), (&names[1], Type::TEXT)];
    let row = session.client.query_typed_one(table, &params).await?;
    let Some(oid) = row.try_get::<_, Option<u32>>(0)? else {
        return Ok((None, None));
    };
    let mut table = Table {
        oid,
        momento: row.try_get(1)?,
        zone: row.try_get(2)?,
        triggers: row.try_get(3)?,
    };
    if !row.try_get::<_, bool>(4)? {
        return Ok((Some(table), None));
    }
    let rows = session
        .client
        .query_typed(&format!("SELECT * FROM {schema}.visitas_state()"), &[])
        .await?;
    // Data that was restored into a schema made here brings a second row along. Neither describes
    // what is there now.
    let [row] = &rows[..] else {
        return Ok((Some(table), None));
    };
    let state = State {
        version: row.try_get(0)?,
        made_for: row.try_get(1)?,
        counted: row.try_get(2)?,
        momento: row.try_get(3)?,
        zone: row.try_get(4)?,
    };
    // The zone stays the one that it began with, whatever the database's becomes.
    table.zone.clone_from(&state.zone);
    Ok((Some(table), Some(state)))
}

/// The table, where its rows were counted once.
pub(super) async fn counted(session: &Session) -> Result<Option<Table>, Failure> {
    let (table, state) = limited(STEP_TIMEOUT, look(session)).await?;
    Ok(table.filter(|table| state.is_some_and(|state| state.counted == Some(table.oid))))
}

/// Creates what is missing, in tries that hold nobody up for long.
async fn create_in_tries(session: &Session) -> Result<(), Failure> {
    let mut logged: Option<Instant> = None;
    for tries in 1.. {
        let made = async {
            create(session).await?;
            Ok(session.client.batch_execute("COMMIT").await?)
        };
        let failure = match limited(CREATE_TIMEOUT, made).await {
            Ok(()) => break,
            Err(failure) => failure,
        };
        session.client.batch_execute("ROLLBACK").await?;
        // Another process makes the same just now, or something holds the table.
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
                "waiting for other transactions to let go of the table acessos, to add triggers to it"
            );
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
    Ok(())
}

async fn create(session: &Session) -> Result<(), Failure> {
    let (client, schema) = (&session.client, &session.schema);
    client
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
             SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_min_messages = warning; \
             CREATE TABLE IF NOT EXISTS {schema}.acessos ( \
                 id bigint GENERATED ALWAYS AS IDENTITY (CACHE 256) PRIMARY KEY, \
                 momento timestamptz NOT NULL DEFAULT now()); \
             LOCK TABLE {schema}.acessos IN SHARE ROW EXCLUSIVE MODE"
        ))
        .await?;
    let mut table = look(session).await?.0.ok_or(Failure::Missing)?;
    if table.momento == 0 {
        // Rows from before stay null, since nobody knows when they came; the default is for those
        // to come.
        let add = "ADD COLUMN momento timestamptz, ALTER COLUMN momento SET DEFAULT now()";
        client
            .batch_execute(&format!("ALTER TABLE {schema}.acessos {add}"))
            .await?;
        table.momento = Type::TIMESTAMPTZ.oid();
    }
    Ok(client.batch_execute(&script(schema, &table)).await?)
}

/// Makes all that is missing, commits a batch of one, and takes it all back: whether visits could
/// be served.
pub(super) async fn dry_run(session: &mut Session, writer: i64) -> Result<(), Failure> {
    let (table, state) = limited(STEP_TIMEOUT, look(session)).await?;
    let ready = match (&table, &state) {
        (Some(table), Some(state)) => is_ready(table, state)?,
        _ => false,
    };
    if !ready {
        limited(CREATE_TIMEOUT, create(session)).await?;
    }
    limited(STEP_TIMEOUT, session.dry_run(writer))
        .await
        .map_err(unfit)
}

/// Whether the schema is there as this version makes it for this table.
fn is_ready(table: &Table, state: &State) -> Result<bool, Failure> {
    if state.version > VERSION {
        return Err(Failure::Unfit(format!(
            "the schema in the database has version {}, this program knows {VERSION}: start a newer visitas",
            state.version
        )));
    }
    // A restored dump brings the same table under another number.
    let same_table = table.oid == state.made_for && table.momento == state.momento;
    Ok(state.version == VERSION && same_table && table.triggers == 4)
}

/// The schema for that table.
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

impl Table {
    /// Whether `momento` holds moments with a zone; `None` where it holds no moments.
    fn has_zone(&self) -> Option<bool> {
        match self.momento {
            oid if oid == Type::TIMESTAMPTZ.oid() => Some(true),
            oid if oid == Type::TIMESTAMP.oid() => Some(false),
            _ => None,
        }
    }

    /// The minute of a row in seconds since 1970, as SQL; null for infinity, and for what is no
    /// moment.
    pub(super) fn minute(&self) -> String {
        let of = |moment: &str| {
            format!(
                "CASE WHEN isfinite(momento) THEN floor(date_part('epoch', {moment}) / 60)::bigint * 60 END"
            )
        };
        match self.has_zone() {
            Some(true) => of("momento"),
            Some(false) => of(&format!("momento AT TIME ZONE {}", literal(&self.zone))),
            None => "NULL::bigint".to_owned(),
        }
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Tells a table that cannot take a visit, until a person changes it, from a failure that passes.
pub(super) fn unfit(failure: Failure) -> Failure {
    let never = [
        SqlState::NOT_NULL_VIOLATION.code(),
        SqlState::WRONG_OBJECT_TYPE.code(),
        SqlState::DATATYPE_MISMATCH.code(),
        "VI003",
        "VI004",
    ];
    if never.contains(&failure.code()) {
        return Failure::Unfit(format!("the table acessos cannot take a visit: {failure}"));
    }
    failure
}

//! Visits that move out of the database and in, for `visitas export` and `visitas import`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres_types::Type;

use super::address::Address;
use super::adopt;
use super::client::{Param, Row};
use super::endpoints::Endpoints;
use super::failure::Failure;
use super::session::Session;
use super::table::{Table, inspect};
use crate::visits::ledger::{Exported, Importer, Moved, Reached, TakeLines};
use crate::visits::moving::{HEADER, give_pruned};

/// Time for one statement, and for each piece of an export, on a slow and busy disk.
const MOVE_TIMEOUT: Duration = Duration::from_secs(120);

/// Gives all visits as lines, in one snapshot beside all other writers.
///
/// # Errors
/// A sentence.
pub fn export(address: &Address, take: TakeLines<'_>) -> Result<Exported, String> {
    let mut work = || {
        let mut session = Session::connect(&mut Endpoints::for_command(address, MOVE_TIMEOUT))?;
        let (table, state) = session.step(inspect)?;
        let Some(table) = table else {
            return Err(Failure::Unfit("no table acessos is there".to_owned()));
        };
        let has_total = state.is_some_and(|state| state.counted == Some(table.oid));
        export_table(&mut session, &table, has_total, take)
    };
    work().map_err(|failure| failure.to_string())
}

fn export_table(
    session: &mut Session,
    table: &Table,
    has_total: bool,
    take: TakeLines<'_>,
) -> Result<Exported, Failure> {
    let schema = session.schema.clone();
    // The lock comes before the snapshot: TRUNCATE removes rows from older snapshots. The order is
    // that of the table, each time, so that an import of an export can go on with another one.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL synchronize_seqscans = off; \
         SET LOCAL max_parallel_workers_per_gather = 0; \
         LOCK TABLE {schema}.acessos IN ACCESS SHARE MODE"
    );
    session.within(MOVE_TIMEOUT, |session| session.client.batch_execute(&begin))?;
    let mut exported = Exported::default();
    let mut pruned = Vec::new();
    if has_total {
        let sums = format!("SELECT total, pruned FROM {schema}.visitas_sums");
        let row = query(session, &sums, &[])?.pop().ok_or(Failure::NoRow)?;
        exported.total = u64::try_from(row.get::<i64>(0)?).ok();
        exported.pruned = u64::try_from(row.get::<i64>(1)?).unwrap_or(0);
        if table.named && exported.pruned > 0 {
            let named = format!(
                "SELECT counter, pruned FROM {schema}.visitas_named_totals WHERE pruned > 0"
            );
            pruned = query(session, &named, &[])?;
        }
    }
    if !take(format!("{HEADER}\n").as_bytes(), 1) {
        return Err(Failure::Closed);
    }
    let mut count = |piece: &[u8]| {
        let lines = piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        exported.rows += lines;
        take(piece, lines)
    };
    let copy = copy(&schema, table);
    session.client.copy_out(&copy, MOVE_TIMEOUT, &mut count)?;
    session.roll_back()?;
    let of_name = |row: &Row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?.cast_unsigned()));
    let names: Result<Vec<(String, u64)>, Failure> = pruned.iter().map(of_name).collect();
    match give_pruned(exported.pruned, names?, take) == exported.pruned {
        true => Ok(exported),
        false => Err(Failure::Closed),
    }
}

/// A line for each row. What cannot be a name is left out, and so is infinity. `COPY` reads all other
/// times as they were, also those that RFC 3339 does not have: before the year 1, and after 9999.
fn copy(schema: &str, table: &Table) -> String {
    let name = table.name();
    let time = match table.momento() {
        Some(momento) => format!(
            "CASE WHEN isfinite(momento) THEN \
             to_char({momento} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || \
             CASE WHEN {momento} < '0001-01-01 00:00Z' THEN ' BC' ELSE '' END END"
        ),
        None => "NULL::text".to_owned(),
    };
    format!("COPY (SELECT {name}, {time} FROM {schema}.acessos) TO STDOUT (FORMAT csv)")
}

fn query(session: &mut Session, text: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
    session.within(MOVE_TIMEOUT, |session| session.client.query(text, params))
}

/// The import of that id. Creates what is missing, with `names` for counters by name too.
///
/// # Errors
/// A sentence.
pub fn importer(address: &Address, names: bool, id: &str) -> Result<Box<dyn Importer>, String> {
    let work = || {
        let mut session = Session::connect(&mut Endpoints::for_command(address, MOVE_TIMEOUT))?;
        adopt::prepare(&mut session, false, names)?;
        let Some(table) = session.step(inspect)?.0 else {
            return Err(Failure::Missing);
        };
        make_imports(&mut session)?;
        let insert = insert(&mut session, &table)?;
        Ok(PostgresImport {
            session,
            id: id.to_owned(),
            insert,
            named: table.named,
        })
    };
    match work() {
        Ok(import) => Ok(Box::new(import)),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Makes the table of imports, where it is not there: a role may have rights on it alone.
fn make_imports(session: &mut Session) -> Result<(), Failure> {
    let schema = session.schema.clone();
    let name = format!("{schema}.visitas_imports");
    let there = "SELECT to_regclass($1) IS NOT NULL";
    let row = query(session, there, &[(&name, Type::TEXT)])?;
    if row.first().ok_or(Failure::NoRow)?.get(0)? {
        return Ok(());
    }
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {name} (id text PRIMARY KEY, lines bigint NOT NULL, \
             digest bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())"
    );
    let made = session.within(MOVE_TIMEOUT, |session| {
        session.client.batch_execute(&create)
    });
    match made {
        // Another import has just made it, or its row type.
        Err(failure) if ["23505", "42P07", "42710"].contains(&failure.code()) => Ok(()),
        other => other,
    }
}

/// The statement that inserts times and names; it gives the number of rows.
fn insert(session: &mut Session, table: &Table) -> Result<String, Failure> {
    let schema = session.schema.clone();
    let text = "SELECT attnotnull FROM pg_attribute WHERE attrelid = $1 AND attname = 'momento'";
    let row = query(session, text, &[(&table.oid, Type::OID)])?;
    // A row without a time counts, and is in no bucket of the history; so is one before all times.
    let unknown = match row.first().ok_or(Failure::NoRow)?.get(0)? {
        true => "'-infinity'::timestamptz",
        false => "NULL::timestamptz",
    };
    let moment = table.moment();
    let (column, name) = match table.named {
        true => (", contador", ", u.name"),
        false => ("", ""),
    };
    Ok(format!(
        "WITH u AS (SELECT coalesce(nullif(r.m, 'epoch'::timestamptz), {unknown}) AS m, r.name \
                      FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) \
                           AS r(m, name)), \
              inserted AS (INSERT INTO {schema}.acessos (momento{column}) SELECT {moment}{name} \
                             FROM u RETURNING 1) \
         SELECT count(*) FROM inserted"
    ))
}

struct PostgresImport {
    session: Session,
    id: String,
    insert: String,
    /// Rows have names.
    named: bool,
}

impl PostgresImport {
    fn try_reached(&mut self) -> Result<Reached, Failure> {
        let schema = &self.session.schema;
        // Both wait for the transaction of a run that was killed, if it is still under way.
        let insert = format!(
            "INSERT INTO {schema}.visitas_imports (id, lines, digest) VALUES ($1, 0, 0) \
             ON CONFLICT (id) DO NOTHING"
        );
        let select =
            format!("SELECT lines, digest FROM {schema}.visitas_imports WHERE id = $1 FOR UPDATE");
        let id: [Param<'_>; 1] = [(&self.id, Type::TEXT)];
        query(&mut self.session, &insert, &id)?;
        let rows = query(&mut self.session, &select, &id)?;
        let row = rows.first().ok_or(Failure::NoRow)?;
        Ok(Reached {
            lines: row.get::<i64>(0)?.cast_unsigned(),
            digest: row.get::<i64>(1)?.cast_unsigned(),
        })
    }

    fn try_add(&mut self, moved: &Moved, from: u64, to: Reached) -> Result<(), Failure> {
        let session = &mut self.session;
        session.step(|session| {
            let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
            session.client.batch_execute(begin)
        })?;
        let update = format!(
            "UPDATE {}.visitas_imports SET lines = $2, digest = $3, at = now() \
              WHERE id = $1 AND lines = $4 RETURNING 1",
            session.schema
        );
        let (lines, digest) = (to.lines.cast_signed(), to.digest.cast_signed());
        let from = from.cast_signed();
        let place: [Param<'_>; 4] = [
            (&self.id, Type::TEXT),
            (&lines, Type::INT8),
            (&digest, Type::INT8),
            (&from, Type::INT8),
        ];
        if query(session, &update, &place)?.is_empty() {
            return Err(Failure::Unfit(
                "another run of the same import is under way, or was".to_owned(),
            ));
        }
        let times: Vec<SystemTime> = moved.moments.iter().map(|moment| time(*moment)).collect();
        let times = &times[..];
        let name = |place: &Option<usize>| place.map(|place| moved.names[place].name.as_str());
        let names: Vec<Option<&str>> = moved.name_of.iter().map(name).collect();
        if !self.named && !moved.names.is_empty() {
            return Err(Failure::Unfit("acessos has no column for names".to_owned()));
        }
        let rows: [Param<'_>; 2] = [
            (&times, Type::TIMESTAMPTZ_ARRAY),
            (&names, Type::TEXT_ARRAY),
        ];
        let inserted = query(session, &self.insert, &rows)?;
        let inserted: i64 = inserted.first().ok_or(Failure::NoRow)?.get(0)?;
        if inserted != times.len() as i64 {
            return Err(Failure::Unfit(format!(
                "only {inserted} of {} rows were inserted: a trigger or a rule of acessos drops rows",
                times.len()
            )));
        }
        session.client.take_warning();
        session.within(MOVE_TIMEOUT, |session| {
            session.client.batch_execute("COMMIT")
        })?;
        let warning = session.client.take_warning();
        warning.map_or(Ok(()), |warning| Err(Failure::Unsettled(warning)))
    }
}

/// 1970 stands for a time that is not known.
fn time(moment: Option<i64>) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(moment.unwrap_or(0).max(0).cast_unsigned())
}

impl Importer for PostgresImport {
    fn reached(&mut self) -> Result<Reached, String> {
        self.try_reached().map_err(|failure| failure.to_string())
    }

    fn add(&mut self, moved: &Moved, from: u64, to: Reached) -> Result<(), String> {
        let added = self.try_add(moved, from, to);
        added.map_err(|failure| failure.to_string())
    }
}

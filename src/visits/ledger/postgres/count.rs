//! Counts the rows of the table and compares them with the totals, in one snapshot beside all other
//! writers.
//!
//! Both are of the same moment, so their difference is what the totals lack, whatever happens
//! later. Appended to the changes, it corrects them while visits go on. An existing table is
//! adopted the same way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postgres_types::Type;

use super::address::Address;
use super::client::{Param, Row};
use super::endpoints::Endpoints;
use super::failure::Failure;
use super::session::{STEP_TIMEOUT, Session};
use super::table::{self, Table};
use crate::visits::ledger::Counted;

/// Pages that one statement counts: 64 MB, a fraction of a second.
const PAGES_A_STEP: i64 = 8192;
/// Time for one statement, on a slow and busy disk.
const COUNT_TIMEOUT: Duration = Duration::from_secs(120);
/// Time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// A count that meets another one's correction begins anew.
const TRIES: u32 = 5;

/// Takes the number of pages counted, and of all pages.
pub(super) type Progress<'a> = &'a mut dyn FnMut(i64, i64);

/// Reports progress in the log.
pub(super) fn log_progress() -> impl FnMut(i64, i64) {
    let mut last = Instant::now();
    move |pages, of| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            log::info!(
                "counting the rows of acessos: {} %",
                100 * pages / of.max(1)
            );
        }
    }
}

/// Counts, and with `correct` corrects the totals, for `visitas check --count` and `visitas
/// recount`.
///
/// # Errors
/// A sentence.
pub fn recount(
    address: &Address,
    correct: bool,
    progress: Progress<'_>,
) -> Result<Counted, String> {
    let mut work = || {
        let mut session = Session::connect(&mut Endpoints::new(address, COUNT_TIMEOUT))?;
        let Some(table) = table::counted(&mut session)? else {
            return Err(Failure::Unfit(
                "no total is kept there yet: start visitas once".to_owned(),
            ));
        };
        if correct {
            self::correct(&mut session, &table, progress)
        } else {
            let counted = count(&mut session, &table, progress);
            let undone = session.roll_back();
            counted.and_then(|counted| undone.map(|()| counted))
        }
    };
    work().map_err(|failure: Failure| failure.to_string())
}

/// Counts and appends what the totals lack.
pub(super) fn correct(
    session: &mut Session,
    table: &Table,
    progress: Progress<'_>,
) -> Result<Counted, Failure> {
    for tries in 1.. {
        match try_correct(session, table, progress) {
            Err(failure) if failure.code() == "40001" && tries < TRIES => {
                session.roll_back()?;
            }
            other => return other,
        }
    }
    Err(Failure::NoRow)
}

fn try_correct(
    session: &mut Session,
    table: &Table,
    progress: Progress<'_>,
) -> Result<Counted, Failure> {
    let counted = count(session, table, progress)?;
    let (starts, visits): (Vec<i64>, Vec<i64>) = counted
        .differences
        .iter()
        .map(|(start, rows, visits)| (*start, rows - visits))
        .unzip();
    let lacking = counted.rows - counted.total;
    let text = format!("SELECT {}.visitas_correct($1, $2, $3)", session.schema);
    let params: [Param<'_>; 3] = [
        (&lacking, Type::INT8),
        (&starts, Type::INT8_ARRAY),
        (&visits, Type::INT8_ARRAY),
    ];
    // A serialization failure where another count was faster: its correction is not in this
    // snapshot.
    session.within(STEP_TIMEOUT, |session| session.client.query(&text, &params))?;
    session.within(COUNT_TIMEOUT, |session| {
        session.client.batch_execute("COMMIT")
    })?;
    Ok(counted)
}

/// Begins a transaction, counts in its snapshot, and leaves it open.
pub(super) fn count(
    session: &mut Session,
    table: &Table,
    progress: Progress<'_>,
) -> Result<Counted, Failure> {
    let schema = session.schema.clone();
    // The lock comes before the snapshot: TRUNCATE removes rows from older snapshots.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL search_path = pg_catalog, pg_temp; \
         LOCK TABLE {schema}.acessos IN ACCESS SHARE MODE"
    );
    session.within(STEP_TIMEOUT, |session| session.client.batch_execute(&begin))?;
    let sums =
        format!("SELECT total - pruned, date_part('epoch', now()) FROM {schema}.visitas_sums");
    let row = query(session, &sums, &[])?.pop().ok_or(Failure::NoRow)?;
    let (total, since): (i64, f64) = (row.get(0)?, row.get(1)?);
    let parts = format!(
        "SELECT {schema}.visitas_bucket(start, $1), sum(visits - pruned)::bigint \
           FROM {schema}.visitas_parts GROUP BY 1"
    );
    let mut kept = BTreeMap::new();
    for row in query(session, &parts, &[(&since, Type::FLOAT8)])? {
        kept.insert(row.get::<i64>(0)?, row.get::<i64>(1)?);
    }
    let found = rows(session, table, since, progress)?;
    let dated = || {
        found
            .iter()
            .filter_map(|(start, rows)| Some((start.as_ref()?, rows)))
    };
    let mut differences: Vec<(i64, i64, i64)> = dated()
        .map(|(start, rows)| (*start, *rows, kept.remove(start).unwrap_or(0)))
        .filter(|(_, rows, visits)| rows != visits)
        .collect();
    differences.extend(
        kept.into_iter()
            .filter(|(_, visits)| *visits != 0)
            .map(|(start, visits)| (start, 0, visits)),
    );
    Ok(Counted {
        rows: found.values().sum(),
        total,
        differences,
    })
}

/// The rows of the table by their bucket of the history.
fn rows(
    session: &mut Session,
    table: &Table,
    since: f64,
    progress: Progress<'_>,
) -> Result<BTreeMap<Option<i64>, i64>, Failure> {
    let (schema, minute) = (session.schema.clone(), table.minute());
    let size = "WITH RECURSIVE t(oid) AS (SELECT $1::oid UNION ALL \
                SELECT i.inhrelid FROM pg_inherits i JOIN t ON i.inhparent = t.oid) \
                SELECT coalesce(max(pg_relation_size(oid)), 0) \
                     / current_setting('block_size')::bigint FROM t";
    let pages: i64 = query(session, size, &[(&table.oid, Type::OID)])?
        .pop()
        .ok_or(Failure::NoRow)?
        .get(0)?;
    let mut found: BTreeMap<Option<i64>, i64> = BTreeMap::new();
    let mut from = 0;
    while from == 0 || from < pages {
        let to = from + PAGES_A_STEP;
        // The last step has no end: the table may have grown.
        let end = if to < pages {
            format!("AND ctid < '({to},0)'")
        } else {
            String::new()
        };
        let text = format!(
            "SELECT {schema}.visitas_bucket(c.minute, $1), count(*) \
               FROM (SELECT {minute} AS minute FROM {schema}.acessos \
                      WHERE ctid >= '({from},0)' {end}) AS c GROUP BY 1"
        );
        for row in query(session, &text, &[(&since, Type::FLOAT8)])? {
            *found.entry(row.get(0)?).or_insert(0) += row.get::<i64>(1)?;
        }
        progress(to.min(pages), pages);
        from = to;
    }
    Ok(found)
}

fn query(session: &mut Session, text: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
    session.within(COUNT_TIMEOUT, |session| session.client.query(text, params))
}

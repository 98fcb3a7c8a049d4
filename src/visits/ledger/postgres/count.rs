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
use super::session::Session;
use super::table::{self, Table};
use crate::visits::ledger::{Counted, Difference, NameDifference};

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
        let mut session = Session::connect(&mut Endpoints::for_command(address, COUNT_TIMEOUT))?;
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
    let (mut counters, mut lacking) = (vec![""], vec![counted.rows - counted.total]);
    for NameDifference { name, rows, total } in &counted.names {
        counters.push(name);
        lacking.push(rows - total);
    }
    let parts = counted.differences.iter();
    let part_counters: Vec<&str> = parts.clone().map(|part| &*part.name).collect();
    let (starts, visits): (Vec<i64>, Vec<i64>) = parts
        .map(|part| (part.start, part.rows - part.visits))
        .unzip();
    let text = format!(
        "SELECT {}.visitas_correct($1, $2, $3, $4, $5)",
        session.schema
    );
    let params: [Param<'_>; 5] = [
        (&counters, Type::TEXT_ARRAY),
        (&lacking, Type::INT8_ARRAY),
        (&part_counters, Type::TEXT_ARRAY),
        (&starts, Type::INT8_ARRAY),
        (&visits, Type::INT8_ARRAY),
    ];
    // A serialization failure where another count was faster: its correction is not in this
    // snapshot.
    session.step(|session| session.client.query(&text, &params))?;
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
    session.step(|session| session.client.batch_execute(&begin))?;
    let sums =
        format!("SELECT total - pruned, date_part('epoch', now()) FROM {schema}.visitas_sums");
    let row = query(session, &sums, &[])?.pop().ok_or(Failure::NoRow)?;
    let (total, since): (i64, f64) = (row.get(0)?, row.get(1)?);
    // Rows whose momento holds no times are in no history: it has the visits alone.
    let mut kept = match table.momento() {
        Some(_) => kept(session, table, since)?,
        None => BTreeMap::new(),
    };
    let mut totals = BTreeMap::new();
    if table.named {
        let text = format!("SELECT counter, total - pruned FROM {schema}.visitas_named_totals");
        for row in query(session, &text, &[])? {
            totals.insert(row.get::<String>(0)?, row.get::<i64>(1)?);
        }
    }
    let mut counted = Counted {
        total,
        ..Counted::default()
    };
    for (name, found) in rows(session, table, since, progress)? {
        let rows = found.values().sum();
        if name.is_empty() {
            counted.rows = rows;
        } else {
            counted.compare_name(&name, rows, totals.remove(&name).unwrap_or(0));
        }
        let kept = kept.remove(&name).unwrap_or_default();
        counted.compare_history(&name, &found, kept);
    }
    for (name, total) in totals {
        counted.compare_name(&name, 0, total);
    }
    for (name, kept) in kept {
        counted.compare_history(&name, &Found::new(), kept);
    }
    Ok(counted)
}

impl Counted {
    fn compare_name(&mut self, name: &str, rows: i64, total: i64) {
        if rows != total {
            let name = name.to_owned();
            self.names.push(NameDifference { name, rows, total });
        }
    }

    fn compare_history(&mut self, name: &str, found: &Found, mut kept: BTreeMap<i64, i64>) {
        let mut compare = |start, rows, visits| {
            if rows != visits {
                let name = name.to_owned();
                self.differences.push(Difference {
                    name,
                    start,
                    rows,
                    visits,
                });
            }
        };
        for (start, rows) in found {
            if let Some(start) = *start {
                compare(start, *rows, kept.remove(&start).unwrap_or(0));
            }
        }
        for (start, visits) in kept {
            compare(start, 0, visits);
        }
    }
}

/// The visits in each bucket of each history, without pruned ones; that of all visits has no name.
fn kept(
    session: &mut Session,
    table: &Table,
    since: f64,
) -> Result<BTreeMap<String, BTreeMap<i64, i64>>, Failure> {
    let schema = session.schema.clone();
    let mut parts = format!(
        "SELECT ''::text AS counter, start, visits - pruned AS n FROM {schema}.visitas_parts"
    );
    if table.named {
        parts += &format!(
            " UNION ALL SELECT counter, start, visits - pruned FROM {schema}.visitas_named_parts"
        );
    }
    let text = format!(
        "SELECT counter, {schema}.visitas_bucket(start, $1), sum(n)::bigint \
           FROM ({parts}) AS p GROUP BY 1, 2"
    );
    let mut kept: BTreeMap<String, BTreeMap<i64, i64>> = BTreeMap::new();
    for row in query(session, &text, &[(&since, Type::FLOAT8)])? {
        let of = kept.entry(row.get(0)?).or_default();
        of.insert(row.get(1)?, row.get(2)?);
    }
    Ok(kept)
}

/// Rows by their bucket of the history.
type Found = BTreeMap<Option<i64>, i64>;

/// The rows of the table: all under an empty name, those with a name also under that.
fn rows(
    session: &mut Session,
    table: &Table,
    since: f64,
    progress: Progress<'_>,
) -> Result<BTreeMap<String, Found>, Failure> {
    let (schema, minute, name) = (session.schema.clone(), table.minute(), table.name());
    let size = "WITH RECURSIVE t(oid) AS (SELECT $1::oid UNION ALL \
                SELECT i.inhrelid FROM pg_inherits i JOIN t ON i.inhparent = t.oid) \
                SELECT coalesce(max(pg_relation_size(oid)), 0) \
                     / current_setting('block_size')::bigint FROM t";
    let pages: i64 = query(session, size, &[(&table.oid, Type::OID)])?
        .pop()
        .ok_or(Failure::NoRow)?
        .get(0)?;
    let mut found = BTreeMap::from([(String::new(), Found::new())]);
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
            "SELECT {schema}.visitas_bucket(c.minute, $1), count(*), c.name \
               FROM (SELECT {minute} AS minute, {name} AS name FROM {schema}.acessos \
                      WHERE ctid >= '({from},0)' {end}) AS c GROUP BY 1, 3"
        );
        for row in query(session, &text, &[(&since, Type::FLOAT8)])? {
            let (start, rows): (Option<i64>, i64) = (row.get(0)?, row.get(1)?);
            let mut add = |name| {
                let of = found.entry(name).or_insert_with(Found::new);
                *of.entry(start).or_insert(0) += rows;
            };
            add(String::new());
            row.get::<Option<String>>(2)?.map(add);
        }
        progress(to.min(pages), pages);
        from = to;
    }
    Ok(found)
}

fn query(session: &mut Session, text: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
    session.within(COUNT_TIMEOUT, |session| session.client.query(text, params))
}

//! Counts the rows of a file that no process serves, compares the totals of names and the history
//! with them, and corrects both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use redb::{Database, DatabaseError, Error, ReadableDatabase, ReadableTable};

use super::buffered::BufferedFile;
use super::file::{FILE_NAME, open, why_not_ours};
use super::history::{HISTORY, bucket};
use super::names::{self, Kept, NAME_OF, existing};
use super::{UNKNOWN, VISITS, begin, totals};
use crate::visits::history::Step;
use crate::visits::ledger::{Counted, Difference, NameDifference, Totals};

/// Rows between two reports of progress.
const ROWS_A_REPORT: i64 = 1_000_000;

/// Counts, and with `correct` corrects the history, for `visitas check --count` and `visitas
/// recount`.
///
/// # Errors
/// A sentence.
pub fn recount(
    folder: &Path,
    correct: bool,
    progress: &mut dyn FnMut(i64, i64),
) -> Result<Counted, String> {
    let at = folder.join(FILE_NAME).display().to_string();
    let (database, file) = open_existing(folder)?;
    let (counted, right) = count(&database, progress).map_err(|error| format!("{at}: {error}"))?;
    if correct && !counted.agrees() {
        file.accept().map_err(|error| format!("{at}: {error}"))?;
        set(&database, &right).map_err(|error| format!("{at}: {error}"))?;
    }
    Ok(counted)
}

/// Opens the file that no process serves. It stays as it is until it is accepted.
pub(super) fn open_existing(folder: &Path) -> Result<(Database, BufferedFile), String> {
    let path = folder.join(FILE_NAME);
    let at = path.display();
    if !path.exists() {
        return Err(format!("{at} is not there: start visitas once"));
    }
    let (database, file) = open(&path, true).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            format!("{at} is in use by a running visitas: stop it first")
        }
        error => format!("{at}: {error}"),
    })?;
    match why_not_ours(&database) {
        Ok(None) => Ok((database, file)),
        Ok(Some(why)) => Err(format!("{at} {why}")),
        Err(error) => Err(format!("{at}: {error}")),
    }
}

/// What must be in the file.
#[derive(Default)]
pub(super) struct Right {
    history: BTreeMap<i64, i64>,
    /// By the number of a name: its total and its history.
    names: BTreeMap<u64, (u64, BTreeMap<i64, i64>)>,
}

/// Rows by bucket.
#[derive(Default)]
struct Found {
    rows: i64,
    buckets: BTreeMap<i64, i64>,
}

impl Found {
    fn add(&mut self, bucket: Option<i64>) {
        self.rows += 1;
        if let Some(bucket) = bucket {
            *self.buckets.entry(bucket).or_insert(0) += 1;
        }
    }
}

/// What a count found, and what is right.
pub(super) fn count(
    database: &Database,
    progress: &mut dyn FnMut(i64, i64),
) -> Result<(Counted, Right), Error> {
    let transaction = database.begin_read()?;
    let Some(visits) = existing(transaction.open_table(VISITS))? else {
        return Ok(Default::default());
    };
    let Totals { total, pruned } = totals(&visits)?;
    let kept = i64::try_from(total - pruned).unwrap_or(i64::MAX);
    let now = Step::Minute.start_of(SystemTime::now());
    let mut all = Found::default();
    let mut named: BTreeMap<u64, Found> = BTreeMap::new();
    let name_of = existing(transaction.open_table(NAME_OF))?;
    let mut name_of = names::of_rows(name_of.as_ref());
    for row in visits.iter()? {
        let (number, arrival) = row?;
        let second = arrival.value().div_euclid(1_000_000);
        let bucket = (arrival.value() != UNKNOWN).then(|| bucket(second, now));
        all.add(bucket);
        if let Some(name) = name_of(number.value())? {
            named.entry(name).or_default().add(bucket);
        }
        if all.rows % ROWS_A_REPORT == 0 {
            progress(all.rows, kept);
        }
    }
    let mut history: BTreeMap<i64, i64> = BTreeMap::new();
    for part in transaction.open_table(HISTORY)?.iter()? {
        let (start, visits) = part?;
        let start = bucket(start.value().cast_signed(), now);
        *history.entry(start).or_insert(0) += visits.value();
    }
    let mut counted = Counted {
        rows: all.rows,
        total: kept,
        ..Counted::default()
    };
    let mut right = Right {
        history: compare("", &all, &history, pruned, &mut counted.differences),
        ..Right::default()
    };
    for (number, kept) in names::all(database, now)? {
        let found = named.remove(&number).unwrap_or_default();
        compare_name(number, &kept, &found, &mut counted, &mut right);
    }
    Ok((counted, right))
}

fn compare_name(number: u64, kept: &Kept, found: &Found, counted: &mut Counted, right: &mut Right) {
    let Totals { total, pruned } = kept.totals;
    let before = counted.names.len() + counted.differences.len();
    let (rows, total) = (found.rows, (total - pruned.min(total)).cast_signed());
    if rows != total {
        let name = kept.name.clone();
        counted.names.push(NameDifference { name, rows, total });
    }
    let parts = &mut counted.differences;
    let history = compare(&kept.name, found, &kept.history, pruned, parts);
    if counted.names.len() + counted.differences.len() > before {
        let total = rows.cast_unsigned() + pruned;
        right.names.insert(number, (total, history));
    }
}

/// Adds what differs, and gives the right history. A history still has the visits whose rows were
/// deleted for their age.
fn compare(
    name: &str,
    found: &Found,
    history: &BTreeMap<i64, i64>,
    pruned: u64,
    differences: &mut Vec<Difference>,
) -> BTreeMap<i64, i64> {
    let is_right = |rows: i64, visits: i64| rows == visits || (pruned > 0 && visits > rows);
    let of = |parts: &BTreeMap<i64, i64>, start: i64| parts.get(&start).copied().unwrap_or(0);
    let mut right = history.clone();
    let starts: BTreeSet<i64> = found
        .buckets
        .keys()
        .chain(history.keys())
        .copied()
        .collect();
    for start in starts {
        let (rows, visits) = (of(&found.buckets, start), of(history, start));
        if !is_right(rows, visits) {
            let name = name.to_owned();
            differences.push(Difference {
                name,
                start,
                rows,
                visits,
            });
            right.insert(start, rows);
        }
    }
    right
}

fn set(database: &Database, right: &Right) -> Result<(), Error> {
    let transaction = begin(database)?;
    {
        let mut history = transaction.open_table(HISTORY)?;
        loop {
            let first = history.first()?.map(|(start, _)| start.value());
            let Some(first) = first else { break };
            history.remove(first)?;
        }
        for (start, visits) in &right.history {
            history.insert(start.max(&0).cast_unsigned(), *visits)?;
        }
    }
    for (number, (total, history)) in &right.names {
        names::set(&transaction, *number, *total, history)?;
    }
    transaction.commit()?;
    Ok(())
}

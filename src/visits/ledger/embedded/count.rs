//! Counts the rows of a file that no process serves, compares the history with them, and corrects
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use redb::{Database, Error, ReadableDatabase, ReadableTable, TableError};

use super::history::{HISTORY, bucket};
use super::{FILE_NAME, VISITS, begin, is_ours, open, totals};
use crate::visits::history::Step;
use crate::visits::ledger::{Counted, Totals};

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
    let path = folder.join(FILE_NAME);
    let at = path.display();
    if !path.exists() {
        return Err(format!("{at} is not there: start visitas once"));
    }
    let (database, file) = open(&path, true).map_err(|error| format!("{at}: {error}"))?;
    match is_ours(&database) {
        Ok(true) => {}
        Ok(false) => return Err(format!("{at} is a store of another program")),
        Err(error) => return Err(format!("{at}: {error}")),
    }
    let (counted, right) = count(&database, progress).map_err(|error| format!("{at}: {error}"))?;
    if correct && !counted.agrees() {
        file.accept().map_err(|error| format!("{at}: {error}"))?;
        set(&database, &right).map_err(|error| format!("{at}: {error}"))?;
    }
    Ok(counted)
}

/// What a count found, and the correct history.
pub(super) fn count(
    database: &Database,
    progress: &mut dyn FnMut(i64, i64),
) -> Result<(Counted, BTreeMap<i64, i64>), Error> {
    let transaction = database.begin_read()?;
    let visits = match transaction.open_table(VISITS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Default::default()),
        other => other?,
    };
    let Totals { total, pruned } = totals(&visits)?;
    let kept = i64::try_from(total - pruned).unwrap_or(i64::MAX);
    let now = Step::Minute.start_of(SystemTime::now());
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    let mut rows = 0;
    for row in visits.iter()? {
        let second = row?.1.value().div_euclid(1_000_000);
        *found.entry(bucket(second, now)).or_insert(0) += 1;
        rows += 1;
        if rows % ROWS_A_REPORT == 0 {
            progress(rows, kept);
        }
    }
    let mut history: BTreeMap<i64, i64> = BTreeMap::new();
    for part in transaction.open_table(HISTORY)?.iter()? {
        let (start, visits) = part?;
        *history
            .entry(bucket(start.value().cast_signed(), now))
            .or_insert(0) += visits.value();
    }
    // The history still has the visits whose rows were deleted for their age.
    let is_right = |rows: i64, visits: i64| rows == visits || (pruned > 0 && visits > rows);
    let mut differences = Vec::new();
    let mut right = history.clone();
    for start in found
        .keys()
        .chain(history.keys())
        .collect::<std::collections::BTreeSet<_>>()
    {
        let of = |parts: &BTreeMap<i64, i64>| parts.get(start).copied().unwrap_or(0);
        if !is_right(of(&found), of(&history)) {
            differences.push((*start, of(&found), of(&history)));
            right.insert(*start, of(&found));
        }
    }
    Ok((
        Counted {
            rows,
            total: kept,
            differences,
        },
        right,
    ))
}

fn set(database: &Database, right: &BTreeMap<i64, i64>) -> Result<(), Error> {
    let transaction = begin(database)?;
    {
        let mut history = transaction.open_table(HISTORY)?;
        loop {
            let first = history.first()?.map(|(start, _)| start.value());
            let Some(first) = first else { break };
            history.remove(first)?;
        }
        for (start, visits) in right {
            history.insert(start.max(&0).cast_unsigned(), *visits)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

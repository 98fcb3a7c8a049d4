//! The ledger in one file of this process: `redb`, ACID, synced to disk at every commit.

mod buffered;
mod count;
mod diagnose;
mod file;
mod history;
mod moving;
mod names;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{
    CommitError as RedbCommitError, Database, ReadableDatabase, ReadableTable, TableDefinition,
    TransactionError, WriteTransaction,
};

use super::{Arrivals, CommitError, LastBatch, Ledger, Meanwhile, OpenError, Pruner, Sums, Totals};
use crate::visits::history::{Bucket, Step};
use crate::visits::name::Name;
pub use count::recount;
pub use diagnose::diagnose;
pub use file::EmbeddedFile;
use history::HISTORY;
pub use moving::{export, importer};
use names::NewNames;

/// One row per visit: its number from 1, and its arrival in microseconds since 1970, or [`UNKNOWN`].
const VISITS: TableDefinition<'_, u64, i64> = TableDefinition::new("acessos");
/// For each lane, the number of the last batch that it committed in this run: it resolves a commit
/// in doubt. Every table has the same types, since each pair of types brings its own B-tree code.
const LANES: TableDefinition<'_, u64, i64> = TableDefinition::new("lanes");
/// The arrival of a visit that moved in without one. It is in no bucket of the history.
const UNKNOWN: i64 = 0;
/// What the numbers in the tables mean, by one number at key 0.
const FORMAT: TableDefinition<'_, u64, i64> = TableDefinition::new("format");
/// The only format so far.
const FORMAT_HERE: i64 = 1;

/// Begins a transaction whose commit syncs twice, so the newest state on the disk is always whole.
/// After a single sync a damaged newest state looks like a commit that lost power: `redb` would go
/// on from the state before, without visits that were answered.
fn begin(database: &Database) -> Result<WriteTransaction, TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// One lane's client of the file.
#[derive(Debug)]
pub struct Embedded {
    file: Arc<EmbeddedFile>,
    database: Option<Arc<Database>>,
    /// Its key in [`LANES`]. The first opening clears what an earlier run left there.
    lane: u64,
    fresh: bool,
    /// The last batch that is known to be committed.
    number: i64,
    /// The names in the batch whose commit is in doubt.
    in_doubt: Vec<Name>,
}

impl Embedded {
    /// A client of `file` for one lane.
    pub fn new(file: &Arc<EmbeddedFile>) -> Self {
        let lane = file.next_lane();
        Embedded {
            file: Arc::clone(file),
            database: None,
            lane,
            fresh: true,
            number: 0,
            in_doubt: Vec::new(),
        }
    }

    /// Creates the tables; returns the number of this lane's last committed batch, and the totals.
    fn prepare(&self, database: &Database) -> Result<(i64, Totals), redb::Error> {
        let transaction = begin(database)?;
        let found = {
            let mut lanes = transaction.open_table(LANES)?;
            transaction.open_table(HISTORY)?;
            transaction.open_table(FORMAT)?.insert(0, FORMAT_HERE)?;
            if self.fresh {
                lanes.remove(self.lane)?;
            }
            let number = lanes.get(self.lane)?.map_or(0, |number| number.value());
            (number, totals(&transaction.open_table(VISITS)?)?)
        };
        transaction.commit()?;
        Ok(found)
    }

    fn write(&self, database: &Database, visits: &Arrivals) -> Result<Sums, Failure> {
        let transaction = begin(database).map_err(Failure::before)?;
        let (sums, new) = self
            .write_in(&transaction, visits)
            .map_err(Failure::Before)?;
        // The next transaction waits for this one, so no other lane numbers the same name.
        let mut known = (!new.is_empty()).then(|| self.file.names());
        transaction.commit().map_err(Failure::Commit)?;
        known.iter_mut().for_each(|known| known.extend(new.clone()));
        Ok(sums)
    }

    fn write_in(
        &self,
        transaction: &WriteTransaction,
        visits: &Arrivals,
    ) -> Result<(Sums, NewNames), redb::Error> {
        let mut rows = transaction.open_table(VISITS)?;
        let mut all = totals(&rows)?;
        for arrival in &visits.times {
            all.total += 1;
            rows.insert(all.total, microseconds(*arrival))?;
        }
        let minute = |time: &SystemTime| Some(Step::Minute.start_of(*time));
        let minutes: Vec<Option<i64>> = visits.times.iter().map(minute).collect();
        history::add(&mut transaction.open_table(HISTORY)?, &minutes)?;
        let (mut named, mut new) = (Vec::new(), Vec::new());
        if !visits.names.is_empty() {
            let known = self.file.names();
            let Arrivals { names, name_of, .. } = visits;
            (named, new) = names::add(transaction, names, name_of, &minutes, all.total, &known)?;
        }
        transaction
            .open_table(LANES)?
            .insert(self.lane, self.number + 1)?;
        Ok((Sums { all, names: named }, new))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, CommitError> {
        let Some(database) = &self.database else {
            return Err(CommitError::Idle("not open".to_owned()));
        };
        let current = self.file.current();
        if current.is_none_or(|current| !Arc::ptr_eq(&current, database)) {
            return Err(CommitError::Idle(
                "another lane had to open the file again".to_owned(),
            ));
        }
        work(database).map_err(|error| CommitError::Rejected(error.to_string()))
    }
}

/// Row numbers are never reused: the last one is the total, whatever was deleted.
fn totals(visits: &impl ReadableTable<u64, i64>) -> Result<Totals, redb::Error> {
    let total = visits.last()?.map_or(0, |(number, _)| number.value());
    Ok(Totals {
        total,
        pruned: total.saturating_sub(visits.len()?),
    })
}

/// An error, by where in the transaction it came.
enum Failure {
    /// Before the commit: nothing was written.
    Before(redb::Error),
    Commit(RedbCommitError),
}

impl Failure {
    fn before(error: impl Into<redb::Error>) -> Self {
        Failure::Before(error.into())
    }
}

impl Ledger for Embedded {
    fn open(&mut self) -> Result<LastBatch, OpenError> {
        self.database = None;
        let database = self.file.open()?;
        let (number, totals) = self.prepare(&database).map_err(|error| {
            self.file.forget(&database);
            OpenError::Transient(format!("{}: {error}", self.file.path().display()))
        })?;
        self.database = Some(database);
        self.fresh = false;
        let committed = number > self.number;
        let last = if committed {
            let names = self.names(&self.in_doubt.clone(), None);
            let names = names.map_err(|error| OpenError::Transient(error.to_string()))?;
            LastBatch::Committed(Sums {
                all: totals,
                names: names.into_iter().map(|(totals, _)| totals).collect(),
            })
        } else {
            LastBatch::NotCommitted
        };
        self.number = number;
        self.in_doubt.clear();
        Ok(last)
    }

    fn commit(&mut self, visits: &Arrivals, meanwhile: Meanwhile<'_>) -> Result<Sums, CommitError> {
        // The write occupies this thread.
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let Some(database) = self.database.clone() else {
            return Err(CommitError::Idle("not open".to_owned()));
        };
        let error = match self.write(&database, visits) {
            Ok(sums) => {
                self.number += 1;
                return Ok(sums);
            }
            Err(error) => error,
        };
        self.database = None;
        self.file.forget(&database);
        Err(match error {
            Failure::Before(error) => CommitError::Rejected(error.to_string()),
            Failure::Commit(error) => {
                let names = visits.names.iter().map(|named| named.name.clone());
                self.in_doubt = names.collect();
                CommitError::InDoubt(error.to_string())
            }
        })
    }

    fn peek(&mut self) -> Result<Totals, CommitError> {
        self.read(|database| totals(&database.begin_read()?.open_table(VISITS)?))
    }

    fn history(&mut self, now: SystemTime) -> Result<Vec<Bucket>, CommitError> {
        self.read(|database| history::read(database, now))
    }

    fn names(
        &mut self,
        names: &[Name],
        history: Option<SystemTime>,
    ) -> Result<Vec<(Totals, Vec<Bucket>)>, CommitError> {
        let numbers: Vec<Option<u64>> = {
            let known = self.file.names();
            let number = |name: &Name| known.get(name.as_str()).copied();
            names.iter().map(number).collect()
        };
        self.read(|database| names::read(database, &numbers, history))
    }

    fn list(&mut self, after: &str, most: usize) -> Result<Vec<(String, Totals)>, CommitError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (names, numbers): (Vec<String>, Vec<Option<u64>>) = {
            let known = self.file.names();
            let names = known.range::<str, _>((Excluded(after), Unbounded));
            let names = names.map(|(name, number)| (name.clone(), Some(*number)));
            names.take(most).unzip()
        };
        let totals = self.read(|database| names::read(database, &numbers, None))?;
        let totals = totals.into_iter().map(|(totals, _)| totals);
        Ok(names.into_iter().zip(totals).collect())
    }

    fn maintain(&mut self, _meanwhile: Meanwhile<'_>) {}

    fn close(&mut self) {
        self.database = None;
    }
}

/// Deletes the oldest rows of the file.
#[derive(Debug)]
pub struct EmbeddedPruner {
    file: Arc<EmbeddedFile>,
}

/// Rows that one transaction prunes. Batches wait for it some 10 ms.
const ROWS_A_STEP: usize = 5_000;

impl EmbeddedPruner {
    pub fn new(file: &Arc<EmbeddedFile>) -> Self {
        EmbeddedPruner {
            file: Arc::clone(file),
        }
    }
}

impl Pruner for EmbeddedPruner {
    fn prune(&mut self, keep: Duration) -> Result<bool, String> {
        let Some(database) = self.file.current() else {
            return Err("the file is not open".to_owned());
        };
        let before = microseconds(SystemTime::now().checked_sub(keep).unwrap_or(UNIX_EPOCH));
        let has_names = !self.file.names().is_empty();
        prune(&database, before, has_names).map_err(|error| error.to_string())
    }
}

/// Deletes rows that arrived before `before`, from the first on; says whether more may be left. The
/// last row stays: its number is the total.
fn prune(database: &Database, before: i64, has_names: bool) -> Result<bool, redb::Error> {
    let old = {
        let visits = database.begin_read()?.open_table(VISITS)?;
        let last = visits.last()?.map_or(0, |(number, _)| number.value());
        let mut old = Vec::new();
        for row in visits.range(..last)?.take(ROWS_A_STEP) {
            let (number, arrival) = row?;
            if arrival.value() >= before {
                break;
            }
            old.push(number.value());
        }
        old
    };
    if old.is_empty() {
        return Ok(false);
    }
    let transaction = begin(database)?;
    {
        let mut visits = transaction.open_table(VISITS)?;
        for number in &old {
            visits.remove(number)?;
        }
        if has_names {
            names::prune(&transaction, &old)?;
        }
    }
    transaction.commit()?;
    Ok(old.len() == ROWS_A_STEP)
}

/// Microseconds since 1970: PostgreSQL's resolution too.
fn microseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

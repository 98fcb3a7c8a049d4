//! The ledger in one file of this process: `redb`, ACID, synced to disk at every commit.

mod chronicle;
mod guarded;
mod survey;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    CommitError as RedbCommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, Table, TableDefinition, TableError, TableHandle, TransactionError, WriteTransaction,
};

use super::{CommitError, LastBatch, Ledger, OpenError};
use crate::visits::history::Step;
pub use chronicle::EmbeddedChronicle;
use guarded::GuardedFile;
pub use survey::survey;

/// One row a visit: its number from 1, and its arrival in microseconds since 1970.
const VISITS: TableDefinition<'_, u64, i64> = TableDefinition::new("acessos");
/// For each lane, the number of the last batch it committed, the rows there were with it, the minute the lane is in, and
/// its visits in it so far: added to the history when the lane's next minute begins, so that a batch writes no more pages.
/// Four rows a lane, from four times its number on: of the same types as every other table, since each pair of types
/// would bring its own copy of the B-tree's code.
const LANES: TableDefinition<'_, u64, i64> = TableDefinition::new("lanes");
/// The file's name in the data folder.
const FILE_NAME: &str = "visitas.redb";
/// What `redb` may keep of the file in memory. Commits append, so more would not make them faster.
const CACHE_BYTES: usize = 1 << 20;

/// The file, shared by the lanes of this process; no other process can have it open.
#[derive(Debug)]
pub struct EmbeddedFile {
    path: PathBuf,
    /// None before it is opened, and after an error that leaves `redb` unusable until it is opened again.
    database: Mutex<Option<Arc<Database>>>,
    /// Whether this process ever had it open.
    opened: AtomicBool,
    lanes: AtomicU64,
}

impl EmbeddedFile {
    /// The store's file in `folder`, not yet opened.
    pub fn new(folder: &Path) -> Arc<Self> {
        Arc::new(EmbeddedFile {
            path: folder.join(FILE_NAME),
            database: Mutex::default(),
            opened: AtomicBool::new(false),
            lanes: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Arc<Database>, OpenError> {
        let mut slot = self.lock();
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        let at = self.path.display();
        let opened = self.opened.load(Ordering::Relaxed);
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)
                .map_err(|error| OpenError::Never(format!("the folder of {at} cannot be made: {error}")))?;
        }
        let refused = |error| match error {
            // This process had it already: a lane has yet to let go of the instance that failed.
            DatabaseError::DatabaseAlreadyOpen if opened => OpenError::Again(format!("{at} is not closed yet")),
            DatabaseError::DatabaseAlreadyOpen => {
                OpenError::Never(format!("{at} is in use by another process; give each one a DATA_DIR of its own"))
            }
            other if opened || is_full(&other) => OpenError::Again(format!("{at}: {other}")),
            other => OpenError::Never(format!("{at} cannot be used as it is: {other}")),
        };
        let (database, file) = open(&self.path, !opened).map_err(refused)?;
        if !is_ours(&database).map_err(|error| OpenError::Again(format!("{at}: {error}")))? {
            return Err(OpenError::Never(format!(
                "{at} is a store of another program; give this one a DATA_DIR of its own"
            )));
        }
        file.accept().map_err(|error| refused(error.into()))?;
        let database = Arc::new(database);
        self.opened.store(true, Ordering::Relaxed);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    /// Forgets an instance that had an error, so that the next [`EmbeddedFile::open`] reads the file anew.
    fn forget(&self, broken: &Arc<Database>) {
        let mut slot = self.lock();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, broken)) {
            *slot = None;
        }
    }
}

/// Opens the file, creating it where there is none, with every page of it checked or not: a file that something else has
/// damaged would be trusted without that, and end the process by a panic later. A check reads about 1.5 GB/s from the page
/// cache; 10 million visits are 160 MB. The file itself stays as it is until it is accepted.
fn open(path: &Path, checked: bool) -> Result<(Database, GuardedFile), DatabaseError> {
    let file = GuardedFile::open(path)?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(checked);
    Ok((builder.create_with_backend(file.clone())?, file))
}

/// Begins a transaction whose commit is synced twice, so that the newest state on the disk is always whole. With a single
/// sync a file whose newest state is damaged could not be told from one that lost power in the middle of a commit, and
/// `redb` would go on from the state before, without visits that were answered.
fn begin(database: &Database) -> Result<WriteTransaction, TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Whether the disk is full, which passes.
fn is_full(error: &DatabaseError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let DatabaseError::Storage(StorageError::Io(error)) = error else { return false };
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Whether all the tables in the file are of those that visitas makes; so are those of a file that has none yet.
fn is_ours(database: &Database) -> Result<bool, redb::Error> {
    let ours = [VISITS, LANES, chronicle::HISTORY, chronicle::MARKS];
    let transaction = database.begin_read()?;
    if transaction.list_multimap_tables()?.count() > 0 {
        return Ok(false);
    }
    for table in transaction.list_tables()? {
        let Some(known) = ours.into_iter().find(|known| known.name() == table.name()) else { return Ok(false) };
        match transaction.open_table(known) {
            Ok(_) => {}
            Err(TableError::TableTypeMismatch { .. } | TableError::TypeDefinitionChanged { .. }) => return Ok(false),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(true)
}

/// One lane's client of the file.
#[derive(Debug)]
pub struct Embedded {
    file: Arc<EmbeddedFile>,
    database: Option<Arc<Database>>,
    /// Distinguishes the lanes of one run; what an earlier run left under it is cleared at the first opening.
    lane: u64,
    fresh: bool,
    /// What is known to be committed.
    last: Last,
}

/// A lane's row.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    batch: u64,
    total: u64,
    /// The minute the lane is in, in seconds since 1970.
    minute: i64,
    /// The lane's visits in it.
    visits: i64,
}

impl Last {
    /// A lane's row as it is kept; none where no lane of that number ever committed.
    fn read(lanes: &impl ReadableTable<u64, i64>, lane: u64) -> Result<Option<Last>, redb::Error> {
        let field = |index| Ok::<_, redb::Error>(lanes.get(4 * lane + index)?.map(|field| field.value()));
        let Some(batch) = field(0)? else { return Ok(None) };
        let [total, minute, visits] = [field(1)?, field(2)?, field(3)?].map(Option::unwrap_or_default);
        Ok(Some(Last { batch: batch.cast_unsigned(), total: total.cast_unsigned(), minute, visits }))
    }

    /// Every lane's row.
    fn read_all(lanes: &impl ReadableTable<u64, i64>) -> Result<Vec<Last>, redb::Error> {
        let last = lanes.last()?.map_or(0, |(key, _)| key.value() / 4 + 1);
        let mut all = Vec::new();
        for lane in 0..last {
            all.extend(Last::read(lanes, lane)?);
        }
        Ok(all)
    }

    fn write(self, lanes: &mut Table<'_, u64, i64>, lane: u64) -> Result<(), redb::Error> {
        let fields = [self.batch.cast_signed(), self.total.cast_signed(), self.minute, self.visits];
        for (index, field) in (0..).zip(fields) {
            lanes.insert(4 * lane + index, field)?;
        }
        Ok(())
    }

    fn remove(lanes: &mut Table<'_, u64, i64>, lane: u64) -> Result<(), redb::Error> {
        for index in 0..4 {
            lanes.remove(4 * lane + index)?;
        }
        Ok(())
    }
}

impl Embedded {
    /// A client of `file` for one lane.
    pub fn new(file: &Arc<EmbeddedFile>) -> Self {
        let lane = file.lanes.fetch_add(1, Ordering::Relaxed);
        Embedded { file: Arc::clone(file), database: None, lane, fresh: true, last: Last::default() }
    }

    /// Creates the tables, and reads what this lane committed last.
    fn prepare(&self, database: &Database) -> Result<Last, redb::Error> {
        let transaction = begin(database)?;
        let last = {
            let rows = transaction.open_table(VISITS)?.len()?;
            let mut lanes = transaction.open_table(LANES)?;
            let mut history = chronicle::open(&transaction)?;
            if self.fresh {
                history.find_gap(rows, &mut lanes)?;
                if let Some(old) = Last::read(&lanes, self.lane)? {
                    history.add(old.minute, old.visits)?;
                    Last::remove(&mut lanes, self.lane)?;
                }
            }
            Last::read(&lanes, self.lane)?.unwrap_or_default()
        };
        transaction.commit()?;
        Ok(last)
    }

    fn write(&self, database: &Database, arrivals: &[SystemTime]) -> Result<Last, Failure> {
        let transaction = begin(database).map_err(Failure::before)?;
        let last = self.write_in(&transaction, arrivals).map_err(Failure::Before)?;
        transaction.commit().map_err(Failure::Commit)?;
        Ok(last)
    }

    fn write_in(&self, transaction: &WriteTransaction, arrivals: &[SystemTime]) -> Result<Last, redb::Error> {
        let mut visits = transaction.open_table(VISITS)?;
        let mut last = Last { batch: self.last.batch + 1, total: visits.len()?, ..self.last };
        for arrival in arrivals {
            last.total += 1;
            visits.insert(last.total, microseconds(*arrival))?;
        }
        let minutes = || arrivals.iter().map(|arrival| Step::Minute.start_of(*arrival));
        let first = minutes().next().unwrap_or_default();
        if !minutes().all(|minute| minute == first) {
            let mut history = chronicle::open(transaction)?;
            minutes().try_for_each(|minute| history.add(minute, 1))?;
        } else if first == last.minute {
            last.visits += arrivals.len() as i64;
        } else {
            let mut history = chronicle::open(transaction)?;
            history.add(last.minute, last.visits)?;
            history.drop_old(first)?;
            (last.minute, last.visits) = (first, arrivals.len() as i64);
        }
        last.write(&mut transaction.open_table(LANES)?, self.lane)?;
        Ok(last)
    }

    fn count(database: &Database) -> Result<u64, redb::Error> {
        Ok(database.begin_read()?.open_table(VISITS)?.len()?)
    }
}

/// Where in a transaction an error came.
enum Failure {
    /// Before the commit: nothing was written.
    Before(redb::Error),
    /// In it.
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
        let last = self.prepare(&database).map_err(|error| {
            self.file.forget(&database);
            OpenError::Again(format!("{}: {error}", self.file.path.display()))
        })?;
        self.database = Some(database);
        self.fresh = false;
        let committed = last.batch > self.last.batch;
        self.last = last;
        Ok(if committed { LastBatch::Committed(last.total) } else { LastBatch::NotCommitted })
    }

    fn commit(&mut self, arrivals: &[SystemTime]) -> Result<u64, CommitError> {
        let Some(database) = self.database.clone() else { return Err(CommitError::NotSent("not open".to_owned())) };
        let error = match self.write(&database, arrivals) {
            Ok(last) => {
                self.last = last;
                return Ok(last.total);
            }
            Err(error) => error,
        };
        self.database = None;
        self.file.forget(&database);
        Err(match error {
            Failure::Before(error) => CommitError::Refused(error.to_string()),
            Failure::Commit(error) => CommitError::Unknown(error.to_string()),
        })
    }

    fn total(&mut self) -> Result<u64, CommitError> {
        let Some(database) = &self.database else { return Err(CommitError::NotSent("not open".to_owned())) };
        Embedded::count(database).map_err(|error| CommitError::Refused(error.to_string()))
    }

    fn check(&mut self) -> Result<(), String> {
        let current = self.file.lock().clone();
        match (&current, &self.database) {
            (Some(current), Some(mine)) if Arc::ptr_eq(current, mine) => Ok(()),
            _ => Err("another lane had to open the file again".to_owned()),
        }
    }

    fn close(&mut self) {
        self.database = None;
    }
}

/// Microseconds since 1970, the resolution PostgreSQL keeps too.
fn microseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

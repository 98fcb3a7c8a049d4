//! The ledger in one file of this process: `redb`, ACID, synced to disk at every commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    CommitError as RedbCommitError, Database, DatabaseError, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::{CommitError, LastBatch, Ledger, OpenError};

/// One row a visit: its number from 1, and its arrival in microseconds since 1970.
const VISITS: TableDefinition<'_, u64, i64> = TableDefinition::new("acessos");
/// For each lane, the number of the last batch it committed and the rows there were with it.
const BATCHES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("batches");
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
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(&self.path).map_err(|error| match error {
                // This process had it already: a lane has yet to let go of the instance that failed.
                DatabaseError::DatabaseAlreadyOpen if opened => OpenError::Again(format!("{at} is not closed yet")),
                DatabaseError::DatabaseAlreadyOpen => {
                    OpenError::Never(format!("{at} is in use by another process; give each one a DATA_DIR of its own"))
                }
                other if opened => OpenError::Again(format!("{at}: {other}")),
                other => OpenError::Never(format!("{at} cannot be used as it is: {other}")),
            })?;
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

/// One lane's client of the file.
#[derive(Debug)]
pub struct Embedded {
    file: Arc<EmbeddedFile>,
    database: Option<Arc<Database>>,
    /// Distinguishes the lanes of one run; what an earlier run left under it is cleared at the first opening.
    lane: u64,
    fresh: bool,
    /// The last batch known to be committed.
    batch: u64,
}

impl Embedded {
    /// A client of `file` for one lane.
    pub fn new(file: &Arc<EmbeddedFile>) -> Self {
        let lane = file.lanes.fetch_add(1, Ordering::Relaxed);
        Embedded { file: Arc::clone(file), database: None, lane, fresh: true, batch: 0 }
    }

    /// Creates the tables, and reads what this lane committed last.
    fn prepare(&self, database: &Database) -> Result<(u64, u64), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(VISITS)?;
        let last = {
            let mut batches = transaction.open_table(BATCHES)?;
            if self.fresh {
                batches.remove(self.lane)?;
            }
            batches.get(self.lane)?.map(|row| row.value()).unwrap_or_default()
        };
        transaction.commit()?;
        Ok(last)
    }

    fn write(&self, database: &Database, arrivals: &[SystemTime]) -> Result<u64, Failure> {
        let transaction = database.begin_write().map_err(Failure::before)?;
        let total = {
            let mut visits = transaction.open_table(VISITS).map_err(Failure::before)?;
            let mut total = visits.len().map_err(Failure::before)?;
            for arrival in arrivals {
                total += 1;
                visits.insert(total, microseconds(*arrival)).map_err(Failure::before)?;
            }
            let mut batches = transaction.open_table(BATCHES).map_err(Failure::before)?;
            batches.insert(self.lane, (self.batch + 1, total)).map_err(Failure::before)?;
            total
        };
        transaction.commit().map_err(Failure::Commit)?;
        Ok(total)
    }

    fn count(database: &Database) -> Result<u64, redb::Error> {
        use redb::ReadableDatabase;
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
        let (batch, total) = self.prepare(&database).map_err(|error| {
            self.file.forget(&database);
            OpenError::Again(format!("{}: {error}", self.file.path.display()))
        })?;
        self.database = Some(database);
        self.fresh = false;
        let committed = batch > self.batch;
        self.batch = batch;
        Ok(if committed { LastBatch::Committed(total) } else { LastBatch::NotCommitted })
    }

    fn commit(&mut self, arrivals: &[SystemTime]) -> Result<u64, CommitError> {
        let Some(database) = self.database.clone() else { return Err(CommitError::NotSent("not open".to_owned())) };
        let error = match self.write(&database, arrivals) {
            Ok(total) => {
                self.batch += 1;
                return Ok(total);
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

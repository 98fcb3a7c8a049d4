//! The file: found or created, opened, and held by one process.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableError, TableHandle};

use super::buffered::BufferedFile;
use super::history::HISTORY;
use super::moving::IMPORTS;
use super::names::{self, Known, NAME_OF, NAMED_HISTORY, NAMES};
use super::{FORMAT, FORMAT_HERE, LANES, VISITS};
use crate::visits::ledger::OpenError;

pub(super) const FILE_NAME: &str = "visitas.redb";
/// Memory that `redb` may use as cache. Commits append: more would not make them faster.
const CACHE_BYTES: usize = 1 << 20;

/// The file, shared by the lanes of this process. No other process can open it.
#[derive(Debug)]
pub struct EmbeddedFile {
    path: PathBuf,
    /// `None` before it is opened, and after an error: `redb` must then be opened anew.
    database: Mutex<Option<Arc<Database>>>,
    /// This process has had it open.
    opened: AtomicBool,
    lanes: AtomicU64,
    /// The names in the file, with their numbers.
    names: Mutex<Known>,
}

impl EmbeddedFile {
    pub fn new(folder: &Path) -> Arc<Self> {
        Arc::new(EmbeddedFile {
            path: folder.join(FILE_NAME),
            database: Mutex::default(),
            opened: AtomicBool::new(false),
            lanes: AtomicU64::new(0),
            names: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) -> Result<Arc<Database>, OpenError> {
        let mut slot = self.lock();
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        let at = self.path.display();
        let opened = self.opened.load(Ordering::Relaxed);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|error| {
            OpenError::Permanent(format!("the folder of {at} cannot be made: {error}"))
        })?;
        let refused = |error| match error {
            // A lane of this process still holds the failed instance.
            DatabaseError::DatabaseAlreadyOpen if opened => {
                OpenError::Transient(format!("{at} is not closed yet"))
            }
            DatabaseError::DatabaseAlreadyOpen => OpenError::Permanent(format!(
                "{at} is in use by another process; give each one a DATA_DIR of its own"
            )),
            other if opened || passes(&other) => OpenError::Transient(format!("{at}: {other}")),
            other => OpenError::Permanent(format!("{at} cannot be used as it is: {other}")),
        };
        create(&self.path, folder).map_err(refused)?;
        let (database, file) = open(&self.path, !opened).map_err(refused)?;
        let failed = |error: redb::Error| OpenError::Transient(format!("{at}: {error}"));
        if let Some(why) = why_not_ours(&database).map_err(failed)? {
            return Err(OpenError::Permanent(format!(
                "{at} {why}; give this one a DATA_DIR of its own"
            )));
        }
        let names = names::load(&database).map_err(failed)?;
        file.accept().map_err(|error| refused(error.into()))?;
        *self.names() = names;
        let database = Arc::new(database);
        self.opened.store(true, Ordering::Relaxed);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open instance; `None` before the first, and after an error.
    pub(super) fn current(&self) -> Option<Arc<Database>> {
        self.lock().clone()
    }

    /// The number of one more lane.
    pub(super) fn next_lane(&self) -> u64 {
        self.lanes.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn names(&self) -> MutexGuard<'_, Known> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a failed instance, so that the next [`EmbeddedFile::open`] reads the file anew.
    pub(super) fn forget(&self, broken: &Arc<Database>) {
        let mut slot = self.lock();
        if slot
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, broken))
        {
            *slot = None;
        }
    }
}

/// Opens the file, with every page checked or not. Unchecked, a damaged file would be trusted, and
/// end the process by a panic later. A check reads about 1.5 GB/s from the page cache; 10 million
/// visits are 160 MB. The file stays as it is until it is accepted.
pub(super) fn open(path: &Path, checked: bool) -> Result<(Database, BufferedFile), DatabaseError> {
    let file = BufferedFile::open(path)?;
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(checked);
    Ok((builder.create_with_backend(file.clone())?, file))
}

/// Creates the file where nothing has its name. It is written beside and moved in: a process that
/// dies in between leaves nothing that the next one would take for a damaged store. Where the folder
/// cannot be locked, the file is created in its place.
fn create(path: &Path, folder: &Path) -> Result<(), DatabaseError> {
    let new = path.with_extension("new");
    if is_there(path)? {
        // Its maker died before it removed the file's first name.
        let _ = remove(&new);
        return Ok(());
    }
    let Ok(folder) = File::open(folder) else {
        return Ok(());
    };
    match folder.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let why = "another process holds a lock on its folder";
            return Err(io::Error::new(ErrorKind::WouldBlock, why).into());
        }
        Err(TryLockError::Error(_)) => return Ok(()),
    }
    // The process that had the lock before may have created it.
    if is_there(path)? {
        return Ok(());
    }
    remove(&new)?;
    let (database, file) = open(&new, false)?;
    file.accept()?;
    drop(database);
    File::open(&new)?.sync_all()?;
    // A link takes nobody's place; not every file system has them.
    if fs::hard_link(&new, path).is_ok() || is_there(path)? {
        remove(&new)?;
    } else {
        fs::rename(&new, path)?;
    }
    // Otherwise a power failure could take the name away, and the visits with it.
    folder.sync_all()?;
    Ok(())
}

/// Removes the file, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether something has that name. An empty file, or a link to where none is yet, was put there on
/// purpose: it is filled.
fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it passes by itself: the disk is full, or a lock is held.
fn passes(error: &DatabaseError) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull, WouldBlock};
    let DatabaseError::Storage(StorageError::Io(error)) = error else {
        return false;
    };
    matches!(error.kind(), StorageFull | QuotaExceeded | WouldBlock)
}

/// What speaks against a file, said of it; `None` where this visitas can use it. A file without
/// tables can be used.
pub(super) fn why_not_ours(database: &Database) -> Result<Option<String>, redb::Error> {
    let foreign = || Ok(Some("is a store of another program".to_owned()));
    let ours = [
        FORMAT,
        VISITS,
        LANES,
        HISTORY,
        NAMES,
        NAME_OF,
        NAMED_HISTORY,
        IMPORTS,
    ];
    let transaction = database.begin_read()?;
    // First of all: a newer format may have other tables.
    if let Ok(format) = transaction.open_table(FORMAT)
        && let Some(number) = format.get(0)?
        && number.value() > FORMAT_HERE
    {
        let format = number.value();
        return Ok(Some(format!(
            "has format {format}, of a newer visitas; this one reads format {FORMAT_HERE}"
        )));
    }
    if transaction.list_multimap_tables()?.count() > 0 {
        return foreign();
    }
    for table in transaction.list_tables()? {
        let Some(known) = ours.into_iter().find(|known| known.name() == table.name()) else {
            return foreign();
        };
        match transaction.open_table(known) {
            Ok(_) => {}
            Err(
                TableError::TableTypeMismatch { .. } | TableError::TypeDefinitionChanged { .. },
            ) => return foreign(),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(None)
}

//! The store's file with buffered writes: nothing is written until the store in it is accepted.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// The file as `redb` sees it. Opening a store changes it: `redb` marks its header as in use, and
/// repairs what a crash left. These changes stay in memory until the file proves to hold a whole
/// store of ours. They are few: until then `redb` writes only the header and, when it closes a
/// refused store, the map of free pages.
#[derive(Debug, Clone)]
pub(super) struct BufferedFile {
    file: Arc<FileBackend>,
    /// The changes in order; `None` once accepted.
    pending: Arc<Mutex<Option<Vec<Change>>>>,
}

#[derive(Debug)]
enum Change {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    Length(u64),
    /// `redb` relies on the order of syncs and writes.
    Sync,
}

impl Change {
    fn make(&self, file: &FileBackend) -> io::Result<()> {
        match self {
            Change::Write { offset, bytes } => file.write(*offset, bytes),
            Change::Length(length) => file.set_len(*length),
            Change::Sync => file.sync_data(),
        }
    }
}

impl BufferedFile {
    /// The file at `path`, created empty where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(BufferedFile {
            file: Arc::new(FileBackend::new(file)?),
            pending: Arc::new(Mutex::new(Some(Vec::new()))),
        })
    }

    /// Makes the pending changes, and from now on each change at once. After an error the file
    /// looks as after a power failure, which `redb` repairs at the next opening; this instance
    /// writes nothing more.
    pub(super) fn accept(&self) -> io::Result<()> {
        let mut pending = self.lock();
        let is_new = self.file.len()? == 0;
        let mut changes = pending.iter().flatten();
        if let Err(error) = changes.try_for_each(|change| change.make(&self.file)) {
            if is_new {
                // `redb` accepts an empty file, but not one with a partial header (a full disk).
                self.file.set_len(0)?;
            }
            return Err(error);
        }
        *pending = None;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Change>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Buffers the change, or says that the caller must make it.
    fn buffers(&self, change: impl FnOnce() -> Change) -> bool {
        let mut pending = self.lock();
        if let Some(changes) = &mut *pending {
            changes.push(change());
        }
        pending.is_some()
    }

    /// Reads the file with the changes applied.
    fn read_with(&self, changes: &[Change], offset: u64, out: &mut [u8]) -> io::Result<()> {
        let asked = out.len() as u64;
        // Bytes of `out` before that offset of the file.
        let before = |place: u64| place.saturating_sub(offset).min(asked) as usize;
        let there = match length_set(changes) {
            Some(length) if offset.saturating_add(asked) > length => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Some(_) => before(self.file.len()?),
            // Asking for the file's length at every page would slow the check of a large store.
            None => out.len(),
        };
        let (there, beyond) = out.split_at_mut(there);
        self.file.read(offset, there)?;
        beyond.fill(0);
        for change in changes {
            match change {
                Change::Write {
                    offset: place,
                    bytes,
                } => {
                    let (start, end) = (before(*place), before(*place + bytes.len() as u64));
                    let skipped = offset.saturating_sub(*place).min(bytes.len() as u64) as usize;
                    out[start..end].copy_from_slice(&bytes[skipped..skipped + end - start]);
                }
                // Bytes cut off are zeros if the file grows again.
                Change::Length(length) => out[before(*length)..].fill(0),
                Change::Sync => {}
            }
        }
        Ok(())
    }
}

/// The length that the changes set.
fn length_set(changes: &[Change]) -> Option<u64> {
    changes.iter().rev().find_map(|change| match change {
        Change::Length(length) => Some(*length),
        Change::Write { .. } | Change::Sync => None,
    })
}

impl StorageBackend for BufferedFile {
    fn len(&self) -> io::Result<u64> {
        let set = self.lock().as_deref().and_then(length_set);
        set.map_or_else(|| self.file.len(), Ok)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(changes) = &*self.lock() {
            return self.read_with(changes, offset, out);
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.buffers(|| Change::Length(length)) {
            Ok(())
        } else {
            self.file.set_len(length)
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.buffers(|| Change::Sync) {
            Ok(())
        } else {
            self.file.sync_data()
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let change = || Change::Write {
            offset,
            bytes: bytes.to_vec(),
        };
        if self.buffers(change) {
            Ok(())
        } else {
            self.file.write(offset, bytes)
        }
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // The locks against other processes.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_read_before_it_is_accepted_is_what_the_file_holds_after() {
        let path = std::env::temp_dir().join(format!("visitas-buffered-{}", std::process::id()));
        let before: Vec<u8> = (1..=20).collect();
        fs::write(&path, &before).unwrap();
        let buffered = BufferedFile::open(&path).unwrap();
        let mut model = before.clone();
        // Longer and shorter, so that what was cut off is zeros; bytes at both ends, over an edge,
        // one upon the other.
        for (length, offset, bytes) in [
            (20, 0, &[90; 4][..]),
            (26, 18, &[91; 6]),
            (10, 8, &[92; 2]),
            (30, 9, &[93; 3]),
            (30, 7, &[94; 23]),
        ] {
            buffered.set_len(length as u64).unwrap();
            model.resize(length, 0);
            buffered.write(offset as u64, bytes).unwrap();
            model[offset..offset + bytes.len()].copy_from_slice(bytes);
            buffered.sync_data().unwrap();
            assert_eq!(buffered.len().unwrap(), length as u64);
            for start in 0..length {
                for end in start..=length {
                    let mut read = vec![0xFF; end - start];
                    buffered.read(start as u64, &mut read).unwrap();
                    assert_eq!(read, model[start..end], "{start}..{end} of {length}");
                }
            }
            buffered.read(length as u64, &mut [0]).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), before, "the file was changed");
        }
        buffered.accept().unwrap();
        assert_eq!(fs::read(&path).unwrap(), model);
        buffered.write(0, &[95]).unwrap();
        assert_eq!(fs::read(&path).unwrap()[0], 95, "from then on at once");
        fs::remove_file(&path).unwrap();
    }
}

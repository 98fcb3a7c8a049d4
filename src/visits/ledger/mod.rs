//! Where the rows live: one row per visit, and an exact total whose cost does not grow.

mod embedded;
mod postgres;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use embedded::{
    Embedded, EmbeddedFile, EmbeddedPruner, diagnose as diagnose_file, export as export_file,
    importer as import_file, recount as recount_file,
};
pub use postgres::{
    Address as PostgresAddress, ChannelBinding, Encryption, Host, Postgres, PostgresPruner,
    diagnose as diagnose_postgres, export as export_postgres, importer as import_postgres,
    recount as recount_postgres,
};

use super::diagnose::Check;
use super::history::Bucket;
use super::name::Name;
use crate::logging;

/// What a lane does beside a call that takes long. Called at most once; `None` where there
/// is nothing to do.
pub type Meanwhile<'a> = Option<&'a mut dyn FnMut()>;

/// One lane's client of the ledger. Its calls block the lane's thread, each within its own
/// deadline.
///
/// [`Ledger::open`] resolves a commit in doubt.
pub trait Ledger: Send {
    /// Connects anew, creates what is missing, and proves that a batch can be committed. Returns
    /// what became of the last batch where [`Ledger::commit`] could not; it cannot be committed
    /// later.
    ///
    /// # Errors
    /// When the ledger cannot be used now, or ever. The last batch is in doubt as before.
    fn open(&mut self) -> Result<LastBatch, OpenError>;

    /// In an open database, the schema with the rows; `None` for a store without schemas.
    fn schema(&self) -> Option<&str> {
        None
    }

    /// Commits one row per visit, all or none, as durably as the ledger promises. Calls
    /// `meanwhile` once the batch is sent, so that the wait for the ledger can be used.
    ///
    /// # Errors
    /// The batch may be there after [`CommitError::InDoubt`] and [`CommitError::TimedOut`]; after
    /// all others it is not and never will be. After these two and [`CommitError::Idle`] only
    /// [`Ledger::open`] may follow.
    fn commit(&mut self, visits: &Arrivals, meanwhile: Meanwhile<'_>) -> Result<Sums, CommitError>;

    /// The totals, without a new row.
    ///
    /// # Errors
    /// As [`Ledger::commit`]; nothing is added.
    fn peek(&mut self) -> Result<Totals, CommitError>;

    /// The buckets of the three series of the history that end at `now`.
    ///
    /// # Errors
    /// As [`Ledger::peek`].
    fn history(&mut self, now: SystemTime) -> Result<Vec<Bucket>, CommitError>;

    /// The totals of each of these names, and with `history` the buckets of its three series that
    /// end at that time.
    ///
    /// # Errors
    /// As [`Ledger::peek`].
    fn names(
        &mut self,
        names: &[Name],
        history: Option<SystemTime>,
    ) -> Result<Vec<(Totals, Vec<Bucket>)>, CommitError>;

    /// Up to `most` names after that one, in order, with their totals.
    ///
    /// # Errors
    /// As [`Ledger::peek`].
    fn list(&mut self, after: &str, most: usize) -> Result<Vec<(String, Totals)>, CommitError>;

    /// Cleans up after the batches so far, for a few milliseconds at most. Called after each batch;
    /// mostly there is nothing to do, and `meanwhile` is not called.
    fn maintain(&mut self, meanwhile: Meanwhile<'_>);

    /// Closes the ledger as far as it can be reached.
    fn close(&mut self);
}

/// Deletes old rows in the background. One per process, on its own thread.
pub trait Pruner: Send {
    /// Deletes some of the rows older than `keep`; the total still counts them. Says whether more
    /// of this pass is left.
    ///
    /// # Errors
    /// The reason. The next call connects anew and goes on.
    fn prune(&mut self, keep: Duration) -> Result<bool, String>;
}

/// Takes visits that move in, for one import.
pub trait Importer {
    /// Up to where earlier runs have imported the file.
    ///
    /// # Errors
    /// A sentence.
    fn reached(&mut self) -> Result<Reached, String>;

    /// Commits the visits, and in the same transaction that the file is imported up to `to`. Before
    /// it was up to line `from`.
    ///
    /// # Errors
    /// A sentence. Nothing is committed, or all of it: [`Importer::reached`] tells.
    fn add(&mut self, moved: &Moved, from: u64, to: Reached) -> Result<(), String>;
}

/// A place in a file that is imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    pub lines: u64,
    /// Of these lines.
    pub digest: u64,
}

/// Visits that move in.
#[derive(Debug, Clone, Default)]
pub struct Moved {
    /// In microseconds since 1970, more than 0; `None` where it is not known.
    pub moments: Vec<Option<i64>>,
    /// The names among them.
    pub names: Vec<NamedVisits>,
    /// The place in `names` of each visit.
    pub name_of: Vec<Option<usize>>,
}

/// Takes exported lines with their ends, and how many end there; says whether more is wanted.
pub type TakeLines<'a> = &'a mut dyn FnMut(&[u8], u64) -> bool;

/// What an export gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Visits with a row.
    pub rows: u64,
    /// Visits whose rows were deleted for their age: lines without a time.
    pub pruned: u64,
    /// What the total says of both; `None` where none is kept.
    pub total: Option<u64>,
}

/// The visits of one batch.
#[derive(Debug, Clone, Default)]
pub struct Arrivals {
    pub times: Vec<SystemTime>,
    /// The names among them, in no order; most batches have none.
    pub names: Vec<NamedVisits>,
    /// The place in `names` of each visit; empty where `names` is.
    pub name_of: Vec<Option<usize>>,
}

/// A name and its visits in a batch, at least one.
#[derive(Debug, Clone)]
pub struct NamedVisits {
    pub name: Name,
    pub visits: u64,
}

/// The totals with a batch: of all visits, and of each name in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    pub all: Totals,
    /// In the order of [`Arrivals::names`].
    pub names: Vec<Totals>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows, and rows deleted for their age.
    pub total: u64,
    /// Of the total, rows deleted for their age.
    pub pruned: u64,
}

/// What became of the batch whose commit was in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastBatch {
    /// It was not committed and never will be; or no commit was in doubt.
    NotCommitted,
    /// With the totals that include it.
    Committed(Sums),
    /// The ledger no longer knows: it was emptied, restored from a copy, or failed over without it.
    Unknown,
}

/// What a count found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows in the table.
    pub rows: i64,
    /// The total without the pruned rows.
    pub total: i64,
    /// The differing totals of names.
    pub names: Vec<NameDifference>,
    /// The differing buckets of the history.
    pub differences: Vec<Difference>,
}

/// A name of which the rows and the total differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameDifference {
    pub name: String,
    pub rows: i64,
    pub total: i64,
}

/// A bucket of the history that differs from the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Empty for the history of all visits.
    pub name: String,
    /// In seconds since 1970.
    pub start: i64,
    pub rows: i64,
    pub visits: i64,
}

impl Counted {
    pub fn agrees(&self) -> bool {
        self.rows == self.total && self.names.is_empty() && self.differences.is_empty()
    }

    pub fn check(&self) -> Check {
        if self.agrees() {
            return Check::fine(
                "the total",
                format!("{} rows, and the history agrees", self.rows),
            );
        }
        Check::warns("the total", self.to_string(), "run visitas recount")
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, the total says {}", self.rows, self.total)?;
        if let [NameDifference { name, rows, total }, ..] = &self.names[..] {
            let names = self.names.len();
            write!(
                f,
                "; {names} counters by name differ, first {}: {rows} rows, its total says {total}",
                name.escape_debug()
            )?;
        }
        if let [first, ..] = &self.differences[..] {
            let Difference { rows, visits, .. } = first;
            let (parts, start) = (self.differences.len(), rfc3339(first.start));
            write!(
                f,
                "; the history differs in {parts} places, first at {start}: \
                 {rows} rows, it says {visits}"
            )?;
        }
        Ok(())
    }
}

/// `2026-01-31T12:00:00.000Z`
fn rfc3339(start: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(start.unsigned_abs());
    if start < 0 {
        format!("{start} s before 1970")
    } else {
        logging::rfc3339(time)
    }
}

/// Why a store cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// May work later.
    Transient(String),
    /// Will not work until a person changes something.
    Permanent(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (OpenError::Transient(reason) | OpenError::Permanent(reason)) = self;
        f.write_str(reason)
    }
}

/// Why a batch was not, or may not have been, committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// Not committed, for a reason that passes: a deadlock, a serialization failure. The batch may
    /// be tried again.
    Transient(String),
    /// Not committed: the ledger would reject it again.
    Rejected(String),
    /// Not committed, and the ledger is fine: the connection was closed before anything was sent,
    /// or the ledger must be opened anew.
    Idle(String),
    /// The connection was lost in mid-command, or the answer was not clear.
    InDoubt(String),
    /// As [`CommitError::InDoubt`], but the answer did not come in time: another call may wait as
    /// long.
    TimedOut(String),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (CommitError::Transient(reason)
        | CommitError::Rejected(reason)
        | CommitError::Idle(reason)
        | CommitError::InDoubt(reason)
        | CommitError::TimedOut(reason)) = self;
        f.write_str(reason)
    }
}

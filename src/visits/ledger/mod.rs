//! Where the rows live: one row a visit, a total that is exact and costs the same whatever its
//! size.

mod embedded;
mod postgres;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use embedded::{
    Embedded, EmbeddedFile, EmbeddedPruner, diagnose as diagnose_file, recount as recount_file,
};
pub use postgres::{
    Address as PostgresAddress, Encryption, Postgres, PostgresPruner,
    diagnose as diagnose_postgres, recount as recount_postgres,
};

use super::diagnose::Check;
use super::history::Bucket;
use crate::logging;

/// One lane's client of the ledger. Its calls block, so each lane has a thread for them; every one
/// has a deadline of its own, given by the caller or the implementation.
///
/// A batch whose commit ended in doubt is resolved by [`Ledger::open`].
pub trait Ledger: Send {
    /// Connects, or connects again, creates what is missing, and proves that a batch could be
    /// committed. Tells what became of the last batch, if [`Ledger::commit`] could not: from then
    /// on nothing of it can come any more.
    ///
    /// # Errors
    /// When the ledger cannot be used now, or ever. The last batch is then as much in doubt as
    /// before.
    fn open(&mut self) -> Result<LastBatch, OpenError>;

    /// The schema of a database where the rows are, once it was opened; `None` for a store without.
    fn schema(&self) -> Option<&str> {
        None
    }

    /// Commits one row for each arrival, all or none: as durable as the ledger promises when it
    /// returns.
    ///
    /// # Errors
    /// See [`CommitError`]: after all but [`CommitError::InDoubt`] and [`CommitError::TimedOut`] no
    /// row of the batch is or will be there. After these and [`CommitError::Idle`] a successful
    /// [`Ledger::open`] must come first.
    fn commit(&mut self, arrivals: &[SystemTime]) -> Result<Totals, CommitError>;

    /// The totals, without a new row.
    ///
    /// # Errors
    /// As [`Ledger::commit`]; nothing is ever added.
    fn peek(&mut self) -> Result<Totals, CommitError>;

    /// The parts of the three series of the history that end at `now`.
    ///
    /// # Errors
    /// As [`Ledger::peek`].
    fn history(&mut self, now: SystemTime) -> Result<Vec<Bucket>, CommitError>;

    /// Tidies up behind the batches so far, a few milliseconds at most. Called after the answers of
    /// each batch; mostly there is nothing to do.
    fn maintain(&mut self);

    /// Lets the ledger go, as far as it can be reached.
    fn close(&mut self);
}

/// The ledger's own background work: deleting rows that are older than they are to be kept. One a
/// process, on a thread of its own.
pub trait Pruner: Send {
    /// Deletes some of the rows older than `keep`, and keeps their number in the total. Says
    /// whether it is to be called again soon: a pass over all rows takes many calls.
    ///
    /// # Errors
    /// The reason. The next call connects anew and goes on.
    fn prune(&mut self, keep: Duration) -> Result<bool, String>;
}

/// The numbers of the ledger at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Visits: rows that are there, and rows that were deleted for their age.
    pub total: u64,
    /// Of them, rows that were deleted for their age.
    pub pruned: u64,
}

/// What became of the batch whose commit ended in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// There is no such batch, or it was not committed and never will be.
    NotCommitted,
    /// It was committed; the totals with it.
    Committed(Totals),
    /// The ledger has lost what it knew of it: it was emptied, restored from a copy, or failed over
    /// without it.
    Unknown,
}

/// What a count found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows in the table.
    pub rows: i64,
    /// What the total says of them: the total without the pruned rows.
    pub total: i64,
    /// For each part of the history that differs: where it begins in seconds since 1970, the rows
    /// that are there, and the visits it has.
    pub differences: Vec<(i64, i64, i64)>,
}

impl Counted {
    /// Whether the totals and the history say what the rows say.
    pub fn agrees(&self) -> bool {
        self.rows == self.total && self.differences.is_empty()
    }

    /// The same as part of a diagnosis.
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
        if let [(start, rows, visits), ..] = self.differences[..] {
            let (parts, first) = (self.differences.len(), rfc3339(start));
            write!(
                f,
                "; the history differs in {parts} places, first at {first}: {rows} rows, it says {visits}"
            )?;
        }
        Ok(())
    }
}

/// `2026-01-31T12:00:00Z`, of seconds since 1970.
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
    /// It may work later.
    Transient(String),
    /// It will not, until a person changes something.
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
    /// Not committed, for a reason that passes: a deadlock, a serialization failure. The same batch
    /// may be tried again.
    Transient(String),
    /// Not committed: the ledger rejected it and would reject it again.
    Rejected(String),
    /// Not committed, and nothing is wrong with the ledger: the connection was found closed before
    /// anything was sent, or the ledger has to be opened anew.
    Idle(String),
    /// The connection was lost in mid-command, or the ledger could not tell.
    InDoubt(String),
    /// As [`CommitError::InDoubt`], but the answer did not come in time: another call may well have
    /// to wait as long.
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

//! Where the rows live: one row per visit, and an exact total whose cost does not grow.

mod embedded;
mod postgres;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use embedded::{
    Embedded, EmbeddedFile, EmbeddedPruner, diagnose as diagnose_file, recount as recount_file,
};
pub use postgres::{
    Address as PostgresAddress, ChannelBinding, Encryption, Host, Postgres, PostgresPruner, Secret,
    diagnose as diagnose_postgres, recount as recount_postgres,
};

use super::diagnose::Check;
use super::history::Bucket;
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

    /// Commits one row per arrival, all or none, as durably as the ledger promises. Calls
    /// `meanwhile` once the batch is sent, so that the wait for the ledger can be used.
    ///
    /// # Errors
    /// The batch may be there after [`CommitError::InDoubt`] and [`CommitError::TimedOut`]; after
    /// all others it is not and never will be. After these two and [`CommitError::Idle`] only
    /// [`Ledger::open`] may follow.
    fn commit(
        &mut self,
        arrivals: &[SystemTime],
        meanwhile: Meanwhile<'_>,
    ) -> Result<Totals, CommitError>;

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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows, and rows deleted for their age.
    pub total: u64,
    /// Of the total, rows deleted for their age.
    pub pruned: u64,
}

/// What became of the batch whose commit was in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// It was not committed and never will be; or no commit was in doubt.
    NotCommitted,
    /// With the totals that include it.
    Committed(Totals),
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
    /// For each differing bucket of the history: start in seconds since 1970, rows, visits.
    pub differences: Vec<(i64, i64, i64)>,
}

impl Counted {
    pub fn agrees(&self) -> bool {
        self.rows == self.total && self.differences.is_empty()
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
        if let [(start, rows, visits), ..] = self.differences[..] {
            let (parts, first) = (self.differences.len(), rfc3339(start));
            write!(
                f,
                "; the history differs in {parts} places, first at {first}: \
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

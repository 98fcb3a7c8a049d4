//! Where the rows live: one row a visit, a total that is exact and costs the same whatever its size.

mod embedded;
mod postgres;

use std::fmt;
use std::time::SystemTime;

pub use embedded::{Embedded, EmbeddedChronicle, EmbeddedFile, survey as survey_file};
pub use postgres::{Postgres, PostgresChronicle, survey as survey_postgres};

use super::history::Bucket;

/// One lane's client of the ledger. Its calls block, so each lane has a thread for them; every one has a deadline of
/// its own, given by the implementation.
pub trait Ledger: Send {
    /// Connects, or connects again, creates what is missing, and proves that a batch could be committed. Tells what
    /// became of the last batch, if [`Ledger::commit`] could not.
    ///
    /// # Errors
    /// When the ledger cannot be used now, or ever. The last batch's fate is then as unknown as before.
    fn open(&mut self) -> Result<LastBatch, OpenError>;

    /// Commits one row for each arrival, all or none, and gives the number of rows in the ledger with them.
    ///
    /// # Errors
    /// See [`CommitError`]: after all but [`CommitError::Unknown`] and [`CommitError::Silent`] no row of the batch is or
    /// will be there. After these a successful [`Ledger::open`] must come first; it says what became of the batch.
    fn commit(&mut self, arrivals: &[SystemTime]) -> Result<u64, CommitError>;

    /// The number of rows, without adding any.
    ///
    /// # Errors
    /// As [`Ledger::commit`]; nothing is ever added.
    fn total(&mut self) -> Result<u64, CommitError>;

    /// Finds out whether the connection still works.
    ///
    /// # Errors
    /// When it does not; the reason.
    fn check(&mut self) -> Result<(), String>;

    /// Lets the ledger go, as far as it can be reached.
    fn close(&mut self);
}

/// The history that a ledger keeps with its rows, in the transactions that write them. One client a process, on a thread
/// of its own; its calls block, each with a deadline of its own.
pub trait Chronicle: Send {
    /// The parts of the three series that end at `now`, and whether every row from before the history is in it.
    ///
    /// # Errors
    /// The reason. The next call connects anew.
    fn look(&mut self, now: SystemTime) -> Result<(Vec<Bucket>, bool), String>;

    /// Adds some rows from before the history to it, in one transaction. To be called until nothing is left.
    ///
    /// # Errors
    /// The reason. Nothing was added, or the step was done and its answer lost: the next call goes on from there.
    fn roll_up(&mut self) -> Result<RolledUp, String>;

    /// Lets the connection go until the next call.
    fn rest(&mut self);
}

/// How far a roll-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolledUp {
    /// There was nothing to do.
    Nothing,
    /// Rows up to that number are in the history, of those up to the other.
    UpTo {
        /// The last row added.
        row: i64,
        /// The last row there is to add.
        of: i64,
    },
    /// The last rows were added.
    Last,
}

/// What became of the batch whose commit ended with [`CommitError::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// There is no such batch, or it was not committed and never will be.
    NotCommitted,
    /// It was committed; the number of rows with it.
    Committed(u64),
    /// The ledger has lost what it knew of it: it was emptied, or restored from a copy.
    Unknown,
}

/// Why a store cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// It may work later.
    Again(String),
    /// It will not, until a person changes something.
    Never(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (OpenError::Again(reason) | OpenError::Never(reason)) = self;
        f.write_str(reason)
    }
}

/// Why a batch was not, or may not have been, committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// Not committed, for a reason that passes: a deadlock, a serialization failure. The same batch may be tried again.
    Passing(String),
    /// Not committed: the ledger refused it and would refuse it again.
    Refused(String),
    /// Not committed: the connection was found closed before anything was sent.
    NotSent(String),
    /// The connection was lost while the commit was under way.
    Unknown(String),
    /// As [`CommitError::Unknown`], but the connection was not lost: the ledger's answer did not come before the
    /// deadline, so that another call may well have to wait as long.
    Silent(String),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (CommitError::Passing(reason)
        | CommitError::Refused(reason)
        | CommitError::NotSent(reason)
        | CommitError::Unknown(reason)
        | CommitError::Silent(reason)) = self;
        f.write_str(reason)
    }
}

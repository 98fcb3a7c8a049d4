//! The counter, which a visitor sees beside the total. It may lose its number; the ledger never
//! does.

mod memory;
mod redis;

pub use memory::Memory;
pub use redis::{Address as RedisAddress, Place as RedisPlace, Redis, diagnose as diagnose_redis};

use super::ledger::{NamedVisits, OpenError};
use super::name::Name;

/// One lane's client of the counter. Its calls block, each within its own deadline.
pub trait Counter: Send {
    /// Connects anew; a new counter begins at 0.
    ///
    /// # Errors
    /// When the counter cannot be reached or written.
    fn open(&mut self) -> Result<(), OpenError>;

    /// Sends an increment by `visits`, and one for each of the names among them;
    /// [`Counter::answer`] is the next call.
    ///
    /// # Errors
    /// See [`CountError`]. After an error only [`Counter::open`] may follow, here and below.
    fn add(&mut self, visits: u64, names: &[NamedVisits]) -> Result<(), CountError>;

    /// Waits for the number that the increment led to, and that of each name; `None` where the
    /// counter of a name cannot be incremented.
    ///
    /// # Errors
    /// [`CountError::Unknown`].
    fn answer(&mut self) -> Result<Counted, CountError>;

    /// # Errors
    /// As [`Counter::add`]; nothing is added.
    fn read(&mut self) -> Result<i64, CountError>;

    /// The number of each of the names; `None` where it has none that can be read.
    ///
    /// # Errors
    /// As [`Counter::read`].
    fn read_names(&mut self, names: &[Name]) -> Result<Vec<Option<i64>>, CountError>;
}

/// The number of all visits, and that of each name.
pub type Counted = (i64, Vec<Option<i64>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountError {
    /// The connection was lost before and could not be replaced: nothing was counted.
    NotSent(String),
    /// In doubt: the visits may have been counted.
    Unknown(String),
}

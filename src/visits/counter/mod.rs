//! The counter: what a visitor sees beside the total. It may lose its memory; the ledger never
//! does.

mod memory;
mod redis;

pub use memory::Memory;
pub use redis::{Address as RedisAddress, Redis, diagnose as diagnose_redis};

use super::ledger::OpenError;

/// One lane's client of the counter. Its calls block, each with a deadline of its own.
pub trait Counter: Send {
    /// Connects, or connects again, and sees to it that the counter exists, from 0 if it is new.
    ///
    /// # Errors
    /// When the counter cannot be reached, or cannot be written to.
    fn open(&mut self) -> Result<(), OpenError>;

    /// Adds `visits` and gives the counter with them.
    ///
    /// # Errors
    /// See [`CountError`]. [`Counter::open`] must come before the next call.
    fn add(&mut self, visits: u64) -> Result<i64, CountError>;

    /// The counter as it stands.
    ///
    /// # Errors
    /// As [`Counter::add`]; nothing is ever added.
    fn read(&mut self) -> Result<i64, CountError>;
}

/// Why the counter did not answer with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountError {
    /// The connection was gone and could not be made again: nothing was counted.
    NotSent(String),
    /// The visits may have been counted or not.
    Unknown(String),
}

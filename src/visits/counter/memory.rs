//! The counter in this process, shared by all lanes. It begins at 0 at each start.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::super::ledger::OpenError;
use super::{CountError, Counter};

/// A clone shares the counter.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    shared: Arc<AtomicI64>,
    /// What the last increment led to.
    number: i64,
}

impl Counter for Memory {
    fn open(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    fn add(&mut self, visits: u64) -> Result<(), CountError> {
        let visits = visits.cast_signed();
        self.number = self.shared.fetch_add(visits, Ordering::Relaxed) + visits;
        Ok(())
    }

    fn answer(&mut self) -> Result<i64, CountError> {
        Ok(self.number)
    }

    fn read(&mut self) -> Result<i64, CountError> {
        Ok(self.shared.load(Ordering::Relaxed))
    }
}

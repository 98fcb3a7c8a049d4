//! The counter in this process, shared by all lanes. It begins at 0 at each start.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::ledger::{NamedVisits, OpenError};
use super::super::name::Name;
use super::{CountError, Counted, Counter};

/// A clone shares the counters.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    shared: Arc<AtomicI64>,
    /// As many as names are in use.
    names: Arc<Mutex<HashMap<Name, i64>>>,
    /// What the last increments led to.
    last: Counted,
}

impl Memory {
    fn names(&self) -> MutexGuard<'_, HashMap<Name, i64>> {
        // Every statement leaves the map whole.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter for Memory {
    fn open(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    fn add(&mut self, visits: u64, names: &[NamedVisits]) -> Result<(), CountError> {
        let visits = visits.cast_signed();
        self.last.0 = self.shared.fetch_add(visits, Ordering::Relaxed) + visits;
        self.last.1.clear();
        if !names.is_empty() {
            let mut all = self.names();
            let numbers = names.iter().map(|NamedVisits { name, visits }| {
                let number = all.entry(name.clone()).or_insert(0);
                *number += visits.cast_signed();
                Some(*number)
            });
            let numbers = numbers.collect();
            drop(all);
            self.last.1 = numbers;
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Counted, CountError> {
        Ok(std::mem::take(&mut self.last))
    }

    fn read(&mut self) -> Result<i64, CountError> {
        Ok(self.shared.load(Ordering::Relaxed))
    }

    fn read_names(&mut self, names: &[Name]) -> Result<Vec<Option<i64>>, CountError> {
        let all = self.names();
        let number = |name| Some(all.get(name).copied().unwrap_or(0));
        Ok(names.iter().map(number).collect())
    }
}

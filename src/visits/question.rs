//! Questions about names. A lane answers them with one statement for all that wait.

use std::sync::{Arc, OnceLock};

use super::history::History;
use super::ledger::Totals;
use super::name::Name;

/// What names stand at.
#[derive(Debug)]
pub(super) struct NamesQuestion {
    pub(super) names: Vec<Name>,
    /// Their histories too.
    pub(super) history: bool,
    /// One for each of the names, once the lane has them.
    pub(super) answer: OnceLock<Vec<Reading>>,
}

/// What one name stands at.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) totals: Totals,
    /// `None` while the counter is down.
    pub(super) cache: Option<i64>,
    /// Where the question asked for it.
    pub(super) history: Option<Arc<History>>,
}

/// Which names the ledger has.
#[derive(Debug)]
pub(super) struct ListQuestion {
    /// Names after this one.
    pub(super) after: String,
    pub(super) most: usize,
    pub(super) answer: OnceLock<Vec<(String, Totals)>>,
}

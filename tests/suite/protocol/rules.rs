//! The rules of the protocol, each of which can be left out, and the setup of a search.

use std::ops::Range;

use super::database::Batch;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// A batch in doubt is sent again under its own number, or its writer is closed first.
    SameNumber,
    /// An entry is inserted only behind its predecessor: number - 1, open, with the total that the
    /// entry builds on.
    Predecessor,
    /// A batch takes its key before it looks for the predecessor, in a later snapshot.
    KeyFirst,
    /// A closing entry has a predecessor too, and looks for it after it took its key.
    ClosingChained,
    /// A duplicate key does not prove that the earlier commit is replicated.
    SettleDuplicate,
    /// Nor does a commit whose wait for the standby was cancelled.
    SettleWarning,
    /// Nor does a hand-over whose wait was cancelled prove what it found.
    SettleHandOver,
    /// A hand-over closes the old writer.
    Fence,
    /// It closes it at the next number: the log has no holes.
    NextNumber,
    /// It closes the old writer and registers the new one in one transaction.
    OneTransaction,
    /// It moves the old writer's total into the changes.
    CarryTotal,
    /// A batch whose writer has no entry left is not sent again: nobody knows its fate.
    UnknownIsRefused,
    /// A writer is registered by one request at most.
    RegisterOnce,
    /// The number of an abandoned batch is not used for the next one.
    FreshNumber,
}

/// The setup of a search.
#[derive(Clone)]
pub(super) struct Setup {
    /// Commits wait for the standby, and a failover keeps what it confirmed. Otherwise a failover
    /// keeps any part of the WAL.
    pub(super) synchronous: bool,
    /// The batches of each lane, in order.
    pub(super) lanes: Vec<Range<Batch>>,
    /// Lanes start with a writer that is registered already.
    pub(super) registered: bool,
    /// An old primary answers after a failover, perhaps through a pooler.
    pub(super) old_primary: bool,
    /// The most faults in one run, of any kind.
    pub(super) faults: u8,
    pub(super) left_out: Option<Rule>,
}

impl Setup {
    pub(super) fn without(&self, rule: Rule) -> bool {
        self.left_out == Some(rule)
    }
}

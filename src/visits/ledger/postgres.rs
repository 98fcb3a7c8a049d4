//! The ledger in PostgreSQL: one function call a batch, exactly once across a lost connection.
//!
//! A lane has a random identity and, while it is connected, a slot: a row of `acessos_total` that no other session may
//! hold, by a session advisory lock. The slot's row carries the number of the last batch the lane committed, changed in
//! the batch's own transaction. After a lost connection the lane takes its slot again, which it can only once the old
//! session is over, and reads the number: so it knows whether the batch under way was committed. `schema.sql` has the
//! functions.

mod chronicle;
mod reach;
mod session;
mod survey;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Config;
use tokio_postgres::error::{Error, Severity, SqlState};

use super::{CommitError, LastBatch, Ledger, OpenError};
pub use chronicle::PostgresChronicle;
use reach::Way;
use session::{Failure, Identity, Session, Slot};
pub use survey::survey;

/// One lane's client of a PostgreSQL database.
pub struct Postgres {
    way: Way,
    /// The connection lives on this thread's own runtime, driven only while a call waits for it: so every call has a
    /// deadline, which the blocking client of the same library cannot give.
    runtime: Option<Runtime>,
    session: Option<Session>,
    /// A call takes no longer than this.
    deadline: Duration,
    /// This lane, among all that ever were.
    owner: i64,
    slot: Option<i32>,
    /// The last batch known to be committed, or known to be not.
    batch: i64,
}

impl Postgres {
    /// A client, not yet connected. A commit is given up after `deadline`.
    pub fn new(config: &Config, deadline: Duration) -> Self {
        Postgres {
            way: Way::new(config, deadline),
            runtime: None,
            session: None,
            deadline,
            owner: RandomState::new().hash_one("lane").cast_signed(),
            slot: None,
            batch: 0,
        }
    }

    /// Runs one statement of the session within the deadline. After anything that leaves the connection in doubt it is
    /// dropped.
    fn call<T>(&mut self, work: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>) -> Result<T, CommitError> {
        let (Some(runtime), Some(session)) = (&self.runtime, &mut self.session) else {
            return Err(CommitError::NotSent("not connected".to_owned()));
        };
        let deadline = self.deadline;
        let result = runtime.block_on(async {
            if !session.is_alive().await {
                return Err(CommitError::NotSent("the server closed the connection".to_owned()));
            }
            match tokio::time::timeout(deadline, work(session)).await {
                Ok(result) => result.map_err(classify),
                Err(_) => Err(CommitError::Silent(format!("no answer in {deadline:?}"))),
            }
        });
        if matches!(result, Err(CommitError::NotSent(_) | CommitError::Unknown(_) | CommitError::Silent(_))) {
            self.session = None;
        }
        result
    }

    /// What became of the batch after `self.batch`, from what the slot tells.
    fn last_batch(&mut self, slot: &Slot) -> LastBatch {
        let before = std::mem::replace(&mut self.batch, slot.batch);
        match slot.batch - before {
            0 => LastBatch::NotCommitted,
            1 => LastBatch::Committed(slot.seen),
            // The table was emptied or restored meanwhile: what it says is not about this batch.
            _ => LastBatch::Unknown,
        }
    }
}

impl Ledger for Postgres {
    fn open(&mut self) -> Result<LastBatch, OpenError> {
        self.session = None;
        let again = |reason: String| OpenError::Again(reason);
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => Builder::new_current_thread().enable_all().build().map_err(|error| again(error.to_string()))?,
        };
        let lane = Identity { owner: self.owner, slot: self.slot };
        let way = &mut self.way;
        let opened = runtime.block_on(async { Session::open(session::connect(way).await?, lane).await });
        self.runtime = Some(runtime);
        let (session, slot) = opened.map_err(|failure| match failure {
            Failure::Unfit(reason) => OpenError::Never(reason),
            failure => again(failure.to_string()),
        })?;
        self.session = Some(session);
        self.slot = Some(slot.slot);
        Ok(self.last_batch(&slot))
    }

    fn commit(&mut self, arrivals: &[SystemTime]) -> Result<u64, CommitError> {
        let (owner, slot, batch) = (self.owner, self.slot.unwrap_or_default(), self.batch + 1);
        let total = self.call(async |session| session.commit(slot, owner, batch, arrivals).await)?;
        self.batch = batch;
        Ok(total)
    }

    fn total(&mut self) -> Result<u64, CommitError> {
        self.call(async |session| session.total().await)
    }

    fn check(&mut self) -> Result<(), String> {
        self.total().map(drop).map_err(|error| error.to_string())
    }

    fn close(&mut self) {
        let (owner, slot) = (self.owner, self.slot.unwrap_or_default());
        if self.session.is_some() {
            // Without this the slot's last batch would be set aside for a day: untidy, and harmless.
            let _ = self.call(async |session| session.release(slot, owner).await);
        }
        self.session = None;
    }
}

/// What a failed statement means for the batch it carried.
fn classify(failure: Failure) -> CommitError {
    let Failure::Statement(error) = failure else { return CommitError::Unknown(failure.to_string()) };
    let text = session::describe(&error);
    match error.as_db_error() {
        // The server ends the session with these, and may have committed before.
        Some(db) if matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) => {
            CommitError::Unknown(text)
        }
        // PostgreSQL manual, appendix A: class 40 is transaction rollback.
        Some(db) if db.code().code().starts_with("40") => CommitError::Passing(text),
        Some(_) => CommitError::Refused(text),
        None => CommitError::Unknown(text),
    }
}

/// Whether trying again cannot help before a person acts: the existing table cannot take a visit.
fn is_unfit(error: &Error) -> bool {
    let unfit = [SqlState::NOT_NULL_VIOLATION, SqlState::WRONG_OBJECT_TYPE, SqlState::DATATYPE_MISMATCH];
    error.code().is_some_and(|code| unfit.contains(code))
}

//! The ledger in PostgreSQL: one statement per batch, exactly once, whatever happens to it.
//!
//! A lane has a *writer*: a random number under which it appends one entry per batch to
//! `visitas_log`, numbered without a gap, in the transaction that inserts the batch's rows. A
//! number is sent once. Only an answer without error or warning is a success, and only a definite
//! error is a failure. After anything else the batch is **in doubt**, and the lane hands over to a
//! new writer, in one transaction that also closes the old one:
//!
//! ```text
//!            clean answer                    closed above n: the batch is there
//!   commit ───────────────▶ committed ◀───────────────────────────┐
//!   (w, n) ── error ──────▶ not there ◀──── closed at or below n ─┤
//!          └─ otherwise ──▶ in doubt ── hand over w → w' ─────────┴── w not known: unknown
//! ```
//!
//! The closing entry takes the number after the newest, and an entry needs its predecessor open, so
//! nothing can come after it: no late message of an old session, no other try. docs/exactly-once.md
//! explains it in full; `schema.sql` has the functions.

mod address;
mod adopt;
mod client;
mod count;
mod diagnose;
mod encryption;
mod endpoints;
mod failure;
mod login;
mod moving;
mod named;
mod prune;
mod session;
mod table;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use super::{Arrivals, CommitError, LastBatch, Ledger, Meanwhile, OpenError, Sums, Totals};
use crate::visits::history::{Bucket, Step};
use crate::visits::name::Name;
pub use address::{Address, ChannelBinding, Encryption, Host};
pub use count::recount;
pub use diagnose::diagnose;
use endpoints::Endpoints;
use failure::Failure;
pub use moving::{export, importer};
pub use prune::PostgresPruner;
use session::{Committed, Session};
use writer::Writer;

/// Entries that a lane leaves in the log, for a person who looks for a cause.
const ENTRIES_KEPT: i64 = 64;
/// Entries dropped at once: about 1 ms.
const ENTRIES_DROPPED: i64 = 512;
/// Time between two foldings of changes: each one that waits costs a commit some 0.1 us.
const FOLD_INTERVAL: Duration = Duration::from_millis(250);
/// Time for maintenance, for which only the next batch waits.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(2);

/// One lane's client of a PostgreSQL database.
pub struct Postgres {
    endpoints: Endpoints,
    session: Option<Session>,
    /// A session whose statement got no answer. It is cancelled, or sessions that wait for a lock
    /// or a standby would pile up in the server.
    unanswered: Option<Session>,
    /// A call takes no longer than this.
    deadline: Duration,
    /// `None` where the next call must hand over first.
    writer: Option<Writer>,
    /// The writer to close in the next hand-over, and the number of its batch in doubt.
    old: Option<(i64, Option<i64>)>,
    /// The names in that batch.
    in_doubt: Vec<Name>,
    /// There are counters by name.
    names: bool,
    /// The new writer of a hand-over that was itself in doubt.
    stray: Option<i64>,
    /// This process has found the table once.
    opened: bool,
    upkeep: Upkeep,
}

/// What maintenance has to do.
#[derive(Debug)]
struct Upkeep {
    /// The writer's first entry that was not dropped.
    kept_from: i64,
    unfolded: bool,
    /// See [`Committed::base`].
    alone: bool,
    minute: i64,
    last: Instant,
}

impl Postgres {
    /// A commit is given up after `deadline`. With `names` there are counters by name.
    pub fn new(address: &Address, deadline: Duration, names: bool) -> Self {
        let upkeep = Upkeep {
            kept_from: 0,
            unfolded: false,
            alone: false,
            minute: 0,
            last: Instant::now(),
        };
        Postgres {
            endpoints: Endpoints::new(address, deadline),
            session: None,
            unanswered: None,
            deadline,
            writer: None,
            old: None,
            in_doubt: Vec::new(),
            names,
            stray: None,
            opened: false,
            upkeep,
        }
    }

    /// Runs one statement within `limit`. A session that did not answer, or was lost, is not used
    /// again.
    fn call<T>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, CommitError> {
        let Some(session) = &mut self.session else {
            return Err(CommitError::Idle("not connected".to_owned()));
        };
        let result = match session.client.is_alive() {
            true => session.within(limit, work).map_err(classify),
            false => Err(CommitError::Idle(Failure::Closed.to_string())),
        };
        match result {
            Err(CommitError::TimedOut(_)) => self.unanswered = self.session.take(),
            Err(CommitError::Idle(_) | CommitError::InDoubt(_)) => self.session = None,
            _ => {}
        }
        result
    }

    /// Connects, creates what is missing, and hands over to a new writer.
    fn open_session(&mut self) -> Result<LastBatch, Failure> {
        self.session = None;
        if let Some(unanswered) = self.unanswered.take() {
            unanswered.cancel();
        }
        let mut session = Session::connect(&mut self.endpoints)?;
        adopt::prepare(&mut session, self.opened, self.names)?;
        session.step(Session::prepare)?;
        session
            .step(|session| session.dry_run(random_number()))
            .map_err(adopt::unfit)?;
        let last = match session.step(|session| self.hand_over(session)) {
            Err(failure @ Failure::Slow(_)) => {
                self.unanswered = Some(session);
                return Err(failure);
            }
            other => other?,
        };
        self.session = Some(session);
        self.opened = true;
        Ok(last)
    }

    /// Closes the lane's writer and registers a new one; returns what became of the batch in doubt.
    fn hand_over(&mut self, session: &mut Session) -> Result<LastBatch, Failure> {
        if let Some(writer) = self.writer.take() {
            self.old = Some((writer.id, None));
        }
        let (old, stray) = (self.old.map(|(writer, _)| writer), self.stray);
        let new = Writer::new(random_number());
        // In doubt itself until it succeeds: a later hand-over closes this writer too.
        self.stray = Some(new.id);
        let (closed, sums) = session.hand_over(new.id, old, stray, &self.in_doubt)?;
        let last = match self.old.take() {
            Some((_, Some(number))) => match closed {
                Some(closed) if closed > number => LastBatch::Committed(sums),
                Some(_) => LastBatch::NotCommitted,
                None => LastBatch::Unknown,
            },
            _ => LastBatch::NotCommitted,
        };
        self.stray = None;
        self.in_doubt.clear();
        self.upkeep.kept_from = 0;
        self.writer = Some(new);
        Ok(last)
    }

    /// The last batch is in doubt: this writer appends no more.
    fn doubt(&mut self, visits: &Arrivals) {
        if let Some(writer) = self.writer.take() {
            let names = visits.names.iter().map(|named| named.name.clone());
            self.in_doubt = names.collect();
            self.old = Some((writer.id, Some(writer.number)));
        }
    }
}

impl Ledger for Postgres {
    fn open(&mut self) -> Result<LastBatch, OpenError> {
        self.open_session().map_err(|failure| match failure {
            Failure::Unfit(reason) => OpenError::Permanent(reason),
            failure => OpenError::Transient(failure.to_string()),
        })
    }

    fn schema(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.schema.as_str())
    }

    fn commit(&mut self, visits: &Arrivals, meanwhile: Meanwhile<'_>) -> Result<Sums, CommitError> {
        let Some(writer) = &mut self.writer else {
            return Err(CommitError::Idle("no writer".to_owned()));
        };
        let alone = self.upkeep.alone;
        let entry = writer.entry(visits, alone);
        let result = self.call(self.deadline, |session| {
            session.commit(&entry, &visits.times, alone, meanwhile)
        });
        match &result {
            Ok(Committed { unfolded, base, .. }) => {
                self.upkeep.unfolded = *unfolded;
                self.upkeep.alone = base.is_some();
                self.writer
                    .iter_mut()
                    .for_each(|writer| writer.advance(&entry));
            }
            // The number was not used: the next batch takes it.
            Err(CommitError::Transient(_) | CommitError::Rejected(_) | CommitError::Idle(_)) => {}
            Err(CommitError::InDoubt(_) | CommitError::TimedOut(_)) => self.doubt(visits),
        }
        let Committed {
            totals: all,
            named,
            base,
            ..
        } = result?;
        let names = match (&mut self.writer, &entry.named) {
            (Some(writer), Some(entry)) => writer.named.sums(entry, named.as_deref(), base),
            _ => Vec::new(),
        };
        Ok(Sums { all, names })
    }

    fn peek(&mut self) -> Result<Totals, CommitError> {
        self.call(self.deadline, |session| session.peek())
    }

    fn history(&mut self, now: SystemTime) -> Result<Vec<Bucket>, CommitError> {
        let since = Step::ALL.map(|step| step.since(now));
        self.call(self.deadline, |session| session.history(since))
    }

    fn names(
        &mut self,
        names: &[Name],
        history: Option<SystemTime>,
    ) -> Result<Vec<(Totals, Vec<Bucket>)>, CommitError> {
        let own = self.writer.as_ref();
        let own = own.map(|writer| (writer.id, writer.named.of(names)));
        let own = own.as_ref();
        let totals = self.call(self.deadline, |session| session.names(names, own))?;
        let found = totals.into_iter().map(|totals| (totals, Vec::new()));
        let mut found: Vec<(Totals, Vec<Bucket>)> = found.collect();
        if let Some(now) = history {
            let since = Step::ALL.map(|step| step.since(now));
            let parts = self.call(self.deadline, |session| {
                session.histories(names, since, own)
            })?;
            for (place, bucket) in parts {
                if let Some((_, buckets)) = found.get_mut(place) {
                    buckets.push(bucket);
                }
            }
        }
        Ok(found)
    }

    fn list(&mut self, after: &str, most: usize) -> Result<Vec<(String, Totals)>, CommitError> {
        self.call(self.deadline, |session| session.list(after, most))
    }

    fn maintain(&mut self, meanwhile: Meanwhile<'_>) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let (id, number, minute) = (writer.id, writer.number, writer.minute());
        let needed_from = writer.named.needed_from().unwrap_or(number);
        if writer.named.has_outdated() {
            let (names, numbers) = writer.named.outdated();
            // Where that fails, they go when the writer is closed.
            if let Err(error) = self.call(MAINTENANCE_TIMEOUT, |session| {
                session.trim(id, &names, &numbers, meanwhile)
            }) {
                log::debug!("old rows of names are not dropped: {error}");
            }
            return;
        }
        let Upkeep {
            kept_from,
            unfolded,
            last,
            minute: before,
            ..
        } = self.upkeep;
        self.upkeep.minute = minute;
        let drop_to = needed_from.min(number - ENTRIES_KEPT);
        let drops = drop_to - kept_from >= ENTRIES_DROPPED;
        let folds = unfolded && last.elapsed() >= FOLD_INTERVAL;
        // Once a minute for what others left: silent writers, old buckets of the history.
        let new_minute = before != 0 && minute != before;
        if !drops && !folds && !new_minute {
            return;
        }
        let (from, to) = (kept_from, drop_to.max(kept_from));
        match self.call(MAINTENANCE_TIMEOUT, |session| {
            session.maintain(id, from, to, meanwhile)
        }) {
            Ok(()) => {
                self.upkeep = Upkeep {
                    kept_from: to,
                    unfolded: false,
                    minute,
                    last: Instant::now(),
                    alone: self.upkeep.alone,
                }
            }
            // The next batch finds out what is wrong with the connection.
            Err(error) => {
                log::debug!("maintenance failed: {error}");
                self.upkeep.last = Instant::now();
            }
        }
    }

    fn close(&mut self) {
        if let (Some(Writer { id, .. }), true) = (self.writer.take(), self.session.is_some()) {
            // Otherwise another lane closes it after some minutes.
            let _ = self.call(self.deadline, |session| session.close(id));
        }
        self.session = None;
    }
}

/// 63 random bits: nobody else has the number.
fn random_number() -> i64 {
    // The standard library seeds its hashers at random.
    (RandomState::new().hash_one("writer") >> 1).cast_signed()
}

/// What a failed statement means for its batch.
fn classify(failure: Failure) -> CommitError {
    let text = failure.to_string();
    let error = match failure {
        Failure::Server(error) => error,
        Failure::Slow(_) => return CommitError::TimedOut(text),
        _ => return CommitError::InDoubt(text),
    };
    // FATAL and PANIC end the session, perhaps after the commit. A pooler that lost its server in
    // mid-commit sends its own error: of class 08, or without the routine that a server names.
    let code = error.code.as_str();
    if error.is_fatal() || code.starts_with("08") || error.routine.is_none() {
        return CommitError::InDoubt(text);
    }
    match code {
        // The writer was closed, or a failover lost its entries: the hand-over resolves it.
        "VI001" => CommitError::InDoubt(text),
        // Nothing was written; the next opening adopts the new table.
        "VI002" => CommitError::Idle(text),
        "23505" if error.constraint.as_deref() == Some("visitas_log_pkey") => {
            CommitError::InDoubt(text)
        }
        // Class 40: transaction rollback; 55P03: a lock was not available in time; 57014: somebody
        // cancelled the statement (PostgreSQL manual, appendix A).
        code if code.starts_with("40") || ["55P03", "57014"].contains(&code) => {
            CommitError::Transient(text)
        }
        _ => CommitError::Rejected(text),
    }
}

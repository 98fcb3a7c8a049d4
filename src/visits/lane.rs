//! A lane's ledger stage: takes what waits, commits it as one batch, settles what became of it, has it counted.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Refused;
use super::counting::Counting;
use super::delivery::{Outcome, deliver};
use super::footing::{Footing, Loss};
use super::health::{Health, Startup};
use super::inbox::{Inbox, Next};
use super::ledger::{CommitError, LastBatch, Ledger};
use super::stats::{Stats, add};
use super::ticket::{Batch, Ticket};

/// Time for a lost connection to be replaced while visits still queue. Making one takes PostgreSQL some 10 ms, and ten
/// times that where every core is busy; what takes much longer is an outage.
const GRACE: Duration = Duration::from_millis(500);

/// What the outside sees of a lane: its inbox, and the batches under way.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) inbox: Arc<Inbox>,
    /// Batches taken and not yet answered, kept so that [`Lane::answer_late`] reaches their tickets.
    under_way: Mutex<Vec<UnderWay>>,
    /// Since when the ledger stage replaces a lost connection, with the gate open; none while it does not.
    replacing_since: Mutex<Option<Instant>>,
    /// Stages that have not ended.
    running: Mutex<usize>,
    ended: Condvar,
}

impl Lane {
    /// A lane with two stages, not yet started, that lets `capacity` visits wait.
    pub(super) fn new(capacity: usize) -> Self {
        Lane {
            inbox: Arc::new(Inbox::new(capacity)),
            under_way: Mutex::default(),
            replacing_since: Mutex::default(),
            running: Mutex::new(2),
            ended: Condvar::new(),
        }
    }

    /// Answers every ticket whose deadline has passed: those in the queue, and those under way. Shuts the gate when a
    /// lost connection takes longer to replace than visitors are to wait for that.
    pub(super) fn answer_late(&self, now: Instant) {
        self.end_grace(now);
        let late = self.inbox.late(now);
        if !late.is_empty() {
            refuse(late, Refused::Late);
        }
        for batch in lock(&self.under_way).iter_mut() {
            batch.answer_late(now);
        }
    }

    fn end_grace(&self, now: Instant) {
        let since = lock(&self.replacing_since);
        if since.is_some_and(|since| now >= since + GRACE) {
            self.shut();
        }
    }

    /// Shuts the gate because the ledger is away, and refuses what waits.
    fn shut(&self) {
        let waiting = self.inbox.shut();
        if !waiting.is_empty() {
            refuse(waiting, Refused::LedgerAway);
        }
    }

    /// Notes that a batch is under way.
    fn begin(&self, batch: &Arc<Batch>) {
        lock(&self.under_way).push(UnderWay { batch: Arc::clone(batch), total: None, answered: 0 });
    }

    /// Notes that the batch is committed, so that a visit whose deadline passes while it is being counted is no failure.
    fn note_committed(&self, batch: &Arc<Batch>, total: u64) {
        for entry in lock(&self.under_way).iter_mut().filter(|entry| Arc::ptr_eq(&entry.batch, batch)) {
            entry.total = Some(total);
        }
    }

    /// Answers the batch and forgets it.
    pub(super) fn finish(&self, batch: &Arc<Batch>, outcome: Outcome) {
        lock(&self.under_way).retain(|entry| !Arc::ptr_eq(&entry.batch, batch));
        deliver(batch, outcome, 0..batch.tickets.len());
    }

    /// Puts the tickets of a batch that was not sent back to where they came from.
    fn put_back(&self, batch: &Arc<Batch>) {
        lock(&self.under_way).retain(|entry| !Arc::ptr_eq(&entry.batch, batch));
        self.inbox.put_back(&batch.tickets);
    }

    /// A stage has ended.
    pub(super) fn stage_ended(&self) {
        *lock(&self.running) -= 1;
        self.ended.notify_all();
    }

    /// Waits until both stages have ended, at most until `until`; says whether they have.
    pub(super) fn wait_ended(&self, until: Instant) -> bool {
        let time = until.saturating_duration_since(Instant::now());
        let waited = self.ended.wait_timeout_while(lock(&self.running), time, |running| *running > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

/// A batch that was taken from the inbox and not yet answered.
#[derive(Debug)]
struct UnderWay {
    batch: Arc<Batch>,
    /// The total with it, once it is committed.
    total: Option<u64>,
    /// How many of its tickets, from the first, were answered because their deadline had passed.
    answered: usize,
}

impl UnderWay {
    /// Answers the tickets whose deadline has passed. All tickets of a lane wait equally long, so those are the first.
    fn answer_late(&mut self, now: Instant) {
        let late = self.batch.tickets.iter().take_while(|ticket| ticket.deadline <= now).count();
        if late > self.answered {
            let outcome = match self.total {
                Some(total) => Outcome::Counted { total, cache: None },
                None => Outcome::Refused(Refused::Late),
            };
            deliver(&self.batch, outcome, self.answered..late);
            self.answered = late;
        }
    }
}

/// Answers all these tickets with a refusal.
fn refuse(tickets: Vec<Ticket>, reason: Refused) {
    let all = 0..tickets.len();
    deliver(&Arc::new(Batch { tickets }), Outcome::Refused(reason), all);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of these mutexes guards a single value that is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ledger stage, on the lane's thread.
pub(super) struct LedgerStage {
    /// Which of the lanes this is.
    pub(super) number: usize,
    pub(super) lane: Arc<Lane>,
    /// The inboxes of all lanes, to raise a doubt in.
    pub(super) all_inboxes: Arc<[Arc<Inbox>]>,
    pub(super) ledger: Box<dyn Ledger>,
    pub(super) counting: Arc<Counting>,
    pub(super) health: Arc<Health>,
    pub(super) startup: Arc<Startup>,
    pub(super) stats: Arc<Stats>,
    pub(super) footing: Footing,
}

/// Tries to commit a batch that ended with an error known to pass (a deadlock, say), before it is refused.
const MAX_TRIES: usize = 3;

impl LedgerStage {
    /// Reaches the ledger, then serves batches until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        let LedgerStage { number, lane, ledger, health, startup, .. } = &mut self;
        if startup.reach(health, *number, || ledger.open().map(drop), |time| lane.inbox.pause(time)) {
            self.startup.reached();
            self.serve();
        }
        self.ledger.close();
        self.counting.close();
        self.lane.stage_ended();
    }

    fn serve(&mut self) {
        let mut tickets = Vec::new();
        let mut arrivals = Vec::new();
        loop {
            match self.lane.inbox.take(&mut tickets) {
                Next::End => return,
                Next::Check => self.check(),
                Next::Batch => {
                    let batch = Arc::new(Batch { tickets: std::mem::take(&mut tickets) });
                    self.lane.begin(&batch);
                    self.settle(batch, &mut arrivals);
                }
            }
        }
    }

    /// Another lane found the ledger away: finds out whether this lane's connection still works.
    fn check(&mut self) {
        match self.ledger.check() {
            Ok(()) => self.lane.inbox.open(),
            Err(reason) => {
                self.reopen(Loss::Found, &reason);
            }
        }
    }

    /// Commits the batch, or finds out what became of it; answers it in every case.
    fn settle(&mut self, mut batch: Arc<Batch>, arrivals: &mut Vec<SystemTime>) {
        for tries in 1.. {
            arrivals.clear();
            arrivals.extend(batch.visits().map(|ticket| ticket.arrival));
            let began = Instant::now();
            let result = if arrivals.is_empty() { self.ledger.total() } else { self.ledger.commit(arrivals) };
            let last = match result {
                Ok(total) => return self.committed(&batch, arrivals.len(), total, began),
                Err(CommitError::Passing(_)) if tries < MAX_TRIES => LastBatch::NotCommitted,
                Err(CommitError::Passing(reason) | CommitError::Refused(reason)) => {
                    self.lane.finish(&batch, Outcome::Refused(Refused::LedgerAway));
                    self.reopen(Loss::Refused, &reason);
                    return;
                }
                Err(CommitError::NotSent(reason)) => {
                    // Those who wait for a connection wait in the queue, whose gate knows for how long.
                    self.lane.put_back(&batch);
                    let replaced = if self.footing.is_firm() { self.replace(&reason) } else { Err(reason) };
                    if let Err(reason) = replaced {
                        self.reopen(Loss::Found, &reason);
                    }
                    return;
                }
                // When the process stops before the ledger is back, nobody can tell.
                Err(CommitError::Unknown(reason)) => {
                    self.note_ambiguous(arrivals);
                    self.find_out(Loss::Broke, &reason).unwrap_or(LastBatch::Unknown)
                }
                Err(CommitError::Silent(reason)) => {
                    self.note_ambiguous(arrivals);
                    self.find_out(Loss::Silent, &reason).unwrap_or(LastBatch::Unknown)
                }
            };
            match last {
                LastBatch::Committed(total) => return self.committed(&batch, arrivals.len(), total, began),
                LastBatch::Unknown => return self.lane.finish(&batch, Outcome::Refused(Refused::Late)),
                LastBatch::NotCommitted => {}
            }
            match self.without_late(batch) {
                Some(rest) => batch = rest,
                None => return,
            }
        }
    }

    /// The batch is committed: the counter is next.
    fn committed(&mut self, batch: &Arc<Batch>, visits: usize, total: u64, began: Instant) {
        if visits > 0 {
            self.stats.committed(visits, began.elapsed());
            if self.footing.worked() {
                self.health.proven();
            }
        }
        self.lane.note_committed(batch, total);
        self.counting.count(batch, visits, total);
    }

    fn note_ambiguous(&self, arrivals: &[SystemTime]) {
        if !arrivals.is_empty() {
            add(&self.stats.ambiguous_commits, 1);
        }
    }

    /// The part of a batch that was not committed whose visitors still wait; the others are refused.
    fn without_late(&self, batch: Arc<Batch>) -> Option<Arc<Batch>> {
        let now = Instant::now();
        let late = batch.tickets.iter().take_while(|ticket| ticket.deadline <= now).count();
        if late == 0 {
            return Some(batch);
        }
        lock(&self.lane.under_way).retain(|entry| !Arc::ptr_eq(&entry.batch, &batch));
        deliver(&batch, Outcome::Refused(Refused::Late), 0..late);
        let tickets = batch.tickets[late..].to_vec();
        if tickets.is_empty() {
            return None;
        }
        let rest = Arc::new(Batch { tickets });
        self.lane.begin(&rest);
        Some(rest)
    }

    /// What became of the batch whose commit got no answer: asked over a new connection, made at once if it may be. None
    /// when the process stops before the ledger is back.
    fn find_out(&mut self, how: Loss, reason: &str) -> Option<LastBatch> {
        if how == Loss::Broke && self.footing.is_firm() {
            self.replace(reason).ok().or_else(|| self.reopen(how, reason))
        } else {
            self.reopen(how, reason)
        }
    }

    /// One try to connect again, at once: a lost connection is no outage yet. Visits queue meanwhile, for [`GRACE`].
    fn replace(&mut self, reason: &str) -> Result<LastBatch, String> {
        *lock(&self.lane.replacing_since) = Some(Instant::now());
        let opened = self.ledger.open();
        *lock(&self.lane.replacing_since) = None;
        let last = opened.map_err(|error| error.to_string())?;
        add(&self.stats.ledger_reconnects, 1);
        self.footing.opened();
        self.health.regained(reason);
        self.lane.inbox.open();
        Ok(last)
    }

    /// The ledger is away: refuses visits until it is back. None when the process stops first.
    fn reopen(&mut self, how: Loss, reason: &str) -> Option<LastBatch> {
        self.footing.lost(how);
        self.health.lost(self.number, reason);
        self.lane.shut();
        for inbox in self.all_inboxes.iter() {
            inbox.doubt();
        }
        while self.lane.inbox.pause(self.footing.wait()) {
            if let Ok(last) = self.ledger.open() {
                add(&self.stats.ledger_reconnects, 1);
                let on_trial = self.footing.opened();
                self.health.back(self.number, on_trial);
                self.lane.inbox.open();
                return Some(last);
            }
        }
        None
    }
}

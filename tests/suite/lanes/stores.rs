//! Stores that fail at planned calls, and note what must not happen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use visitas::visits::Name;
use visitas::visits::counter::{CountError, Counted, Counter};
use visitas::visits::history::Bucket;
use visitas::visits::ledger::{
    Arrivals, CommitError, LastBatch, Ledger, Meanwhile, NamedVisits, OpenError, Pruner, Sums,
    Totals,
};

use super::DEADLINE;

/// The fault of one call of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A commit fails with a transient error, other calls with a refusal.
    Transient,
    Rejected,
    Idle,
    /// The connection breaks. The next opening tells whether the batch was committed, unless it
    /// was forgotten.
    Broken {
        committed: bool,
        forgotten: bool,
    },
    /// As `Broken`, but later than any deadline.
    TimedOut {
        committed: bool,
    },
}

pub(super) const FAULTS: [Fault; 9] = [
    Fault::Transient,
    Fault::Rejected,
    Fault::Idle,
    Fault::Broken {
        committed: true,
        forgotten: false,
    },
    Fault::Broken {
        committed: false,
        forgotten: false,
    },
    Fault::Broken {
        committed: true,
        forgotten: true,
    },
    Fault::Broken {
        committed: false,
        forgotten: true,
    },
    Fault::TimedOut { committed: true },
    Fault::TimedOut { committed: false },
];

/// What the stores hold.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Each with its name.
    pub(super) rows: HashMap<SystemTime, Option<String>>,
    /// Each lane's last committed batch: its number, and the totals with it.
    pub(super) batches: HashMap<usize, (u64, Sums)>,
    pub(super) lanes: usize,
    pub(super) ledger_calls: usize,
    pub(super) ledger_plan: BTreeMap<usize, Fault>,
    pub(super) counted: u64,
    pub(super) counted_names: HashMap<String, u64>,
    pub(super) counter_calls: usize,
    /// Calls that fail, and whether their increment is executed first.
    pub(super) counter_plan: BTreeMap<usize, bool>,
    /// Violations.
    pub(super) wrong: Vec<String>,
}

#[derive(Clone, Default)]
pub(super) struct Shared(pub(super) Arc<Mutex<World>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows_of(&self, name: &str) -> u64 {
        let world = self.lock();
        let rows = world.rows.values();
        rows.filter(|row| row.as_deref() == Some(name)).count() as u64
    }

    /// The fault of the next call of the ledger.
    fn next_fault(&self) -> Option<Fault> {
        let mut world = self.lock();
        world.ledger_calls += 1;
        let call = world.ledger_calls;
        world.ledger_plan.get(&call).copied()
    }
}

pub(super) struct FakeLedger {
    world: Shared,
    lane: usize,
    connected: bool,
    /// The last batch that this lane has resolved.
    batch: u64,
    forgotten: bool,
}

impl FakeLedger {
    pub(super) fn new(world: &Shared) -> Self {
        let lane = world.lock().lanes;
        world.lock().lanes += 1;
        FakeLedger {
            world: world.clone(),
            lane,
            connected: false,
            batch: 0,
            forgotten: false,
        }
    }

    fn carry_out(&self, visits: &Arrivals) -> Sums {
        let mut world = self.world.lock();
        for (index, arrival) in visits.times.iter().enumerate() {
            let place = visits.name_of.get(index).copied().flatten();
            let name = place.map(|place| visits.names[place].name.to_string());
            if world.rows.insert(*arrival, name).is_some() {
                world
                    .wrong
                    .push(format!("the row of {arrival:?} is there twice"));
            }
        }
        let all = totals(world.rows.len() as u64);
        drop(world);
        let names = visits.names.iter();
        let names = names.map(|named| totals(self.world.rows_of(named.name.as_str())));
        let sums = Sums {
            all,
            names: names.collect(),
        };
        let batch = (self.batch + 1, sums.clone());
        self.world.lock().batches.insert(self.lane, batch);
        sums
    }

    /// The result of a call. `carry_out` is its effect, where it has one.
    fn call<T>(&mut self, carry_out: impl FnOnce(&Self) -> T) -> Result<T, CommitError> {
        if !self.connected {
            return Err(CommitError::Idle("not connected".to_owned()));
        }
        let reason = || "planned".to_owned();
        match self.world.next_fault() {
            None => Ok(carry_out(self)),
            Some(Fault::Transient) => Err(CommitError::Transient(reason())),
            Some(Fault::Rejected) => Err(CommitError::Rejected(reason())),
            Some(Fault::Idle) => {
                self.connected = false;
                Err(CommitError::Idle(reason()))
            }
            Some(Fault::Broken {
                committed,
                forgotten,
            }) => {
                self.connected = false;
                self.forgotten = forgotten;
                if committed {
                    carry_out(self);
                }
                Err(CommitError::InDoubt(reason()))
            }
            Some(Fault::TimedOut { committed }) => {
                self.connected = false;
                if committed {
                    carry_out(self);
                }
                thread::sleep(DEADLINE + DEADLINE / 2);
                Err(CommitError::TimedOut(reason()))
            }
        }
    }
}

impl Ledger for FakeLedger {
    fn open(&mut self) -> Result<LastBatch, OpenError> {
        self.connected = false;
        if self.world.next_fault().is_some() {
            return Err(OpenError::Transient("planned".to_owned()));
        }
        self.connected = true;
        let last = self.world.lock().batches.get(&self.lane).cloned();
        let (batch, sums) = last.unwrap_or_default();
        let before = std::mem::replace(&mut self.batch, batch);
        Ok(
            match (std::mem::take(&mut self.forgotten), batch > before) {
                (true, _) => LastBatch::Unknown,
                (false, true) => LastBatch::Committed(sums),
                (false, false) => LastBatch::NotCommitted,
            },
        )
    }

    fn commit(&mut self, visits: &Arrivals, meanwhile: Meanwhile<'_>) -> Result<Sums, CommitError> {
        // A store may call it before, after, or never.
        let (mut before, mut after) = (None, None);
        match self.batch % 3 {
            0 => before = meanwhile,
            1 => after = meanwhile,
            _ => {}
        }
        before.iter_mut().for_each(|meanwhile| meanwhile());
        let sums = self.call(|ledger| ledger.carry_out(visits));
        after.iter_mut().for_each(|meanwhile| meanwhile());
        let sums = sums?;
        self.batch += 1;
        Ok(sums)
    }

    fn peek(&mut self) -> Result<Totals, CommitError> {
        self.call(|ledger| totals(ledger.world.lock().rows.len() as u64))
    }

    fn history(&mut self, _now: SystemTime) -> Result<Vec<Bucket>, CommitError> {
        Ok(Vec::new())
    }

    fn names(
        &mut self,
        names: &[Name],
        _history: Option<SystemTime>,
    ) -> Result<Vec<(Totals, Vec<Bucket>)>, CommitError> {
        self.call(|ledger| {
            let of = |name: &Name| (totals(ledger.world.rows_of(name.as_str())), Vec::new());
            names.iter().map(of).collect()
        })
    }

    /// Not asked for at the start: it is no planned call.
    fn list(&mut self, _after: &str, _most: usize) -> Result<Vec<(String, Totals)>, CommitError> {
        Ok(Vec::new())
    }

    fn maintain(&mut self, _meanwhile: Meanwhile<'_>) {}

    fn close(&mut self) {
        self.connected = false;
    }
}

fn totals(total: u64) -> Totals {
    Totals { total, pruned: 0 }
}

pub(super) struct FakeCounter {
    shared: Shared,
    answer: Option<Counted>,
}

impl FakeCounter {
    pub(super) fn new(shared: Shared) -> Self {
        FakeCounter {
            shared,
            answer: None,
        }
    }
}

impl Counter for FakeCounter {
    fn open(&mut self) -> Result<(), OpenError> {
        let mut world = self.shared.lock();
        world.counter_calls += 1;
        let call = world.counter_calls;
        if world.counter_plan.contains_key(&call) {
            Err(OpenError::Transient("planned".to_owned()))
        } else {
            Ok(())
        }
    }

    fn add(&mut self, visits: u64, names: &[NamedVisits]) -> Result<(), CountError> {
        let mut world = self.shared.lock();
        world.counter_calls += 1;
        let call = world.counter_calls;
        let fault = world.counter_plan.get(&call).copied();
        if fault.unwrap_or(true) {
            world.counted += visits;
            for NamedVisits { name, visits } in names {
                *world.counted_names.entry(name.to_string()).or_insert(0) += visits;
            }
        }
        if world.counted > world.rows.len() as u64 {
            let wrong = format!("{} counted of {} rows", world.counted, world.rows.len());
            world.wrong.push(wrong);
        }
        let of_name = |named: &NamedVisits| {
            let counted = world.counted_names.get(named.name.as_str());
            counted.map(|counted| counted.cast_signed())
        };
        self.answer = fault.is_none().then(|| {
            let names = names.iter().map(of_name);
            (world.counted.cast_signed(), names.collect())
        });
        Ok(())
    }

    fn answer(&mut self) -> Result<Counted, CountError> {
        let unknown = CountError::Unknown("planned".to_owned());
        self.answer.take().ok_or(unknown)
    }

    fn read(&mut self) -> Result<i64, CountError> {
        Ok(self.shared.lock().counted.cast_signed())
    }

    fn read_names(&mut self, names: &[Name]) -> Result<Vec<Option<i64>>, CountError> {
        Ok(vec![None; names.len()])
    }
}

/// Deletes nothing.
pub(super) struct NoPruner;

impl Pruner for NoPruner {
    fn prune(&mut self, _keep: Duration) -> Result<bool, String> {
        Ok(false)
    }
}

//! The lanes against stores that fail at the Nth call, and what must be true whatever fails: no 200
//! without its row, no row twice, no increment for what was not committed, no increment twice, and
//! every wait over in time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use may::coroutine;

use visitas::visits::counter::{CountError, Counter};
use visitas::visits::history::Bucket;
use visitas::visits::ledger::{CommitError, LastBatch, Ledger, OpenError, Pruner, Totals};
use visitas::visits::{Count, Options, Refused, Stores, Visits, Waiter};

const DEADLINE: Duration = Duration::from_millis(150);
/// What the clock of these tests adds, and what a loaded machine may.
const LATE_AT_MOST: Duration = Duration::from_millis(250);
/// Runs at the same time: they mostly wait.
const AT_ONCE: usize = 24;

/// What goes wrong at one call of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A commit ends with an error that passes; other calls with a refusal.
    Transient,
    Rejected,
    Idle,
    /// The connection breaks; whether the batch was committed before is told by the next opening,
    /// or not any more.
    Broken {
        committed: bool,
        forgotten: bool,
    },
    /// As `Broken`, but it takes longer than any visitor waits.
    TimedOut {
        committed: bool,
    },
}

const FAULTS: [Fault; 9] = [
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

/// What the stores hold, over all lanes.
#[derive(Debug, Default)]
struct World {
    rows: HashSet<SystemTime>,
    /// The number of each lane's last committed batch, and the rows with it.
    batches: HashMap<usize, (u64, u64)>,
    lanes: usize,
    ledger_calls: usize,
    ledger_plan: BTreeMap<usize, Fault>,
    counted: u64,
    counter_calls: usize,
    /// Whether the increment of that call is carried out before it fails.
    counter_plan: BTreeMap<usize, bool>,
    /// What must not be.
    wrong: Vec<String>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault planned for this call of the ledger.
    fn next_fault(&self) -> Option<Fault> {
        let mut world = self.lock();
        world.ledger_calls += 1;
        let call = world.ledger_calls;
        world.ledger_plan.get(&call).copied()
    }
}

struct FakeLedger {
    world: Shared,
    lane: usize,
    connected: bool,
    /// The last batch whose fate this lane knows.
    batch: u64,
    forgotten: bool,
}

impl FakeLedger {
    fn new(world: &Shared) -> Self {
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

    fn carry_out(&self, arrivals: &[SystemTime]) -> u64 {
        let mut world = self.world.lock();
        for arrival in arrivals {
            if !world.rows.insert(*arrival) {
                world
                    .wrong
                    .push(format!("the row of {arrival:?} is there twice"));
            }
        }
        let total = world.rows.len() as u64;
        world.batches.insert(self.lane, (self.batch + 1, total));
        total
    }

    /// What a call comes to; `carry_out` is what it does where it succeeds, or seems not to.
    fn call(&mut self, carry_out: impl FnOnce(&Self) -> u64) -> Result<u64, CommitError> {
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
        let (batch, total) = self
            .world
            .lock()
            .batches
            .get(&self.lane)
            .copied()
            .unwrap_or_default();
        let before = std::mem::replace(&mut self.batch, batch);
        Ok(
            match (std::mem::take(&mut self.forgotten), batch > before) {
                (true, _) => LastBatch::Unknown,
                (false, true) => LastBatch::Committed(Totals { total, pruned: 0 }),
                (false, false) => LastBatch::NotCommitted,
            },
        )
    }

    fn commit(&mut self, arrivals: &[SystemTime]) -> Result<Totals, CommitError> {
        let total = self.call(|ledger| ledger.carry_out(arrivals))?;
        self.batch += 1;
        Ok(Totals { total, pruned: 0 })
    }

    fn peek(&mut self) -> Result<Totals, CommitError> {
        let total = self.call(|ledger| ledger.world.lock().rows.len() as u64)?;
        Ok(Totals { total, pruned: 0 })
    }

    fn history(&mut self, _now: SystemTime) -> Result<Vec<Bucket>, CommitError> {
        Ok(Vec::new())
    }

    fn maintain(&mut self) {}

    fn close(&mut self) {
        self.connected = false;
    }
}

struct FakeCounter(Shared);

impl Counter for FakeCounter {
    fn open(&mut self) -> Result<(), OpenError> {
        let mut world = self.0.lock();
        world.counter_calls += 1;
        let call = world.counter_calls;
        if world.counter_plan.contains_key(&call) {
            Err(OpenError::Transient("planned".to_owned()))
        } else {
            Ok(())
        }
    }

    fn add(&mut self, visits: u64) -> Result<i64, CountError> {
        let mut world = self.0.lock();
        world.counter_calls += 1;
        let call = world.counter_calls;
        let fault = world.counter_plan.get(&call).copied();
        if fault.unwrap_or(true) {
            world.counted += visits;
        }
        if world.counted > world.rows.len() as u64 {
            let wrong = format!("{} counted of {} rows", world.counted, world.rows.len());
            world.wrong.push(wrong);
        }
        if fault.is_some() {
            Err(CountError::Unknown("planned".to_owned()))
        } else {
            Ok(world.counted.cast_signed())
        }
    }

    fn read(&mut self) -> Result<i64, CountError> {
        Ok(self.0.lock().counted.cast_signed())
    }
}

/// Nothing is deleted here.
struct NoPruner;

impl Pruner for NoPruner {
    fn prune(&mut self, _keep: Duration) -> Result<bool, String> {
        Ok(false)
    }
}

/// One run: so many lanes, and visitors who each come so often.
#[derive(Clone, Copy)]
struct Shape {
    lanes: usize,
    visitors: usize,
    visits: usize,
}

const ONE_LANE: Shape = Shape {
    lanes: 1,
    visitors: 3,
    visits: 3,
};

type Answers = Arc<Mutex<Vec<(Result<Count, Refused>, Duration)>>>;

/// Runs the visits against that world; gives what the visitors were told, and how long each waited.
fn run(world: &Shared, shape: Shape) -> Vec<(Result<Count, Refused>, Duration)> {
    may::config().set_workers(1).set_stack_size(0x8000);
    let options = Options {
        lanes: shape.lanes,
        max_queue: 100,
        deadline: DEADLINE,
        connect_attempts: None,
        connect_interval: Duration::from_millis(1),
        keep_rows: None,
    };
    let (for_ledger, for_counter) = (world.clone(), world.clone());
    let stores = Stores {
        ledger_name: "the ledger",
        counter_name: "the counter",
        ledger: Box::new(move || Box::new(FakeLedger::new(&for_ledger))),
        counter: Box::new(move || Box::new(FakeCounter(for_counter.clone()))),
        pruner: Box::new(|| Box::new(NoPruner)),
    };
    let visits = Arc::new(Visits::start(&options, &stores, |_| ()).expect("threads"));
    while !visits.has_begun() {
        thread::sleep(Duration::from_millis(1));
    }
    let (ticking, ended) = (Arc::clone(&visits), Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&ended);
    let clock = thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            ticking.tick(Instant::now());
            thread::sleep(Duration::from_millis(10));
        }
    });
    let answers = Answers::default();
    let visitors: Vec<_> = (0..shape.visitors)
        .map(|_| visitor(&visits, shape.visits, &answers))
        .collect();
    visitors
        .into_iter()
        .for_each(|visitor| visitor.join().expect("a visitor's end"));
    // A last visitor, who comes until the ledger is back: then what was in doubt is settled.
    let end = Instant::now() + Duration::from_secs(10);
    let is_ok = || {
        answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .is_some_and(|(last, _)| last.is_ok())
    };
    loop {
        visitor(&visits, 1, &answers)
            .join()
            .expect("the last visitor's end");
        if is_ok() {
            break;
        }
        assert!(
            Instant::now() < end,
            "the ledger is back, and visits are refused"
        );
    }
    assert!(
        visits.close(Instant::now() + Duration::from_secs(5)),
        "the lanes end"
    );
    ended.store(true, Ordering::Relaxed);
    clock.join().expect("the clock's end");
    Arc::into_inner(answers)
        .expect("all visitors are gone")
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

fn visitor(visits: &Arc<Visits>, times: usize, answers: &Answers) -> coroutine::JoinHandle<()> {
    let (visits, answers) = (Arc::clone(visits), Arc::clone(answers));
    let work = move || {
        let waiter = Arc::new(Waiter::new(0));
        for _ in 0..times {
            let began = Instant::now();
            let answer = visits.visit(&waiter);
            if answer.is_err() {
                // As a visitor who was refused does not come again at once.
                coroutine::sleep(Duration::from_millis(5));
            }
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((answer, began.elapsed()));
        }
    };
    // SAFETY: the visitor keeps no thread-local value over a wait, and its stack is made for a
    // debug build's frames.
    unsafe { coroutine::Builder::new().id(0).spawn(work) }.expect("a coroutine")
}

/// What must be true after every run.
fn judge(world: &Shared, shape: Shape, answers: &[(Result<Count, Refused>, Duration)], plan: &str) {
    let world = world.lock();
    assert_eq!(world.wrong, Vec::<String>::new(), "{plan}");
    assert!(
        answers.len() > shape.visitors * shape.visits,
        "every visit is answered: {plan}"
    );
    let rows = world.rows.len();
    let ok: Vec<Count> = answers
        .iter()
        .filter_map(|(answer, _)| answer.ok())
        .collect();
    let late = answers
        .iter()
        .filter(|(answer, _)| *answer == Err(Refused::Late))
        .count();
    // Whoever is refused for any other reason has no row.
    assert!(
        (ok.len()..=ok.len() + late).contains(&rows),
        "{rows} rows, {} ok, {late} late: {plan}",
        ok.len()
    );
    assert!(
        world.counted <= rows as u64,
        "{} counted of {rows} rows: {plan}",
        world.counted
    );
    if shape.lanes == 1 {
        let totals: HashSet<u64> = ok.iter().map(|count| count.total).collect();
        assert_eq!(totals.len(), ok.len(), "a total was given twice: {plan}");
    }
    let caches: Vec<i64> = ok.iter().filter_map(|count| count.cache).collect();
    assert_eq!(
        caches.iter().collect::<HashSet<_>>().len(),
        caches.len(),
        "a cache number was given twice: {plan}"
    );
    assert!(
        ok.iter()
            .all(|count| count.total <= rows as u64 && count.cache <= Some(rows as i64)),
        "{plan}"
    );
    let longest = answers
        .iter()
        .map(|(_, waited)| *waited)
        .max()
        .unwrap_or_default();
    assert!(
        longest <= DEADLINE + LATE_AT_MOST,
        "a visitor waited {longest:?}: {plan}"
    );
    let forgets = |fault: &Fault| {
        matches!(
            fault,
            Fault::Broken {
                forgotten: true,
                ..
            }
        )
    };
    if world.counter_plan.is_empty() && !world.ledger_plan.values().any(forgets) {
        assert_eq!(
            world.counted, rows as u64,
            "what is committed is counted: {plan}"
        );
    }
}

/// Runs all these, many at a time.
fn all(runs: Vec<(World, Shape)>) {
    let runs = Arc::new(Mutex::new(runs));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let runs = Arc::clone(&runs);
            thread::spawn(move || {
                loop {
                    let Some((world, shape)) =
                        runs.lock().unwrap_or_else(PoisonError::into_inner).pop()
                    else {
                        return;
                    };
                    let plan = format!(
                        "ledger {:?}, counter {:?}",
                        world.ledger_plan, world.counter_plan
                    );
                    let world = Shared(Arc::new(Mutex::new(world)));
                    judge(&world, shape, &run(&world, shape), &plan);
                }
            })
        })
        .collect();
    let failed: Vec<_> = workers
        .into_iter()
        .filter_map(|worker| worker.join().err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} runs were wrong, see above",
        failed.len()
    );
}

fn ledger_plan(plan: impl IntoIterator<Item = (usize, Fault)>) -> World {
    World {
        ledger_plan: plan.into_iter().collect(),
        ..World::default()
    }
}

#[test]
fn the_ledger_fails_at_the_nth_call() {
    let each = |call| {
        FAULTS
            .into_iter()
            .map(move |fault| (ledger_plan([(call, fault)]), ONE_LANE))
    };
    all((1..=8).flat_map(each).collect());
}

#[test]
fn the_ledger_fails_at_two_calls_in_a_row() {
    let pairs = FAULTS
        .into_iter()
        .flat_map(|first| FAULTS.into_iter().map(move |second| (first, second)));
    let each = |call| {
        let run =
            move |(first, second)| (ledger_plan([(call, first), (call + 1, second)]), ONE_LANE);
        pairs.clone().map(run)
    };
    // After the opening, and amid the commits.
    all([2, 4].into_iter().flat_map(each).collect());
}

#[test]
fn the_ledger_fails_for_a_while() {
    let long = |fault| {
        (
            ledger_plan((3..=9).map(move |call| (call, fault))),
            ONE_LANE,
        )
    };
    all(FAULTS.into_iter().map(long).collect());
}

#[test]
fn the_counter_fails_at_the_nth_call() {
    let plan = |call, carried_out, long| {
        let counter_plan = (call..call + long)
            .map(|call| (call, carried_out))
            .collect();
        (
            World {
                counter_plan,
                ..World::default()
            },
            ONE_LANE,
        )
    };
    let each = |call| {
        [(true, 1), (false, 1), (true, 4), (false, 4)].map(|(done, long)| plan(call, done, long))
    };
    all((1..=6).flat_map(each).collect());
}

/// From 0 to `below` - 1; a generator of the xorshift family, so that a seed repeats its run.
fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % below as u64) as usize
}

#[test]
fn anything_fails_at_any_time_in_two_lanes() {
    let shape = Shape {
        lanes: 2,
        visitors: 6,
        visits: 8,
    };
    let run = |seed: u64| {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // Every fifth call or so fails, while the run lasts.
        let calls: Vec<usize> = (1..60).filter(|_| random(&mut state, 5) == 0).collect();
        let ledger_plan = calls
            .into_iter()
            .map(|call| (call, FAULTS[random(&mut state, FAULTS.len())]))
            .collect();
        let calls: Vec<usize> = (1..60).filter(|_| random(&mut state, 8) == 0).collect();
        let counter_plan = calls
            .into_iter()
            .map(|call| (call, random(&mut state, 2) == 0))
            .collect();
        (
            World {
                ledger_plan,
                counter_plan,
                ..World::default()
            },
            shape,
        )
    };
    all((1..=60).map(run).collect());
}

//! The lanes with stores that fail at the Nth call. What must hold: no 200 without its row, no row
//! twice, no increment without a commit, no increment twice, and no wait beyond the deadline.

mod stores;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use may::coroutine;

use stores::{FAULTS, FakeCounter, FakeLedger, Fault, NoPruner, Shared, World};
use visitas::visits::{Count, Options, Refused, Stores, Visits, Waiter};

const DEADLINE: Duration = Duration::from_millis(150);
/// An answer may be this late: the clock ticks, and the machine is loaded.
const LATE_AT_MOST: Duration = Duration::from_secs(1);
/// Runs at once; they mostly wait.
const AT_ONCE: usize = 24;

/// The size of a run: lanes, visitors, and visits per visitor.
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

/// The name of a visit, its answer, and how long that took.
type Answered = (Option<&'static str>, Result<Count, Refused>, Duration);
type Answers = Arc<Mutex<Vec<Answered>>>;

/// A visitor's visits are to these, one after the other.
const NAMES: [Option<&str>; 3] = [Some("a"), None, Some("b")];

/// Runs the visits; gives the answer and the wait of each.
fn run(world: &Shared, shape: Shape) -> Vec<Answered> {
    may::config().set_workers(1).set_stack_size(0x8000);
    let options = Options {
        lanes: shape.lanes,
        max_queue: 100,
        deadline: DEADLINE,
        connect_attempts: None,
        connect_interval: Duration::from_millis(1),
        keep_rows: None,
        names: "a,b".parse().expect("names"),
        max_names: 2,
    };
    let (for_ledger, for_counter) = (world.clone(), world.clone());
    let stores = Stores {
        ledger_name: "the ledger",
        counter_name: "the counter",
        ledger: Box::new(move || Box::new(FakeLedger::new(&for_ledger))),
        counter: Box::new(move || Box::new(FakeCounter::new(for_counter.clone()))),
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
        .map(|first| visitor(&visits, (first, shape.visits), &answers))
        .collect();
    visitors
        .into_iter()
        .for_each(|visitor| visitor.join().expect("a visitor's end"));
    // A last visitor comes until the ledger is up again and every batch in doubt is resolved.
    let end = Instant::now() + Duration::from_secs(60);
    let is_ok = || {
        answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .is_some_and(|(_, last, _)| last.is_ok())
    };
    loop {
        visitor(&visits, (1, 1), &answers)
            .join()
            .expect("the last visitor's end");
        if is_ok() {
            break;
        }
        assert!(
            Instant::now() < end,
            "the ledger is up and visits are refused"
        );
    }
    assert!(
        visits.close(Instant::now() + Duration::from_secs(30)),
        "the lanes end"
    );
    ended.store(true, Ordering::Relaxed);
    clock.join().expect("the clock's end");
    Arc::into_inner(answers)
        .expect("all visitors are gone")
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

fn visitor(
    visits: &Arc<Visits>,
    (first, times): (usize, usize),
    answers: &Answers,
) -> coroutine::JoinHandle<()> {
    let (visits, answers) = (Arc::clone(visits), Arc::clone(answers));
    let work = move || {
        let waiter = Arc::new(Waiter::new(0));
        for time in 0..times {
            let began = Instant::now();
            let text = NAMES[(first + time) % NAMES.len()];
            let name = text.map(|text| visits.find_name(text).expect("a name"));
            let answer = visits.visit(&waiter, name.as_ref());
            if answer.is_err() {
                // A refused visitor does not come again at once.
                coroutine::sleep(Duration::from_millis(5));
            }
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((text, answer, began.elapsed()));
        }
    };
    // SAFETY: the visitor keeps no thread-local value over a wait, and its stack is made for a
    // debug build's frames.
    unsafe { coroutine::Builder::new().id(0).spawn(work) }.expect("a coroutine")
}

/// Checks what must hold after every run.
fn judge(world: &Shared, shape: Shape, answers: &[Answered], plan: &str) {
    let world = world.lock();
    assert_eq!(world.wrong, Vec::<String>::new(), "{plan}");
    assert!(
        answers.len() > shape.visitors * shape.visits,
        "every visit is answered: {plan}"
    );
    let rows = world.rows.len();
    let ok: Vec<Count> = answers
        .iter()
        .filter_map(|(_, answer, _)| answer.ok())
        .collect();
    let late = answers
        .iter()
        .filter(|(_, answer, _)| *answer == Err(Refused::Late))
        .count();
    for text in NAMES {
        let rows = world.rows.values().filter(|name| name.as_deref() == text);
        judge_name(text, rows.count(), shape, answers, plan);
    }
    // A visit that was refused for another reason has no row.
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
    assert!(
        ok.iter()
            .all(|count| count.total <= rows as u64 && count.cache <= Some(rows as i64)),
        "{plan}"
    );
    let longest = answers
        .iter()
        .map(|(_, _, waited)| *waited)
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

/// Checks the visits to one name, or to none, of which there are so many rows.
fn judge_name(text: Option<&str>, rows: usize, shape: Shape, answers: &[Answered], plan: &str) {
    let answers = answers.iter().filter(|(name, ..)| *name == text);
    let answers: Vec<Result<Count, Refused>> = answers.map(|(_, answer, _)| *answer).collect();
    let ok: Vec<Count> = answers.iter().filter_map(|answer| answer.ok()).collect();
    let late = answers
        .iter()
        .filter(|answer| **answer == Err(Refused::Late));
    let most = ok.len() + late.count();
    assert!(
        (ok.len()..=most).contains(&rows),
        "{rows} rows of {text:?}, {} ok: {plan}",
        ok.len()
    );
    if shape.lanes == 1 {
        let totals: HashSet<u64> = ok.iter().map(|count| count.total).collect();
        assert_eq!(
            totals.len(),
            ok.len(),
            "a total of {text:?} was given twice: {plan}"
        );
    }
    let is_right = |count: &Count| text.is_none() || count.total <= rows as u64;
    assert!(ok.iter().all(is_right), "{text:?}: {plan}");
    let caches: Vec<i64> = ok.iter().filter_map(|count| count.cache).collect();
    assert_eq!(
        caches.iter().collect::<HashSet<_>>().len(),
        caches.len(),
        "a cache number of {text:?} was given twice: {plan}"
    );
}

/// Runs all of them, many at once.
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
    // After the opening, and between commits.
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

/// A pseudo-random number from 0 to `below` - 1 (xorshift), so that a seed repeats its run.
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
        // About every fifth call fails.
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

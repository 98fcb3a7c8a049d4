//! A scenario's stage: the web processes, the crowd before them, and the turns of faults and of
//! visits between them.

use std::fmt;
use std::time::{Duration, Instant};

use super::account::{Account, Rows};
use crate::support::load::Tally;
use crate::support::ports::free_port;
use crate::support::{Crowd, Load, Redis, Settings, Visitas, within};

/// What a visit may take: with it the scenarios that wait for a deadline have more than a few
/// turns.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// From the end of a fault to the next visit that is counted. Outages end within a second, but a
/// server's recovery and a whole machine full of scenarios come on top.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// How a scenario is run.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub name: &'static str,
    pub time: Duration,
    pub visitors: usize,
    /// What a visitor waits between two visits.
    pub pause: Duration,
    pub fleet: Fleet,
}

/// The web processes on one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    pub processes: usize,
    pub workers: usize,
}

impl Fleet {
    /// One worker and so one lane, in which every visit has a total and a moment of its own; two
    /// processes of two lanes each; five of one.
    pub const ALL: [Fleet; 3] = [
        Fleet {
            processes: 1,
            workers: 1,
        },
        Fleet {
            processes: 2,
            workers: 8,
        },
        Fleet {
            processes: 5,
            workers: 2,
        },
    ];

    /// Whether all visits go through one worker.
    pub fn is_single(&self) -> bool {
        self.processes == 1 && self.workers == 1
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.processes, self.workers)
    }
}

/// A scenario under way.
pub struct Play {
    pub form: Form,
    pub web: Vec<Visitas>,
    pub faults: usize,
    /// Rows that the scenario itself took away.
    pub rows_gone: u64,
    load: Load,
    began: Instant,
    /// Where each process's log was when the crowd came.
    marks: Vec<usize>,
}

impl Play {
    /// Starts the fleet and lets the crowd in.
    pub fn start(form: &Form, settings: impl Fn() -> Settings) -> Play {
        Play::begin(form, settings, true)
    }

    /// The same for a crowd that comes so often that the numbers it is told would fill the memory.
    pub fn start_without_numbers(form: &Form, settings: impl Fn() -> Settings) -> Play {
        Play::begin(form, settings, false)
    }

    fn begin(form: &Form, settings: impl Fn() -> Settings, keep_numbers: bool) -> Play {
        let launch = |process| {
            let settings = settings()
                .named(&format!("web-{process}"))
                .set("WORKERS", form.fleet.workers)
                .set("PORT", free_port());
            settings
                .set(
                    "REQUEST_TIMEOUT",
                    format!("{}ms", REQUEST_TIMEOUT.as_millis()),
                )
                .launch()
        };
        let mut web: Vec<Visitas> = (0..form.fleet.processes).map(launch).collect();
        web.iter_mut()
            .for_each(|visitas| drop(visitas.wait_ready()));
        let ports = web.iter().map(Visitas::port).collect();
        let crowd = Crowd {
            ports,
            visitors: form.visitors,
            pause: form.pause,
            keep_numbers,
        };
        let marks = web.iter().map(|visitas| visitas.stderr().mark()).collect();
        Play {
            form: *form,
            web,
            faults: 0,
            rows_gone: 0,
            load: Load::of(&crowd),
            began: Instant::now(),
            marks,
        }
    }

    /// Turn after turn, a fault that has passed when `fault` returns and visits after it, until
    /// time is up and there were `least` faults.
    pub fn run(&mut self, least: usize, mut fault: impl FnMut(&mut Play)) {
        self.visits_go_on();
        while self.began.elapsed() < self.form.time || self.faults < least {
            fault(self);
            self.faults += 1;
            self.visits_go_on();
        }
    }

    /// Waits until every process counts visits.
    pub fn visits_go_on(&self) {
        for visitas in &self.web {
            let total = || {
                let response = visitas.get("/stats");
                (response.status == 200).then(|| response.fields().total)
            };
            let mut before = None;
            within(RECOVERY_LIMIT, "visits to go on", || {
                let now = total();
                before = before.or(now);
                now.zip(before)
                    .is_some_and(|(now, before)| now > before + 5)
            });
        }
    }

    /// Kills a process as a crash does and starts it again at its port, where the crowd meanwhile
    /// finds nobody; kills it once more so long after that start, where it is to be.
    pub fn kill_web(&mut self, index: usize, once_more: Option<Duration>) {
        let mut settings = self.web.remove(index).kill();
        if let Some(after) = once_more {
            let early = settings.launch();
            last(after);
            settings = early.kill();
        }
        self.web.insert(index, settings.start());
    }

    /// Lets the crowd go and draws up the account.
    pub fn end(self, rows: &Rows<'_>, redis: Option<&Redis>) -> Account {
        self.visits_go_on();
        let Play {
            form,
            web,
            faults,
            rows_gone,
            load,
            began,
            marks,
        } = self;
        let seconds = began.elapsed().as_secs();
        let tally: Tally = load.stop();
        let log = web
            .iter()
            .zip(marks)
            .map(|(visitas, mark)| visitas.stderr().since(mark))
            .collect();
        let totals = web.iter().map(total_now).collect();
        let counted = redis.map(|redis| redis.counter().unwrap_or(0));
        let held = rows.look(&form, rows_gone, web);
        Account::new(form, seconds, faults, tally, held, totals, counted, log)
    }
}

/// The total as soon as it is told: right after the last fault a connection may still be replaced.
fn total_now(visitas: &Visitas) -> u64 {
    let mut total = None;
    within(RECOVERY_LIMIT, "the total", || {
        let response = visitas.get("/stats");
        total = (response.status == 200).then(|| response.fields().total);
        total.is_some()
    });
    total.expect("as awaited")
}

/// A different number at each call, from 0 to `below` - 1, for whatever is to happen at no
/// particular time or place.
pub fn any(below: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % below
}

/// Lets a fault last that long. Nothing is waited for: the time itself is the fault.
pub fn last(time: Duration) {
    std::thread::sleep(time);
}

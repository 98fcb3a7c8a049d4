//! One run of a scenario: its processes, its clients with visits of every form, and faults with
//! visits between them.

use std::fmt;
use std::time::{Duration, Instant};

use super::report::{Report, Store};
use crate::support::audit::Duplicates;
use crate::support::load::Outcomes;
use crate::support::names::redis_by_name;
use crate::support::ports::free_port;
use crate::support::{Clients, Form, Load, Redis, Settings, Visitas};

/// A visit's deadline. It is short so that scenarios that wait for it get several faults.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// From the end of a fault to the next counted visit. An outage ends within a second; a server's
/// recovery and seven other scenarios on the machine take the rest.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// How a scenario runs.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    pub name: &'static str,
    pub time: Duration,
    pub clients: usize,
    /// A client's pause between two visits.
    pub pause: Duration,
    pub topology: Topology,
}

/// The processes over one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    pub processes: usize,
    pub workers: usize,
}

impl Topology {
    /// One worker, where every visit has its own total and moment; two processes of two lanes; five
    /// processes of one lane.
    pub const ALL: [Topology; 3] = [
        Topology {
            processes: 1,
            workers: 1,
        },
        Topology {
            processes: 2,
            workers: 16,
        },
        Topology {
            processes: 5,
            workers: 2,
        },
    ];

    /// How duplicates are found in it.
    pub fn duplicates(&self) -> Duplicates {
        if self.processes == 1 && self.workers == 1 {
            Duplicates::OneWorker
        } else {
            Duplicates::NamedProcesses
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.processes, self.workers)
    }
}

/// What clients visit in turn: each form, and two counters by name.
const FORMS: &[Form] = &[
    Form::Json,
    Form::Page,
    Form::Name("a"),
    Form::Picture,
    Form::Name("b.c"),
    Form::Beacon,
    Form::Name("a"),
];

pub struct Run {
    pub parameters: Parameters,
    pub web: Vec<Visitas>,
    pub faults: usize,
    /// Rows that the scenario itself deleted.
    pub rows_gone: u64,
    load: Load,
    began: Instant,
    /// The length of each process's log when the clients came.
    marks: Vec<usize>,
}

impl Run {
    /// Starts the processes and the clients.
    pub fn start(parameters: &Parameters, settings: impl Fn() -> Settings) -> Run {
        Run::begin(parameters, settings, true)
    }

    /// As [`Run::start`], for more visits than the memory can hold numbers of.
    pub fn start_without_counts(parameters: &Parameters, settings: impl Fn() -> Settings) -> Run {
        Run::begin(parameters, settings, false)
    }

    fn begin(parameters: &Parameters, settings: impl Fn() -> Settings, keep_counts: bool) -> Run {
        let launch = |process| {
            settings()
                .named(&format!("web-{process}"))
                .set("WORKERS", parameters.topology.workers)
                .set("COUNTERS", "a,b.c")
                .set("PORT", free_port())
                .duration("REQUEST_TIMEOUT", REQUEST_TIMEOUT)
                .launch()
        };
        let mut web: Vec<Visitas> = (0..parameters.topology.processes).map(launch).collect();
        web.iter_mut()
            .for_each(|visitas| drop(visitas.wait_ready()));
        let clients = Clients {
            ports: web.iter().map(Visitas::port).collect(),
            count: parameters.clients,
            pause: parameters.pause,
            keep_counts,
        };
        let marks = web.iter().map(|visitas| visitas.stderr().mark()).collect();
        Run {
            parameters: *parameters,
            web,
            faults: 0,
            rows_gone: 0,
            load: Load::of_forms(&clients, FORMS),
            began: Instant::now(),
            marks,
        }
    }

    /// Calls `fault` and waits for visits, again and again, until time is up and there were `least`
    /// faults. A fault is over when `fault` returns.
    pub fn repeat(&mut self, least: usize, mut fault: impl FnMut(&mut Run)) {
        self.wait_for_visits();
        while self.began.elapsed() < self.parameters.time || self.faults < least {
            fault(self);
            self.faults += 1;
            self.wait_for_visits();
        }
    }

    /// Waits until every process counts visits.
    pub fn wait_for_visits(&self) {
        for visitas in &self.web {
            visitas.wait_for_visits(5, RECOVERY_LIMIT);
        }
    }

    /// Kills a process and starts it again at its port; nobody listens there in between. With
    /// `once_more` it is killed again that long after its start.
    pub fn kill_web(&mut self, index: usize, once_more: Option<Duration>) {
        let mut settings = self.web.remove(index).kill();
        if let Some(after) = once_more {
            let early = settings.launch();
            last(after);
            settings = early.kill();
        }
        self.web.insert(index, settings.start());
    }

    /// Stops the clients and reports.
    pub fn end(self, store: &Store<'_>, redis: Option<&Redis>) -> Report {
        self.wait_for_visits();
        let seconds = self.began.elapsed().as_secs();
        let outcomes: Outcomes = self.load.stop();
        let logs = self.web.iter().zip(self.marks);
        let log = logs
            .map(|(visitas, mark)| visitas.stderr().since(mark))
            .collect();
        let totals = self.web.iter();
        let totals = totals.map(|web| web.total_within(RECOVERY_LIMIT)).collect();
        Report {
            parameters: self.parameters,
            seconds,
            faults: self.faults,
            outcomes,
            totals,
            redis: redis.map(|redis| redis.counter().unwrap_or(0)),
            redis_names: redis.map(|redis| {
                let names = ["a", "b.c"].map(str::to_owned);
                redis_by_name(redis, names.iter())
            }),
            log,
            stored: store.read(&self.parameters, self.rows_gone, self.web),
            allow: super::report::Allow::default(),
        }
    }
}

/// A random number from 0 to `below` - 1.
pub fn any(below: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % below
}

/// Lets a fault last that long. The time itself is the fault; nothing is awaited.
pub fn last(time: Duration) {
    std::thread::sleep(time);
}

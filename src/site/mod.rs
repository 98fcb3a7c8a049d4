//! What a visitor gets: routes, the page, JSON, badges, events, health, metrics. It joins `http`
//! and `visits`.

mod assets;
mod badge;
mod chart;
mod cors;
mod drawn;
mod events;
mod fields;
mod history;
mod history_page;
mod locale;
mod measures;
mod metrics;
mod named;
mod negotiation;
mod ops;
mod outage;
mod page;
mod picture;
mod process;
mod query;
mod rate_limit;
mod refusal;
mod routes;
mod text;
mod visit;
mod words;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::{self, Answer, Answered, Plan, Request, Service, Status};
use crate::visits::{Count, Refused, StoreState, Visits, Waiter};
use events::Events;
use measures::Measures;
use named::Named;
pub use ops::Ops;
use page::Page;
use process::Process;
use rate_limit::RateLimit;
use refusal::refuse_reading;
use routes::{Fixed, Routes, Scope, Task};
use visit::Form;
use words::Words;

/// Everything that answers a request.
#[derive(Debug)]
pub struct Site {
    visits: Arc<Visits>,
    front: Arc<http::Stats>,
    page: Page,
    events: Events,
    named: Named,
    names: StoreNames,
    settings: Settings,
    routes: Routes,
    rate_limit: Option<RateLimit>,
    measures: Measures,
    /// `/metrics` was scraped, so its numbers must be read anew.
    count_wanted: AtomicBool,
    draining: AtomicBool,
    started: Instant,
    process: Mutex<Process>,
}

/// The site's own settings, and the limits that `/metrics` shows.
#[derive(Debug, Clone)]
pub struct Settings {
    pub workers: usize,
    /// What every path begins with; empty, or `/visits`.
    pub base_path: String,
    /// Visits that one address may make, and in what time.
    pub visits_per_client: Option<(u32, Duration)>,
    /// `/livez`, `/readyz` and `/metrics` are on another port.
    pub ops_apart: bool,
    pub max_connections: usize,
    pub max_queue: usize,
    pub max_held: usize,
}

/// What a connection keeps: where it waits for its numbers.
#[derive(Debug)]
pub struct Session {
    waiter: Arc<Waiter>,
    worker: usize,
}

/// How the page names the stores.
#[derive(Debug, Clone, Copy)]
pub struct StoreNames {
    /// Such as `PostgreSQL`.
    pub ledger: &'static str,
    /// Such as `Redis`; `None` when the counter is in this process.
    pub counter: Option<&'static str>,
}

impl StoreNames {
    fn has_database(self) -> bool {
        self.ledger == "PostgreSQL"
    }

    fn ledger_shown(self, words: &Words) -> &'static str {
        if self.has_database() {
            self.ledger
        } else {
            words.file
        }
    }
}

impl Site {
    /// `front` is what the HTTP server counts, for `/metrics`.
    pub fn new(
        visits: Arc<Visits>,
        front: Arc<http::Stats>,
        names: StoreNames,
        settings: Settings,
    ) -> Site {
        let rate_limit = settings
            .visits_per_client
            .map(|(visits, time)| RateLimit::new(visits, time));
        let routes = Routes {
            base: settings.base_path.clone(),
            ops_apart: settings.ops_apart,
            named: visits.has_names(),
        };
        Site {
            visits,
            front,
            page: Page::new(names, &settings.base_path),
            events: Events::new(settings.workers),
            named: Named::default(),
            names,
            rate_limit,
            routes,
            measures: Measures::new(settings.workers),
            count_wanted: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            process: Mutex::new(Process::now()),
            settings,
        }
    }

    /// Reads what the system says of this process, for `/metrics`. It may block: call it on no
    /// worker, about once a second.
    pub fn measure(&self) {
        let process = Process::now();
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    /// From now on the site says that it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn is_ready(&self) -> bool {
        !self.is_draining() && self.visits.is_ready()
    }

    fn peek(&self, session: &Session, scope: &Scope) -> Result<Count, Refused> {
        if let Scope::Name(name) = scope {
            return self.peek_name(&session.waiter, name);
        }
        self.visits.peek(&session.waiter)
    }

    /// The last numbers known; `None` before the first.
    fn last_count(&self, scope: &Scope) -> Option<Count> {
        match scope {
            Scope::All => self.visits.last_count(),
            Scope::Name(name) => self.named.last_count(name),
        }
    }

    fn stats(&self, session: &Session, scope: &Scope, answer: Answer<'_>) -> Answered {
        let count = match self.peek(session, scope) {
            Ok(count) => count,
            Err(reason) => return refuse_reading(reason, answer),
        };
        let mut body = String::with_capacity(256);
        write_count(&mut body, count);
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            ",\"pruned\":{},\"ledger\":\"{}\",\"counter\":\"{}\",\"queued\":{},\
             \"connections\":{},\"uptime_seconds\":{},\"version\":\"{}\"}}",
            count.pruned,
            self.names.ledger,
            self.names.counter.unwrap_or("in process"),
            self.visits.queued(),
            self.front.open.load(Ordering::Relaxed),
            self.started.elapsed().as_secs(),
            env!("CARGO_PKG_VERSION"),
        );
        answer.send(Status::Ok, fields::JSON, body.as_bytes())
    }

    fn readyz(&self, verbose: bool, answer: Answer<'_>) -> Answered {
        let mut body = String::new();
        if verbose {
            for (name, state) in self.visits.store_states() {
                let state = match state {
                    StoreState::Starting => "not reached yet",
                    StoreState::Up => "up",
                    StoreState::Down => "down",
                };
                let _ = writeln!(body, "{name}: {state}");
            }
        }
        let (status, line) = if self.is_ready() {
            (Status::Ok, "ready\n")
        } else if self.is_draining() {
            (Status::ServiceUnavailable, "not ready: stopping\n")
        } else {
            (Status::ServiceUnavailable, "not ready\n")
        };
        body.push_str(line);
        answer.send(status, fields::TEXT, body.as_bytes())
    }
}

impl Service for Site {
    type Session = Session;
    type Task = Task;

    fn session(&self, worker: usize) -> Session {
        Session {
            waiter: Arc::new(Waiter::new(worker)),
            worker,
        }
    }

    fn plan(&self, request: &Request<'_>, client: IpAddr) -> Plan<Task> {
        let find = |text: &str| self.visits.find_name(text);
        self.routes.task(request, client, &find).plan()
    }

    fn perform(&self, session: &mut Session, task: Task, answer: Answer<'_>) -> Answered {
        match task {
            Task::Visit(scope, form, client) => {
                self.visit(session, &scope, (&form, client), answer)
            }
            Task::Prefetch(scope, Form::Picture(badge)) => {
                let status = (Status::ServiceUnavailable, None);
                self.last_known(&scope, &badge, status, answer)
            }
            Task::Prefetch(..) => fixed(routes::PREFETCH, answer),
            Task::Head(scope, form) => self.head(&scope, &form, answer),
            Task::Stats(scope) => self.stats(session, &scope, answer),
            Task::Livez => answer.send(Status::Ok, fields::TEXT, b"ok\n"),
            Task::Readyz { verbose } => self.readyz(verbose, answer),
            Task::Metrics => {
                let body = self.metrics();
                answer.send(Status::Ok, fields::METRICS, body.as_bytes())
            }
            Task::History(scope, request) => self.history(&session.waiter, &scope, request, answer),
            Task::HistoryPage(scope, language) => {
                self.history_page(&session.waiter, &scope, language, answer)
            }
            Task::Events(scope) => self.follow_events(session, &scope, answer),
            Task::Badge(scope, request) => self.badge(session, &scope, &request, answer),
            Task::Counters(request) => self.counters(session, &request, answer),
            Task::Preflight => answer.send_head(Status::NoContent, fields::PREFLIGHT),
            Task::BeaconPreflight(origin) => {
                answer.send_head(Status::NoContent, &origin.preflight_fields())
            }
            Task::Fixed(response) => fixed(response, answer),
        }
    }
}

fn fixed(response: Fixed, answer: Answer<'_>) -> Answered {
    answer.send(response.status, response.fields, response.body)
}

/// Appends `{"total":N,"cache":M`; the caller closes it.
fn write_count(body: &mut String, count: Count) {
    let mut digits = itoa::Buffer::new();
    body.push_str("{\"total\":");
    body.push_str(digits.format(count.total));
    body.push_str(",\"cache\":");
    body.push_str(count.cache.map_or("null", |cache| digits.format(cache)));
}

//! What a visitor gets: routes, the page, JSON, badges, events, health, metrics. It joins `http`
//! and `visits`.

mod assets;
mod badge;
mod chart;
mod events;
mod fields;
mod history;
mod measures;
mod metrics;
mod negotiation;
mod ops;
mod outage;
mod page;
mod process;
mod query;
mod rate_limit;
mod refusal;
mod routes;
mod text;
mod words;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::http::{self, Answer, Answered, Plan, Request, Service, Status};
use crate::visits::{Count, Refused, StoreState, Visits, Waiter};
use events::Events;
use measures::{Measures, Reason};
use negotiation::{Format, Language};
pub use ops::Ops;
use page::Page;
use process::Process;
use rate_limit::RateLimit;
use refusal::{refuse, too_many};
use routes::{Fixed, Task};
use words::Words;

/// How long a page waits for a new reading of the history where the last one is old. Then it shows
/// the old one.
const CHART_WAIT: Duration = Duration::from_millis(200);

/// Seconds after which the page of an outage tries again.
const TRY_AGAIN_S: u64 = 5;
/// The path before every route, in links.
const BASE: &str = "";

/// Everything that answers a request.
#[derive(Debug)]
pub struct Site {
    visits: Arc<Visits>,
    front: Arc<http::Stats>,
    page: Page,
    events: Events,
    names: StoreNames,
    settings: Settings,
    rate_limit: Option<RateLimit>,
    measures: Measures,
    /// `/metrics` was scraped, so its numbers must be read anew.
    count_wanted: AtomicBool,
    draining: AtomicBool,
    started: Instant,
    process: Mutex<Process>,
}

/// The site's own settings, and the limits that `/metrics` shows.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub workers: usize,
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
        Site {
            visits,
            front,
            page: Page::new(names),
            events: Events::new(settings.workers),
            names,
            settings,
            rate_limit,
            measures: Measures::new(settings.workers),
            count_wanted: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            process: Mutex::new(Process::now()),
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

    fn peek(&self, session: &Session) -> Result<Count, Refused> {
        let count = self.visits.peek(&session.waiter)?;
        self.measures
            .counted(session.worker, count, clock::monotonic_ms());
        Ok(count)
    }

    fn visit(
        &self,
        session: &Session,
        (format, language): (Format, Language),
        client: IpAddr,
        answer: Answer<'_>,
    ) -> Answered {
        if let Some(limit) = &self.rate_limit
            && let Err(time) = limit.take(client, clock::monotonic_ms())
        {
            self.measures.refused(Reason::Rate);
            return self.limit_visit(time, (format, language), answer);
        }
        let arrived = Instant::now();
        let count = match self.visits.visit(&session.waiter) {
            Ok(count) => count,
            Err(reason) => {
                self.measures.refused(Reason::Visits(reason));
                return self.refuse_visit(reason, (format, language), answer);
            }
        };
        let took = arrived.elapsed();
        self.measures
            .visited(session.worker, took, count, clock::monotonic_ms());
        match format {
            Format::Json => {
                let mut body = String::with_capacity(64);
                write_count(&mut body, count);
                body.push('}');
                answer.send(Status::Ok, fields::VISIT_JSON, body.as_bytes())
            }
            Format::Html | Format::Text => {
                let reading = self.recent_reading(&session.waiter);
                let header = self.page.fields(language);
                self.page.render(
                    (language, BASE),
                    count,
                    reading,
                    || self.visits.last_history(),
                    |parts| answer.send_parts(Status::Ok, header, parts),
                )
            }
        }
    }

    /// Answers a visit, or a look ahead of one, that gets no numbers. A process that stops says so,
    /// whatever else is amiss: another one is about to take its place.
    fn refuse_visit(
        &self,
        reason: Refused,
        (format, language): (Format, Language),
        answer: Answer<'_>,
    ) -> Answered {
        let reason = if self.is_draining() {
            Refused::Closing
        } else {
            reason
        };
        match format {
            Format::Html => self.outage(Reason::Visits(reason), TRY_AGAIN_S, language, answer),
            Format::Json | Format::Text => refuse(reason, format, answer),
        }
    }

    /// Answers a visit from an address that has made too many.
    fn limit_visit(
        &self,
        time: Duration,
        (format, language): (Format, Language),
        answer: Answer<'_>,
    ) -> Answered {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        match format {
            Format::Html => self.outage(Reason::Rate, seconds, language, answer),
            Format::Json | Format::Text => too_many(seconds, format, answer),
        }
    }

    /// The number of the last reading of the history. Where that is old, it waits a moment for a
    /// new one.
    fn recent_reading(&self, waiter: &Arc<Waiter>) -> u64 {
        match self.visits.last_reading() {
            (reading, true) => reading,
            (reading, false) => self
                .visits
                .read_history(waiter, CHART_WAIT)
                .map_or(reading, |_| self.visits.last_reading().0),
        }
    }

    /// What `GET /` would answer, without its numbers.
    fn head(&self, format: Format, language: Language, answer: Answer<'_>) -> Answered {
        if !self.is_ready() {
            let reason = if self.visits.has_begun() {
                Refused::LedgerDown
            } else {
                Refused::Starting
            };
            return self.refuse_visit(reason, (format, language), answer);
        }
        let header = match format {
            Format::Json => fields::VISIT_JSON,
            Format::Html | Format::Text => self.page.fields(language),
        };
        answer.send_head(Status::Ok, header)
    }

    fn stats(&self, session: &Session, answer: Answer<'_>) -> Answered {
        let count = match self.peek(session) {
            Ok(count) => count,
            Err(reason) => return refuse(reason, Format::Json, answer),
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
        let task = if self.settings.ops_apart && routes::is_ops(request.path()) {
            routes::not_found()
        } else {
            routes::task(request, client)
        };
        task.plan()
    }

    fn perform(&self, session: &mut Session, task: Task, answer: Answer<'_>) -> Answered {
        match task {
            Task::Visit(format, language, client) => {
                self.visit(session, (format, language), client, answer)
            }
            Task::Prefetch => fixed(routes::PREFETCH, answer),
            Task::Head(format, language) => self.head(format, language, answer),
            Task::Stats => self.stats(session, answer),
            Task::Livez => answer.send(Status::Ok, fields::TEXT, b"ok\n"),
            Task::Readyz { verbose } => self.readyz(verbose, answer),
            Task::Metrics => {
                let body = self.metrics();
                answer.send(Status::Ok, fields::METRICS, body.as_bytes())
            }
            Task::History(request) => self.history(&session.waiter, request, answer),
            Task::Events => self.follow_events(session, answer),
            Task::Badge(request) => self.badge(session, &request, answer),
            Task::Preflight => answer.send_head(Status::NoContent, fields::PREFLIGHT),
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

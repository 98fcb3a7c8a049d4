//! What a visitor gets: routes, the page, JSON, health, metrics. It joins the front door with the
//! visits.

mod badge;
mod brake;
mod chart;
mod events;
mod history;
mod measures;
mod metrics;
mod negotiation;
mod ops;
mod page;
mod process;
mod query;
mod routes;
mod text;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::http::{self, Answer, Kind, Request, Service, Status};
use crate::visits::history::Step;
use crate::visits::{Count, Refused, StoreState, Visits, Waiter};
use brake::Brake;
use events::Events;
use measures::{Measures, Why};
use metrics::Facts;
use negotiation::{Format, Language};
pub use ops::Ops;
use page::Page;
use process::Process;
use routes::{BadgeAsked, Small, Task};

/// Seconds after which a refused visitor may try again.
const RETRY_AFTER_S: u8 = 1;

/// How long a page waits for a new look at the history, when the last one is old; then it shows the
/// old one.
const CHART_WAIT: Duration = Duration::from_millis(200);
/// The same for who asks for nothing but the history.
const HISTORY_WAIT: Duration = Duration::from_secs(4);

/// The site: everything that answers a request.
#[derive(Debug)]
pub struct Site {
    visits: Arc<Visits>,
    front: Arc<http::Stats>,
    page: Page,
    events: Events,
    names: StoreNames,
    settings: Settings,
    brake: Option<Brake>,
    measures: Measures,
    /// `/metrics` was asked for, and the numbers in it may be old.
    count_wanted: AtomicBool,
    draining: AtomicBool,
    started: Instant,
    process: Mutex<Process>,
}

/// What the site is to do, and the limits that `/metrics` tells.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Coroutine workers.
    pub workers: usize,
    /// Visits that one address may make, and in what time.
    pub visits_per_client: Option<(u32, Duration)>,
    /// What those who run the process are told is on another port.
    pub ops_apart: bool,
    /// Connections that are served at most.
    pub max_connections: usize,
    /// Visits that may wait for a commit.
    pub max_queue: usize,
    /// Bytes that connections may hold while they wait.
    pub max_held: usize,
}

/// Where a connection waits for its numbers.
#[derive(Debug)]
pub struct Waiting {
    waiter: Arc<Waiter>,
    worker: usize,
}

/// How the page calls the two stores.
#[derive(Debug, Clone, Copy)]
pub struct StoreNames {
    /// The ledger, such as `PostgreSQL`.
    pub ledger: &'static str,
    /// The counter, such as `Redis`; none when it is in this process.
    pub counter: Option<&'static str>,
}

impl Site {
    /// The site over these visits; `front` are the front door's counters, for `/metrics`.
    pub fn new(
        visits: Arc<Visits>,
        front: Arc<http::Stats>,
        names: StoreNames,
        settings: Settings,
    ) -> Site {
        let workers = settings.workers;
        let (page, events, draining) = (
            Page::new(names),
            Events::new(workers),
            AtomicBool::new(false),
        );
        let brake = settings
            .visits_per_client
            .map(|(visits, time)| Brake::new(visits, time));
        let (measures, count_wanted) = (Measures::new(workers), AtomicBool::new(true));
        let process = Mutex::new(Process::now());
        let started = Instant::now();
        Site {
            visits,
            front,
            page,
            events,
            names,
            settings,
            brake,
            measures,
            count_wanted,
            draining,
            started,
            process,
        }
    }

    /// Asks the system what it says of this process, for `/metrics`. To be called about once a
    /// second, on no worker.
    pub fn measure(&self) {
        let process = Process::now();
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    /// From now on the site says that it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.visits.is_ready()
    }

    /// Whether the numbers are to be asked for, since `/metrics` told old ones. Not before there
    /// are any.
    fn is_count_wanted(&self) -> bool {
        self.visits.is_ready() && self.count_wanted.swap(false, Ordering::Relaxed)
    }

    fn peek(&self, waiting: &Waiting) -> Result<Count, Refused> {
        let count = self.visits.peek(&waiting.waiter)?;
        self.measures
            .told(waiting.worker, count, clock::monotonic_ms());
        Ok(count)
    }

    fn visit(
        &self,
        waiting: &Waiting,
        (format, language): (Format, Language),
        client: IpAddr,
        answer: Answer<'_>,
    ) {
        let waiter = &waiting.waiter;
        if let Some(Err(time)) = self
            .brake
            .as_ref()
            .map(|brake| brake.take(client, clock::monotonic_ms()))
        {
            self.measures.refused(Why::Rate);
            return too_many(time, format, answer);
        }
        let arrived = Instant::now();
        let count = match self.visits.visit(waiter) {
            Ok(count) => count,
            Err(reason) => {
                self.measures.refused(Why::Visits(reason));
                return refuse(reason, format, answer);
            }
        };
        self.measures.visited(
            waiting.worker,
            arrived.elapsed(),
            count,
            clock::monotonic_ms(),
        );
        match format {
            Format::Json => {
                let mut body = String::with_capacity(64);
                write_count(&mut body, count);
                body.push('}');
                answer.send(Status::Ok, routes::VISIT_JSON_FIELDS, body.as_bytes());
            }
            Format::Html => {
                let reading = self.recent_reading(waiter);
                let send = |body: &[u8]| answer.send(Status::Ok, self.page.fields(language), body);
                self.page.render(
                    language,
                    count,
                    reading,
                    || self.visits.last_history(),
                    send,
                );
            }
        }
    }

    /// The last reading of the history; where that is old, a new one, if that is soon had.
    fn recent_reading(&self, waiter: &Arc<Waiter>) -> u64 {
        match self.visits.last_reading() {
            (reading, true) => reading,
            (reading, false) => self
                .visits
                .read_history(waiter, CHART_WAIT)
                .map_or(reading, |_| self.visits.last_reading().0),
        }
    }

    fn history(&self, waiter: &Arc<Waiter>, step: Step, csv: bool, answer: Answer<'_>) {
        match self.visits.read_history(waiter, HISTORY_WAIT) {
            Ok(history) if csv => {
                answer.send(
                    Status::Ok,
                    routes::HISTORY_CSV_FIELDS,
                    history::csv(&history, step).as_bytes(),
                );
            }
            Ok(history) => {
                answer.send(
                    Status::Ok,
                    routes::HISTORY_JSON_FIELDS,
                    history::json(&history, step).as_bytes(),
                );
            }
            Err(reason) => refuse(reason, Format::Json, answer),
        }
    }

    fn badge(&self, waiting: &Waiting, asked: &BadgeAsked, answer: Answer<'_>) {
        let BadgeAsked {
            badge,
            json,
            has,
            must_be,
        } = asked;
        let total = match self.peek(waiting) {
            Ok(count) => count.total,
            Err(reason) => return refuse(reason, Format::Json, answer),
        };
        let tag = badge.tag(total);
        let fields = routes::badge_fields(*json, &tag);
        let is_it = |wanted: &str| wanted.trim() == "*" || wanted.trim() == tag;
        if must_be
            .as_ref()
            .is_some_and(|wanted| !wanted.split(',').any(is_it))
        {
            return answer.send(Status::PreconditionFailed, &fields, b"");
        }
        if has
            .split(',')
            .any(|known| known.trim() == "*" || known.trim().trim_start_matches("W/") == tag)
        {
            return answer.send_head(Status::NotModified, &fields);
        }
        let body = if *json {
            badge.json(total)
        } else {
            badge.svg(total)
        };
        answer.send(Status::Ok, &fields, body.as_bytes());
    }

    fn events(&self, waiting: &Waiting, answer: Answer<'_>) {
        if self.draining.load(Ordering::Relaxed) {
            return refuse(Refused::Closing, Format::Json, answer);
        }
        answer.follow(
            routes::EVENTS_FIELDS,
            self.greeting(waiting).as_bytes(),
            &self.events.feed,
        );
    }

    /// What `GET /` would answer, without its numbers.
    fn head(&self, format: Format, language: Language, answer: Answer<'_>) {
        if !self.is_ready() {
            return refuse(Refused::LedgerDown, format, answer);
        }
        match format {
            Format::Json => answer.send_head(Status::Ok, routes::VISIT_JSON_FIELDS),
            Format::Html => answer.send_head(Status::Ok, self.page.fields(language)),
        }
    }

    fn stats(&self, waiting: &Waiting, answer: Answer<'_>) {
        let count = match self.peek(waiting) {
            Ok(count) => count,
            Err(reason) => return refuse(reason, Format::Json, answer),
        };
        let mut body = String::with_capacity(256);
        write_count(&mut body, count);
        let _ = write!(body, ",\"pruned\":{}", count.pruned);
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            ",\"ledger\":\"{}\",\"counter\":\"{}\",\"queued\":{},\"connections\":{},\"uptime_seconds\":{},\"version\":\"{}\"}}",
            self.names.ledger,
            self.names.counter.unwrap_or("in process"),
            self.visits.queued(),
            self.front.open.load(Ordering::Relaxed),
            self.started.elapsed().as_secs(),
            env!("CARGO_PKG_VERSION"),
        );
        answer.send(Status::Ok, routes::JSON_FIELDS, body.as_bytes());
    }

    fn facts(&self) -> Facts<'_> {
        self.count_wanted.store(true, Ordering::Relaxed);
        Facts {
            visits: &self.visits,
            measures: &self.measures,
            settings: &self.settings,
            front: &self.front,
            listeners: self.events.feed.followers(),
            ready: self.is_ready(),
            started: self.started,
            process: *self.process.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn readyz(&self, verbose: bool, answer: Answer<'_>) {
        let ready = self.is_ready();
        let status = if ready {
            Status::Ok
        } else {
            Status::ServiceUnavailable
        };
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
        let draining = self.draining.load(Ordering::Relaxed);
        body.push_str(if ready {
            "ready\n"
        } else if draining {
            "not ready: stopping\n"
        } else {
            "not ready\n"
        });
        answer.send(status, routes::TEXT_FIELDS, body.as_bytes());
    }
}

impl Service for Site {
    type Session = Waiting;
    type Task = Task;

    fn session(&self, worker: usize) -> Waiting {
        Waiting {
            waiter: Arc::new(Waiter::new(worker)),
            worker,
        }
    }

    fn plan(&self, request: &Request<'_>, client: IpAddr) -> Task {
        if self.settings.ops_apart && routes::is_ops(request.path()) {
            return routes::nothing();
        }
        routes::plan(request, client)
    }

    fn kind(&self, task: &Task) -> Kind {
        match task {
            Task::Visit(..) => Kind::Visit,
            Task::Livez | Task::Readyz { .. } | Task::Metrics => Kind::Probe,
            Task::Prefetch => Kind::Prefetch,
            _ => Kind::Other,
        }
    }

    fn waits(&self, task: &Task) -> bool {
        matches!(
            task,
            Task::Visit(..) | Task::Stats | Task::History { .. } | Task::Events | Task::Badge(_)
        )
    }

    fn perform(&self, waiting: &mut Waiting, task: Task, answer: Answer<'_>) {
        match task {
            Task::Visit(format, language, client) => {
                self.visit(waiting, (format, language), client, answer)
            }
            Task::Prefetch => {
                let Small {
                    status,
                    fields,
                    body,
                } = routes::PREFETCH;
                answer.send(status, fields, body);
            }
            Task::Head(format, language) => self.head(format, language, answer),
            Task::Stats => self.stats(waiting, answer),
            Task::Livez => answer.send(Status::Ok, routes::TEXT_FIELDS, b"ok\n"),
            Task::Readyz { verbose } => self.readyz(verbose, answer),
            Task::Metrics => {
                let body = metrics::render(&self.facts());
                answer.send(Status::Ok, routes::METRICS_FIELDS, body.as_bytes());
            }
            Task::History { step, csv } => self.history(&waiting.waiter, step, csv, answer),
            Task::Events => self.events(waiting, answer),
            Task::Badge(asked) => self.badge(waiting, &asked, answer),
            Task::Preflight => answer.send_head(Status::NoContent, routes::PREFLIGHT_FIELDS),
            Task::Small(Small {
                status,
                fields,
                body,
            }) => answer.send(status, fields, body),
        }
    }
}

/// Appends `{"total":N,"cache":M`, to be closed by the caller.
fn write_count(body: &mut String, count: Count) {
    let mut digits = itoa::Buffer::new();
    body.push_str("{\"total\":");
    body.push_str(digits.format(count.total));
    body.push_str(",\"cache\":");
    body.push_str(count.cache.map_or("null", |cache| digits.format(cache)));
}

/// The answer to a visit that got no numbers.
fn refuse(reason: Refused, format: Format, answer: Answer<'_>) {
    let sentence = match reason {
        Refused::Starting => "The counter is starting and has not reached its database yet.",
        Refused::LedgerDown => "The database is down, so this visit was not counted.",
        Refused::Overloaded => "Too many visits are waiting, so this one was not counted.",
        Refused::Late => "The database took too long to answer.",
        Refused::Closing => "The counter is stopping, so this visit was not counted.",
    };
    decline(
        Status::ServiceUnavailable,
        sentence,
        u64::from(RETRY_AFTER_S),
        format,
        answer,
    );
}

/// The answer to a visit by an address that makes too many.
#[cold]
fn too_many(time: Duration, format: Format, answer: Answer<'_>) {
    let sentence = "Too many visits came from this address, so this one was not counted.";
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    decline(Status::TooManyRequests, sentence, seconds, format, answer);
}

fn decline(status: Status, sentence: &str, retry_after_s: u64, format: Format, answer: Answer<'_>) {
    let (kind, body) = match format {
        Format::Html => (
            "text/plain; charset=utf-8",
            format!("{sentence} Please try again.\n"),
        ),
        Format::Json => (
            "application/json",
            format!("{{\"error\":\"{sentence} Please try again.\"}}"),
        ),
    };
    let fields = format!(
        "Content-Type: {kind}\r\nCache-Control: no-store\r\nRetry-After: {retry_after_s}\r\n{}",
        routes::CORS
    );
    answer.send(status, &fields, body.as_bytes());
}

//! What a visitor gets: routes, the page, JSON, health, metrics. It joins the front door with the visits.

mod badge;
mod chart;
mod events;
mod history;
mod metrics;
mod negotiation;
mod page;
mod process;
mod query;
mod routes;
mod text;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::{self, Answer, Request, Service, Status};
use crate::visits::history::Step;
use crate::visits::{Count, Refused, StoreState, Visits, Waiter};
use events::Events;
use metrics::Facts;
use negotiation::{Format, Language};
use page::Page;
use process::Process;
use routes::{BadgeAsked, Small, Task};

/// Seconds after which a refused visitor may try again.
const RETRY_AFTER_S: u8 = 1;

/// How long a page waits for a new look at the history, when the last one is old; then it shows the old one.
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
    draining: AtomicBool,
    started: Instant,
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
    pub fn new(visits: Arc<Visits>, front: Arc<http::Stats>, names: StoreNames, workers: usize) -> Site {
        let (page, events, draining) = (Page::new(names), Events::new(workers), AtomicBool::new(false));
        Site { visits, front, page, events, names, draining, started: Instant::now() }
    }

    /// From now on the site says that it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.visits.is_ready()
    }

    fn visit(&self, waiter: &Arc<Waiter>, format: Format, language: Language, answer: Answer<'_>) {
        let count = match self.visits.visit(waiter) {
            Ok(count) => count,
            Err(reason) => return refuse(reason, format, answer),
        };
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
                self.page.render(language, count, reading, || self.visits.last_history(), send);
            }
        }
    }

    /// The last reading of the history; where that is old, a new one, if that is soon had.
    fn recent_reading(&self, waiter: &Arc<Waiter>) -> u64 {
        match self.visits.last_reading() {
            (reading, true) => reading,
            (reading, false) => {
                self.visits.read_history(waiter, CHART_WAIT).map_or(reading, |_| self.visits.last_reading().0)
            }
        }
    }

    fn history(&self, waiter: &Arc<Waiter>, step: Step, csv: bool, answer: Answer<'_>) {
        match self.visits.read_history(waiter, HISTORY_WAIT) {
            Ok(history) if csv => {
                answer.send(Status::Ok, routes::HISTORY_CSV_FIELDS, history::csv(&history, step).as_bytes());
            }
            Ok(history) => {
                answer.send(Status::Ok, routes::HISTORY_JSON_FIELDS, history::json(&history, step).as_bytes());
            }
            Err(reason) => refuse(reason, Format::Json, answer),
        }
    }

    fn badge(&self, waiter: &Arc<Waiter>, asked: &BadgeAsked, answer: Answer<'_>) {
        let BadgeAsked { badge, json, has } = asked;
        let total = match self.visits.peek(waiter) {
            Ok(count) => count.total,
            Err(reason) => return refuse(reason, Format::Json, answer),
        };
        let tag = badge.tag(total);
        let fields = routes::badge_fields(*json, &tag);
        if has.split(',').any(|known| known.trim() == "*" || known.trim().trim_start_matches("W/") == tag) {
            return answer.send_head(Status::NotModified, &fields);
        }
        let body = if *json { badge.json(total) } else { badge.svg(total) };
        answer.send(Status::Ok, &fields, body.as_bytes());
    }

    fn events(&self, waiter: &Arc<Waiter>, answer: Answer<'_>) {
        if self.draining.load(Ordering::Relaxed) {
            return refuse(Refused::Closing, Format::Json, answer);
        }
        answer.follow(routes::EVENTS_FIELDS, self.greeting(waiter).as_bytes(), &self.events.feed);
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

    fn stats(&self, waiter: &Arc<Waiter>, answer: Answer<'_>) {
        let count = match self.visits.peek(waiter) {
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
        Facts {
            visits: &self.visits,
            front: &self.front,
            listeners: self.events.feed.followers(),
            ready: self.is_ready(),
            started: self.started,
            process: Process::now(),
        }
    }

    fn readyz(&self, verbose: bool, answer: Answer<'_>) {
        let ready = self.is_ready();
        let status = if ready { Status::Ok } else { Status::ServiceUnavailable };
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
    type Session = Arc<Waiter>;
    type Task = Task;

    fn session(&self, worker: usize) -> Arc<Waiter> {
        Arc::new(Waiter::new(worker))
    }

    fn plan(&self, request: &Request<'_>) -> Task {
        routes::plan(request)
    }

    fn waits(&self, task: &Task) -> bool {
        matches!(task, Task::Visit(..) | Task::Stats | Task::History { .. } | Task::Events | Task::Badge(_))
    }

    fn perform(&self, waiter: &mut Arc<Waiter>, task: Task, answer: Answer<'_>) {
        match task {
            Task::Visit(format, language) => self.visit(waiter, format, language, answer),
            Task::Head(format, language) => self.head(format, language, answer),
            Task::Stats => self.stats(waiter, answer),
            Task::Livez => answer.send(Status::Ok, routes::TEXT_FIELDS, b"ok\n"),
            Task::Readyz { verbose } => self.readyz(verbose, answer),
            Task::Metrics => {
                let body = metrics::render(&self.facts());
                answer.send(Status::Ok, routes::METRICS_FIELDS, body.as_bytes());
            }
            Task::History { step, csv } => self.history(waiter, step, csv, answer),
            Task::Events => self.events(waiter, answer),
            Task::Badge(asked) => self.badge(waiter, &asked, answer),
            Task::Preflight => answer.send_head(Status::NoContent, routes::PREFLIGHT_FIELDS),
            Task::Small(Small { status, fields, body }) => answer.send(status, fields, body),
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
    let (kind, body) = match format {
        Format::Html => ("text/plain; charset=utf-8", format!("{sentence} Please try again.\n")),
        Format::Json => ("application/json", format!("{{\"error\":\"{sentence} Please try again.\"}}")),
    };
    let fields = format!(
        "Content-Type: {kind}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Retry-After: {RETRY_AFTER_S}\r\n{}",
        routes::CORS
    );
    answer.send(Status::ServiceUnavailable, &fields, body.as_bytes());
}

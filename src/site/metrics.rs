//! `/metrics` in the Prometheus text format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Settings;
use super::measures::Measures;
use super::process::Process;
use crate::visits::{StoreState, Visits};
use crate::{http, logging};

/// What the metrics are made of.
pub(super) struct Facts<'a> {
    pub(super) visits: &'a Visits,
    pub(super) measures: &'a Measures,
    pub(super) settings: &'a Settings,
    pub(super) front: &'a http::Stats,
    pub(super) listeners: usize,
    pub(super) ready: bool,
    pub(super) started: Instant,
    pub(super) process: Process,
}

/// All metrics as they stand.
#[cold]
pub(super) fn render(facts: &Facts<'_>) -> String {
    let &Facts {
        visits,
        measures,
        settings,
        front,
        listeners,
        ready,
        started,
        ref process,
    } = facts;
    let mut text = Text(String::with_capacity(8 * 1024));
    let stats = visits.stats();
    text.counter(
        "visits_total",
        "Visits committed to the ledger by this process.",
        number(&stats.visits),
    );
    text.head(
        "visits_refused_total",
        "counter",
        "Visits refused, by reason.",
    );
    for (reason, count) in measures.refusals() {
        text.sample(
            "visits_refused_total",
            &format!("{{reason=\"{reason}\"}}"),
            count as f64,
        );
    }
    if let Some(count) = measures.newest() {
        text.gauge(
            "ledger_visits",
            "The total that was told last.",
            count.total as f64,
        );
        if let Some(cache) = count.cache {
            text.gauge(
                "counted_visits",
                "The counter's number that was told last.",
                cache as f64,
            );
        }
    }
    text.head(
        "http_responses_total",
        "counter",
        "Answers given, by what was asked for and status code.",
    );
    for (kind, status, count) in front.answers() {
        text.sample(
            "http_responses_total",
            &format!("{{kind=\"{kind}\",code=\"{}\"}}", status.code()),
            count as f64,
        );
    }
    text.histogram(
        "visit_seconds",
        "Time from a visit's arrival to its numbers.",
        measures.times(),
    );
    text.histogram(
        "commit_seconds",
        "Time from taking a batch to knowing that it is committed.",
        stats.commit_seconds.cumulative(),
    );
    text.histogram(
        "increment_seconds",
        "Time of an increment of the counter, one for each batch.",
        stats.increment_seconds.cumulative(),
    );
    text.histogram(
        "batch_visits",
        "Visits committed together.",
        stats.batch_visits.cumulative(),
    );
    text.gauge(
        "queue_length",
        "Visits that wait for a commit.",
        visits.queued() as f64,
    );
    text.head(
        "store_reconnects_total",
        "counter",
        "Times a lane reached a store again after losing it.",
    );
    for (part, reconnects) in [
        ("ledger", &stats.ledger_reconnects),
        ("counter", &stats.counter_reconnects),
    ] {
        text.sample(
            "store_reconnects_total",
            &format!("{{part=\"{part}\"}}"),
            number(reconnects),
        );
    }
    text.counter(
        "ambiguous_commits_total",
        "Commits whose outcome was unknown at first and had to be looked up.",
        number(&stats.ambiguous_commits),
    );
    text.counter(
        "uncounted_visits_total",
        "Visits committed that the counter did not count, or may not have.",
        number(&stats.uncounted),
    );
    text.gauge(
        "connections",
        "Connections that are open.",
        front.open.load(Ordering::Relaxed) as f64,
    );
    text.gauge(
        "event_listeners",
        "Connections that follow /events.",
        listeners as f64,
    );
    text.counter(
        "connections_accepted_total",
        "Connections accepted.",
        number(&front.accepted),
    );
    text.counter(
        "connections_refused_total",
        "Connections refused because too many were open.",
        number(&front.refused),
    );
    text.head("limit", "gauge", "The most that there may be of something.");
    for (of, most) in [
        ("connections", settings.max_connections),
        ("queue_length", settings.max_queue),
        ("held_bytes", settings.max_held),
    ] {
        text.sample("limit", &format!("{{of=\"{of}\"}}"), most as f64);
    }
    text.head(
        "connections_evicted_total",
        "counter",
        "Connections ended to make room for others, by what they were doing.",
    );
    for (doing, count) in front.evictions() {
        text.sample(
            "connections_evicted_total",
            &format!("{{doing=\"{doing}\"}}"),
            count as f64,
        );
    }
    text.head("store_up", "gauge", "1 while the store can be used.");
    for (part, (name, state)) in ["ledger", "counter"].iter().zip(visits.store_states()) {
        text.sample(
            "store_up",
            &format!("{{part=\"{part}\",store=\"{name}\"}}"),
            f64::from(u8::from(state == StoreState::Up)),
        );
    }
    text.counter(
        "log_lines_dropped_total",
        "Log lines dropped because nobody read them fast enough.",
        logging::dropped() as f64,
    );
    text.gauge(
        "ready",
        "1 while visits are taken.",
        f64::from(u8::from(ready)),
    );
    text.head("build_info", "gauge", "Always 1; the labels say what runs.");
    text.sample(
        "build_info",
        concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
        1.0,
    );
    let up = started.elapsed();
    let started_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(up)
        .as_secs();
    text.process(
        "start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
        Some(started_s as f64),
    );
    text.process(
        "cpu_seconds_total",
        "counter",
        "User and system CPU time spent.",
        process.cpu_seconds,
    );
    text.process(
        "resident_memory_bytes",
        "gauge",
        "Resident memory size.",
        process.resident_bytes.map(whole),
    );
    text.process(
        "virtual_memory_bytes",
        "gauge",
        "Virtual memory size.",
        process.virtual_bytes.map(whole),
    );
    text.process(
        "threads",
        "gauge",
        "Threads of the process.",
        process.threads.map(whole),
    );
    text.process(
        "open_fds",
        "gauge",
        "Open file descriptors.",
        process.open_descriptors.map(whole),
    );
    text.process(
        "max_fds",
        "gauge",
        "File descriptors that may be open.",
        process.most_descriptors.map(whole),
    );
    text.0
}

/// A counter's value. Prometheus' own are 64-bit floats, exact up to 2^53.
fn number(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn whole(number: u64) -> f64 {
    number as f64
}

/// Prometheus text; every name gets the prefix `visitas_`, but for those of the process.
struct Text(String);

impl Text {
    #[inline(never)]
    fn process(&mut self, name: &str, kind: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            // Writing to a String cannot fail, here and below.
            let _ = write!(
                self.0,
                "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
            );
        }
    }

    // Called often: a copy in each place would only take room.
    #[inline(never)]
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP visitas_{name} {help}\n# TYPE visitas_{name} {kind}"
        );
    }

    #[inline(never)]
    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "visitas_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// Each bound with the number of values at most that, then the number of all and their sum.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        (buckets, count, sum): (Vec<(f64, u64)>, u64, f64),
    ) {
        self.head(name, "histogram", help);
        for (bound, below) in buckets {
            self.sample(
                &format!("{name}_bucket"),
                &format!("{{le=\"{bound}\"}}"),
                below as f64,
            );
        }
        self.sample(&format!("{name}_bucket"), "{le=\"+Inf\"}", count as f64);
        self.sample(&format!("{name}_sum"), "", sum);
        self.sample(&format!("{name}_count"), "", count as f64);
    }
}

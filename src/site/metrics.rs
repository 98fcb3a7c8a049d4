//! `/metrics` in the Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use crate::http;
use crate::visits::{Histogram, StoreState, Visits};

/// All metrics as they stand.
pub(super) fn render(visits: &Visits, front: &http::Stats, listeners: usize, ready: bool) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    let stats = visits.stats();
    text.counter(
        "visits_total",
        "Visits committed to the ledger by this process.",
        stats.visits.load(Ordering::Relaxed),
    );
    text.head("http_responses_total", "counter", "Answers given, by status code.");
    for (status, count) in front.answers() {
        text.sample("http_responses_total", &format!("{{code=\"{}\"}}", status.code()), count);
    }
    text.histogram(
        "commit_seconds",
        "Time from taking a batch to knowing that it is committed.",
        &stats.commit_seconds,
    );
    text.histogram("batch_visits", "Visits committed together.", &stats.batch_visits);
    text.gauge("queue_length", "Visits that wait for a commit.", visits.queued());
    text.counter(
        "ledger_reconnects_total",
        "Times a lane reached the ledger again after losing it.",
        stats.ledger_reconnects.load(Ordering::Relaxed),
    );
    text.counter(
        "counter_reconnects_total",
        "Times a lane reached the counter again after losing it.",
        stats.counter_reconnects.load(Ordering::Relaxed),
    );
    text.counter(
        "ambiguous_commits_total",
        "Commits whose outcome was unknown at first and had to be looked up.",
        stats.ambiguous_commits.load(Ordering::Relaxed),
    );
    text.counter(
        "uncounted_visits_total",
        "Visits committed that the counter did not count, or may not have.",
        stats.uncounted.load(Ordering::Relaxed),
    );
    text.gauge("connections", "Connections that are open.", front.open.load(Ordering::Relaxed));
    text.gauge("event_listeners", "Connections that follow /events.", listeners);
    text.counter("connections_accepted_total", "Connections accepted.", front.accepted.load(Ordering::Relaxed));
    text.counter(
        "connections_refused_total",
        "Connections refused because too many were open.",
        front.refused.load(Ordering::Relaxed),
    );
    text.head("store_up", "gauge", "1 while the store can be used.");
    for (part, (name, state)) in ["ledger", "counter"].iter().zip(visits.store_states()) {
        text.sample("store_up", &format!("{{part=\"{part}\",store=\"{name}\"}}"), u8::from(state == StoreState::Up));
    }
    text.gauge("ready", "1 while visits are taken.", u8::from(ready));
    text.head("build_info", "gauge", "Always 1; the labels say what runs.");
    text.sample("build_info", concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
    text.0
}

/// Prometheus text; every name gets the prefix `visitas_`.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP visitas_{name} {help}\n# TYPE visitas_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "visitas_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn histogram<const N: usize>(&mut self, name: &str, help: &str, histogram: &Histogram<N>) {
        self.head(name, "histogram", help);
        let (buckets, count, sum) = histogram.cumulative();
        for (bound, below) in buckets {
            self.sample(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), below);
        }
        self.sample(&format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        self.sample(&format!("{name}_sum"), "", sum);
        self.sample(&format!("{name}_count"), "", count);
    }
}

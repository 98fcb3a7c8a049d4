//! `/metrics` in the Prometheus text format, version 0.0.4: one table of all metrics.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Site;
use super::process::Process;
use crate::logging;
use crate::visits::StoreState;

/// A metric: its samples are read when `/metrics` is asked for. One without samples is left out.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    read: fn(&Site, &mut Samples<'_>),
}

const fn metric(
    kind: &'static str,
    name: &'static str,
    help: &'static str,
    read: fn(&Site, &mut Samples<'_>),
) -> Metric {
    Metric {
        name,
        kind,
        help,
        read,
    }
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";
/// Labels of the two stores.
const PARTS: [&str; 2] = ["ledger", "counter"];

/// Every metric. Those of the process have the names of Prometheus' own client libraries.
#[rustfmt::skip] // Two lines each: name and meaning, then the value.
const METRICS: &[Metric] = &[
    metric(COUNTER, "visitas_visits_total", "Visits committed to the ledger by this process.",
        |site, out| out.value(number(&site.visits.stats().visits))),
    metric(COUNTER, "visitas_answered_visits_total", "Visits answered with success, by form.",
        |site, out| out.by("form", site.measures.forms())),
    metric(COUNTER, "visitas_visits_refused_total", "Visits refused, by reason.",
        |site, out| out.by("reason", site.measures.refusals())),
    metric(GAUGE, "visitas_ledger_visits", "The newest total known.",
        |site, out| site.visits.last_count().iter().for_each(|count| out.value(count.total as f64))),
    metric(GAUGE, "visitas_counted_visits", "The counter's newest number known.",
        |site, out| site.visits.last_count().and_then(|count| count.cache).iter()
            .for_each(|cache| out.value(*cache as f64))),
    metric(GAUGE, "visitas_names", "Counters by name in use.",
        |site, out| if site.visits.has_names() { out.value(site.visits.names_in_use() as f64) }),
    metric(COUNTER, "visitas_http_responses_total", "Responses, by kind of request and status.",
        |site, out| for (kind, status, count) in site.front.answers() {
            out.sample(&format!("{{kind=\"{kind}\",code=\"{}\"}}", status.code()), count as f64);
        }),
    metric(HISTOGRAM, "visitas_visit_seconds", "Time from a visit's arrival to its numbers.",
        |site, out| out.histogram(site.measures.times())),
    metric(HISTOGRAM, "visitas_commit_seconds", "Time from taking a batch to its commit.",
        |site, out| out.histogram(site.visits.stats().commit_seconds.cumulative())),
    metric(HISTOGRAM, "visitas_increment_seconds", "Time of the counter's increment for a batch.",
        |site, out| out.histogram(site.visits.stats().increment_seconds.cumulative())),
    metric(HISTOGRAM, "visitas_batch_visits", "Visits committed together.",
        |site, out| out.histogram(site.visits.stats().batch_visits.cumulative())),
    metric(GAUGE, "visitas_queue_length", "Visits that wait for a commit.",
        |site, out| out.value(site.visits.queued() as f64)),
    metric(COUNTER, "visitas_store_reconnects_total", "Reconnections of a lane to a store.",
        |site, out| out.by("part", [
            ("ledger", site.visits.stats().ledger_reconnects.load(Ordering::Relaxed)),
            ("counter", site.visits.stats().counter_reconnects.load(Ordering::Relaxed)),
        ])),
    metric(COUNTER, "visitas_ambiguous_commits_total", "Commits in doubt that had to be resolved.",
        |site, out| out.value(number(&site.visits.stats().ambiguous_commits))),
    metric(COUNTER, "visitas_uncounted_visits_total",
        "Visits committed that the counter did not count, or may not have.",
        |site, out| out.value(number(&site.visits.stats().uncounted))),
    metric(GAUGE, "visitas_connections", "Open connections.",
        |site, out| out.value(site.front.open.load(Ordering::Relaxed) as f64)),
    metric(GAUGE, "visitas_event_listeners", "Connections that follow /events.",
        |site, out| out.value(site.events.channel.feed.followers() as f64)),
    metric(COUNTER, "visitas_connections_accepted_total", "Connections accepted.",
        |site, out| out.value(number(&site.front.accepted))),
    metric(COUNTER, "visitas_connections_refused_total", "Connections beyond the limit.",
        |site, out| out.value(number(&site.front.refused))),
    metric(GAUGE, "visitas_limit", "Upper limits.",
        |site, out| out.by("of", [
            ("connections", site.settings.max_connections as u64),
            ("queue_length", site.settings.max_queue as u64),
            ("held_bytes", site.settings.max_held as u64),
        ])),
    metric(COUNTER, "visitas_connections_evicted_total",
        "Connections closed to make room for others, by phase.",
        |site, out| out.by("doing", site.front.evictions())),
    metric(GAUGE, "visitas_store_up", "1 while the store can be used.",
        |site, out| for ((name, state), part) in site.visits.store_states().iter().zip(PARTS) {
            let up = u8::from(*state == StoreState::Up);
            out.sample(&format!("{{part=\"{part}\",store=\"{name}\"}}"), f64::from(up));
        }),
    metric(COUNTER, "visitas_log_lines_dropped_total", "Log lines that nobody read fast enough.",
        |_, out| out.value(logging::dropped() as f64)),
    metric(GAUGE, "visitas_ready", "1 while visits are accepted.",
        |site, out| out.value(f64::from(u8::from(site.is_ready())))),
    metric(GAUGE, "visitas_build_info", "Always 1; the labels say what runs.",
        |_, out| out.sample(concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0)),
    metric(GAUGE, "process_start_time_seconds", "Start of the process, in seconds since 1970.",
        |site, out| out.value(start_time_s(site))),
    metric(COUNTER, "process_cpu_seconds_total", "User and system CPU time spent.",
        |site, out| process(site).cpu_seconds.iter().for_each(|seconds| out.value(*seconds))),
    metric(GAUGE, "process_resident_memory_bytes", "Resident memory size.",
        |site, out| out.optional(process(site).resident_bytes)),
    metric(GAUGE, "process_virtual_memory_bytes", "Virtual memory size.",
        |site, out| out.optional(process(site).virtual_bytes)),
    metric(GAUGE, "process_threads", "Threads of the process.",
        |site, out| out.optional(process(site).threads)),
    metric(GAUGE, "process_open_fds", "Open file descriptors.",
        |site, out| out.optional(process(site).open_descriptors)),
    metric(GAUGE, "process_max_fds", "The limit of open file descriptors.",
        |site, out| out.optional(process(site).max_descriptors)),
];

impl Site {
    /// All metrics as they stand.
    #[cold]
    pub(super) fn metrics(&self) -> String {
        self.count_wanted.store(true, Ordering::Relaxed);
        let mut text = String::with_capacity(8 * 1024);
        for metric in METRICS {
            let mut samples = Samples {
                metric,
                text: &mut text,
                is_first: true,
            };
            (metric.read)(self, &mut samples);
        }
        text
    }
}

/// A counter's value. Prometheus has 64-bit floats, exact up to 2^53.
fn number(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn process(site: &Site) -> Process {
    *site.process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_time_s(site: &Site) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(site.started.elapsed()).as_secs() as f64
}

/// Writes the samples of one metric.
struct Samples<'a> {
    metric: &'static Metric,
    text: &'a mut String,
    is_first: bool,
}

impl Samples<'_> {
    fn value(&mut self, value: f64) {
        self.sample("", value);
    }

    fn optional(&mut self, value: Option<u64>) {
        value.iter().for_each(|value| self.value(*value as f64));
    }

    /// One sample for each value of a label.
    fn by(&mut self, label: &str, samples: impl IntoIterator<Item = (&'static str, u64)>) {
        for (value, number) in samples {
            self.sample(&format!("{{{label}=\"{value}\"}}"), number as f64);
        }
    }

    /// Each bound with the number of values up to it, then the number of all values and their sum.
    fn histogram(&mut self, (buckets, count, sum): (Vec<(f64, u64)>, u64, f64)) {
        for (bound, below) in buckets {
            self.line("_bucket", &format!("{{le=\"{bound}\"}}"), below as f64);
        }
        self.line("_bucket", "{le=\"+Inf\"}", count as f64);
        self.line("_sum", "", sum);
        self.line("_count", "", count as f64);
    }

    fn sample(&mut self, labels: &str, value: f64) {
        self.line("", labels, value);
    }

    // Called from many places: inlined, it would only take room.
    #[inline(never)]
    fn line(&mut self, suffix: &str, labels: &str, value: f64) {
        let Metric {
            name, kind, help, ..
        } = self.metric;
        // Writing to a String cannot fail.
        if std::mem::take(&mut self.is_first) {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = writeln!(self.text, "{name}{suffix}{labels} {value}");
    }
}

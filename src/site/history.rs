//! `/history`: the history as JSON or as CSV.

use std::fmt::Write as _;

use super::chart::name;
use super::text::utc;
use crate::visits::history::{History, Step};

/// The step that `?by=` names; the minute when it is not there. None for any other word.
pub(super) fn step(by: Option<&str>) -> Option<Step> {
    let Some(by) = by else {
        return Some(Step::Minute);
    };
    Step::ALL.into_iter().find(|step| name(*step) == by)
}

/// `{"by":"minute","step_seconds":60,"points":[{"start":"2026-01-31T12:00:00Z","visits":3}]}`
#[cold]
pub(super) fn json(history: &History, step: Step) -> String {
    let series = history.of(step);
    let mut json = String::with_capacity(6 * 1024);
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        json,
        "{{\"by\":\"{}\",\"step_seconds\":{},\"points\":[",
        name(step),
        step.seconds(),
    );
    for (index, visits) in series.visits.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(
            json,
            "{comma}{{\"start\":\"{}\",\"visits\":{visits}}}",
            utc(series.start_of(index))
        );
    }
    json.push_str("]}");
    json
}

/// A line for each point under `start,visits` (RFC 4180).
#[cold]
pub(super) fn csv(history: &History, step: Step) -> String {
    let series = history.of(step);
    let mut csv = String::from("start,visits\r\n");
    for (index, visits) in series.visits.iter().enumerate() {
        let _ = write!(csv, "{},{visits}\r\n", utc(series.start_of(index)));
    }
    csv
}

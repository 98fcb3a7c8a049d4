//! `/history`: the history as JSON or as CSV.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::chart::name;
use super::negotiation::Format;
use super::refusal::refuse;
use super::routes::Scope;
use super::text::utc;
use super::{Site, fields};
use crate::http::{Answer, Answered, Status};
use crate::visits::Waiter;
use crate::visits::history::{History, Step};

/// How long a request waits for the history.
const HISTORY_WAIT: Duration = Duration::from_secs(4);

impl Site {
    pub(super) fn history(
        &self,
        waiter: &Arc<Waiter>,
        scope: &Scope,
        step: Step,
        csv: bool,
        answer: Answer<'_>,
    ) -> Answered {
        let read = match scope {
            Scope::All => self.visits.read_history(waiter, HISTORY_WAIT),
            Scope::Name(name) => self.history_of(waiter, name, HISTORY_WAIT),
        };
        let history = match read {
            Ok(history) => history,
            Err(reason) => return refuse(reason, Format::Json, answer),
        };
        let (header, body) = if csv {
            (fields::HISTORY_CSV, self::csv(&history, step))
        } else {
            (fields::HISTORY_JSON, json(&history, step))
        };
        answer.send(Status::Ok, header, body.as_bytes())
    }
}

/// The step that `?by=` names, by default the minute; `None` for an unknown word.
pub(super) fn step(by: Option<&str>) -> Option<Step> {
    let Some(by) = by else {
        return Some(Step::Minute);
    };
    Step::ALL.into_iter().find(|step| name(*step) == by)
}

/// `{"by":"minute","step_seconds":60,"points":[{"start":"2026-01-31T12:00:00Z","visits":3}]}`
#[cold]
fn json(history: &History, step: Step) -> String {
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

/// One line per point under `start,visits` (RFC 4180).
#[cold]
fn csv(history: &History, step: Step) -> String {
    let series = history.of(step);
    let mut csv = String::from("start,visits\r\n");
    for (index, visits) in series.visits.iter().enumerate() {
        let _ = write!(csv, "{},{visits}\r\n", utc(series.start_of(index)));
    }
    csv
}

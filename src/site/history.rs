//! `/history`: the history as JSON or as CSV, to read or to download.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::chart::name;
use super::refusal::refuse_reading;
use super::routes::Scope;
use super::text::utc;
use super::{Site, fields};
use crate::http::{Answer, Answered, Status};
use crate::visits::history::{History, Period};
use crate::visits::{Refused, Waiter};

/// How long a request waits for the history.
const HISTORY_WAIT: Duration = Duration::from_secs(4);

/// What a request for the history asks for.
#[derive(Debug, Clone, Copy)]
pub struct HistoryRequest {
    pub(super) by: Period,
    pub(super) csv: bool,
    /// The answer is for a file, not for a script.
    pub(super) download: bool,
}

impl Site {
    pub(super) fn history(
        &self,
        waiter: &Arc<Waiter>,
        scope: &Scope,
        request: HistoryRequest,
        answer: Answer<'_>,
    ) -> Answered {
        let history = match self.read_history(waiter, scope) {
            Ok(history) => history,
            Err(reason) => return refuse_reading(reason, answer),
        };
        let HistoryRequest { by, csv, download } = request;
        let (header, body, kind) = if csv {
            (fields::HISTORY_CSV, self::csv(&history, by), "csv")
        } else {
            (fields::HISTORY_JSON, json(&history, by), "json")
        };
        if !download {
            return answer.send(Status::Ok, header, body.as_bytes());
        }
        let by = name(by);
        let file = match scope {
            Scope::All => format!("{by}.{kind}"),
            Scope::Name(name) => format!("{name}-{by}.{kind}"),
        };
        // RFC 6266.
        let header =
            format!("{header}Content-Disposition: attachment; filename=\"visitas-{file}\"\r\n");
        answer.send(Status::Ok, &header, body.as_bytes())
    }

    pub(super) fn read_history(
        &self,
        waiter: &Arc<Waiter>,
        scope: &Scope,
    ) -> Result<Arc<History>, Refused> {
        match scope {
            Scope::All => self.visits.read_history(waiter, HISTORY_WAIT),
            Scope::Name(name) => self.history_of(waiter, name, HISTORY_WAIT),
        }
    }
}

/// The period that `?by=` names, by default the minute; `None` for an unknown word.
pub(super) fn by(name_given: Option<&str>) -> Option<Period> {
    let Some(given) = name_given else {
        return Some(Period::Minute);
    };
    Period::ALL.into_iter().find(|by| name(*by) == given)
}

/// `{"by":"minute","step_seconds":60,"points":[{"start":"2026-01-31T12:00:00Z","visits":3}]}`;
/// months differ, so their `step_seconds` is null.
#[cold]
fn json(history: &History, by: Period) -> String {
    let series = history.of(by);
    let mut json = String::with_capacity(6 * 1024);
    // Writing to a String cannot fail, here and below.
    let _ = write!(json, "{{\"by\":\"{}\",\"step_seconds\":", name(by));
    let _ = match by.seconds() {
        Some(seconds) => write!(json, "{seconds}"),
        None => write!(json, "null"),
    };
    json.push_str(",\"points\":[");
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
fn csv(history: &History, by: Period) -> String {
    let series = history.of(by);
    let mut csv = String::from("start,visits\r\n");
    for (index, visits) in series.visits.iter().enumerate() {
        let _ = write!(csv, "{},{visits}\r\n", utc(series.start_of(index)));
    }
    csv
}

//! Answers to requests that get no numbers.

use std::time::Duration;

use super::fields;
use super::negotiation::Format;
use crate::http::{Answer, Answered, Status};
use crate::visits::Refused;

/// Seconds after which a refused visitor may try again.
pub(super) const RETRY_AFTER_S: u64 = 1;

/// Answers a visit that was not taken.
pub(super) fn refuse(reason: Refused, format: Format, answer: Answer<'_>) -> Answered {
    let effect = match reason {
        Refused::NamesFull => return no_room(format, answer),
        // Its row may be there in the end.
        Refused::Late => "",
        _ => ", so this visit was not counted",
    };
    unavailable(reason, effect, format, answer)
}

/// Answers a request for numbers, which is no visit.
pub(super) fn refuse_reading(reason: Refused, answer: Answer<'_>) -> Answered {
    unavailable(reason, "", Format::Json, answer)
}

fn unavailable(reason: Refused, effect: &str, format: Format, answer: Answer<'_>) -> Answered {
    let cause = match reason {
        Refused::Starting => "The counter is starting and has not reached its database yet",
        Refused::LedgerDown => "The database is down",
        Refused::Overloaded => "Too many visits are waiting",
        Refused::Late => "The database took too long to answer",
        Refused::Closing => "The counter is stopping",
        Refused::NamesFull => "No more counters may be in use",
    };
    let (status, sentence) = (Status::ServiceUnavailable, format!("{cause}{effect}."));
    decline(status, &sentence, RETRY_AFTER_S, format, answer)
}

/// A name that is not in use, where no more may be.
#[cold]
fn no_room(format: Format, answer: Answer<'_>) -> Answered {
    let sentence = "No more counters may be in use, so this visit was not counted.";
    let (header, body) = match format {
        Format::Html | Format::Text => (fields::REFUSAL, format!("{sentence}\n")),
        Format::Json => (fields::JSON, format!("{{\"error\":\"{sentence}\"}}")),
    };
    answer.send(Status::NotFound, header, body.as_bytes())
}

/// The address has made too many visits; it may visit again after so many seconds.
#[cold]
pub(super) fn too_many(seconds: u64, format: Format, answer: Answer<'_>) -> Answered {
    let sentence = "Too many visits came from this address, so this one was not counted.";
    decline(Status::TooManyRequests, sentence, seconds, format, answer)
}

/// The whole seconds after which that time is over.
pub(super) fn retry_after_s(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn decline(
    status: Status,
    sentence: &str,
    retry_after_s: u64,
    format: Format,
    answer: Answer<'_>,
) -> Answered {
    let (kind, body) = match format {
        Format::Html | Format::Text => (
            "text/plain; charset=utf-8",
            format!("{sentence} Please try again.\n"),
        ),
        Format::Json => (
            "application/json",
            format!("{{\"error\":\"{sentence} Please try again.\"}}"),
        ),
    };
    let header = format!(
        "Content-Type: {kind}\r\nCache-Control: no-store\r\nRetry-After: {retry_after_s}\r\n{}",
        fields::CORS
    );
    answer.send(status, &header, body.as_bytes())
}

//! Answers to requests that get no numbers.

use std::time::Duration;

use super::fields;
use super::negotiation::Format;
use crate::http::{Answer, Answered, Status};
use crate::visits::Refused;

/// Seconds after which a refused visitor may try again.
pub(super) const RETRY_AFTER_S: u64 = 1;

pub(super) fn refuse(reason: Refused, format: Format, answer: Answer<'_>) -> Answered {
    let sentence = match reason {
        Refused::Starting => "The counter is starting and has not reached its database yet.",
        Refused::LedgerDown => "The database is down, so this visit was not counted.",
        Refused::Overloaded => "Too many visits are waiting, so this one was not counted.",
        Refused::Late => "The database took too long to answer.",
        Refused::Closing => "The counter is stopping, so this visit was not counted.",
    };
    let status = Status::ServiceUnavailable;
    decline(status, sentence, RETRY_AFTER_S, format, answer)
}

/// The address has made too many visits; it may visit again after `time`.
#[cold]
pub(super) fn too_many(time: Duration, format: Format, answer: Answer<'_>) -> Answered {
    let sentence = "Too many visits came from this address, so this one was not counted.";
    let seconds = retry_after_s(time);
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
        Format::Html => (
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

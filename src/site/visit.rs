//! A visit in each of its forms: the page, JSON, a picture, a beacon.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::badge::Badge;
use super::cors::Origin;
use super::measures::Reason;
use super::negotiation::{Format, Language};
use super::refusal::{RETRY_AFTER_S, refuse, retry_after_s, too_many};
use super::{Session, Site, fields, write_count};
use crate::clock;
use crate::http::{Answer, Answered, Status};
use crate::visits::{Refused, Waiter};

/// How long a page waits for a new reading of the history where the last one is old. Then it shows
/// the old one.
const CHART_WAIT: Duration = Duration::from_millis(200);

/// What a visit is answered with.
#[derive(Debug, Clone)]
pub enum Form {
    Page(Language),
    /// `{"total":N,"cache":M}`
    Json,
    /// The total as a badge.
    Picture(Box<Badge>),
    /// 204: nobody reads the answer.
    Beacon(Origin),
}

/// Why a visit got no numbers.
enum Denied {
    Refused(Refused),
    /// By the rate limit. The address may visit again after that time.
    Limited(Duration),
}

impl Site {
    pub(super) fn visit(
        &self,
        session: &Session,
        form: &Form,
        client: IpAddr,
        answer: Answer<'_>,
    ) -> Answered {
        if let Some(limit) = &self.rate_limit
            && let Err(time) = limit.take(client, clock::monotonic_ms())
        {
            self.measures.refused(Reason::Rate);
            return self.deny(Denied::Limited(time), form, answer);
        }
        let arrived = Instant::now();
        let count = match self.visits.visit(&session.waiter) {
            Ok(count) => count,
            Err(reason) => {
                self.measures.refused(Reason::Visits(reason));
                return self.deny(Denied::Refused(reason), form, answer);
            }
        };
        let took = arrived.elapsed();
        let now = clock::monotonic_ms();
        self.measures
            .visited(session.worker, form.label(), took, count, now);
        match form {
            Form::Json => {
                let mut body = String::with_capacity(64);
                write_count(&mut body, count);
                body.push('}');
                answer.send(Status::Ok, fields::VISIT_JSON, body.as_bytes())
            }
            Form::Page(language) => {
                let reading = self.recent_reading(&session.waiter);
                let header = self.page.fields(*language);
                self.page.render(
                    *language,
                    count,
                    reading,
                    || self.visits.last_history(),
                    |body| answer.send(Status::Ok, header, body),
                )
            }
            Form::Picture(badge) => {
                let svg = badge.svg(count.total);
                answer.send(Status::Ok, fields::VISIT_PICTURE, svg.as_bytes())
            }
            Form::Beacon(origin) => answer.send_head(Status::NoContent, &origin.fields()),
        }
    }

    /// The number of the last reading of the history. Where that is old, it waits a moment for a
    /// new one.
    fn recent_reading(&self, waiter: &Arc<Waiter>) -> u64 {
        match self.visits.last_reading() {
            (reading, true) => reading,
            (reading, false) => self
                .visits
                .read_history(waiter, CHART_WAIT)
                .map_or(reading, |_| self.visits.last_reading().0),
        }
    }

    /// What a visit of that form would be answered with, without its numbers.
    pub(super) fn head(&self, form: &Form, answer: Answer<'_>) -> Answered {
        if !self.is_ready() {
            return self.deny(Denied::Refused(Refused::LedgerDown), form, answer);
        }
        let header = match form {
            Form::Json => fields::VISIT_JSON,
            Form::Page(language) => self.page.fields(*language),
            Form::Picture(_) => fields::VISIT_PICTURE,
            Form::Beacon(origin) => return answer.send_head(Status::NoContent, &origin.fields()),
        };
        answer.send_head(Status::Ok, header)
    }

    fn deny(&self, denied: Denied, form: &Form, answer: Answer<'_>) -> Answered {
        let format = match form {
            Form::Page(_) => Format::Html,
            Form::Json | Form::Beacon(_) => Format::Json,
            Form::Picture(badge) => {
                let (status, seconds) = match denied {
                    Denied::Refused(_) => (Status::ServiceUnavailable, RETRY_AFTER_S),
                    Denied::Limited(time) => (Status::TooManyRequests, retry_after_s(time)),
                };
                return self.last_known(badge, status, Some(seconds), answer);
            }
        };
        match denied {
            Denied::Refused(reason) => refuse(reason, format, answer),
            Denied::Limited(time) => too_many(time, format, answer),
        }
    }
}

impl Form {
    /// The forms' names in `/metrics`.
    pub(super) const LABELS: [&'static str; 4] = ["page", "json", "picture", "beacon"];

    /// The index of its name.
    fn label(&self) -> usize {
        match self {
            Form::Page(_) => 0,
            Form::Json => 1,
            Form::Picture(_) => 2,
            Form::Beacon(_) => 3,
        }
    }
}

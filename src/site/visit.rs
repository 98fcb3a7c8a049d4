//! A visit in each of its forms: the page, JSON, a picture, a beacon.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::badge::Badge;
use super::cors::Origin;
use super::drawn::Chart;
use super::measures::Reason;
use super::negotiation::{Format, Language};
use super::refusal::{RETRY_AFTER_S, refuse, retry_after_s, too_many};
use super::routes::Scope;
use super::{Session, Site, fields, write_count};
use crate::clock;
use crate::http::{Answer, Answered, Status};
use crate::visits::{Count, Refused, Waiter};

/// How long a page waits for a new reading of the history where the last one is old. Then it shows
/// the old one.
pub(super) const CHART_WAIT: Duration = Duration::from_millis(200);

/// Seconds after which the page of an outage tries again.
pub(super) const TRY_AGAIN_S: u64 = 5;

/// What a visit is answered with.
#[derive(Debug, Clone)]
pub enum Form {
    Page(Language),
    /// The page; where there is none, a sentence instead of the page that says so.
    Text(Language),
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
        scope: &Scope,
        (form, client): (&Form, IpAddr),
        answer: Answer<'_>,
    ) -> Answered {
        if let Some(limit) = &self.rate_limit
            && let Err(time) = limit.take(client, clock::monotonic_ms())
        {
            self.measures.refused(Reason::Rate);
            return self.deny(Denied::Limited(time), scope, form, answer);
        }
        let arrived = Instant::now();
        let count = match self.visits.visit(&session.waiter, scope.name()) {
            Ok(count) => count,
            Err(reason) => {
                self.measures.refused(Reason::Visits(reason));
                return self.deny(Denied::Refused(reason), scope, form, answer);
            }
        };
        self.measures
            .visited(session.worker, form.label(), arrived.elapsed());
        if let Scope::Name(name) = scope {
            self.named.counted(name, count);
        }
        match form {
            Form::Json => {
                let mut body = String::with_capacity(64);
                write_count(&mut body, count);
                body.push('}');
                answer.send(Status::Ok, fields::VISIT_JSON, body.as_bytes())
            }
            Form::Page(language) | Form::Text(language) => {
                self.visited_page(session, scope, *language, count, answer)
            }
            Form::Picture(badge) => {
                let svg = badge.svg(count.total);
                answer.send(Status::Ok, fields::VISIT_PICTURE, svg.as_bytes())
            }
            Form::Beacon(origin) => answer.send_head(Status::NoContent, &origin.fields()),
        }
    }

    fn visited_page(
        &self,
        session: &Session,
        scope: &Scope,
        language: Language,
        count: Count,
        answer: Answer<'_>,
    ) -> Answered {
        let header = self.page.fields(language);
        let take = |parts: &[&[u8]]| answer.send_parts(Status::Ok, header, parts);
        match scope {
            Scope::All => {
                let reading = self.recent_reading(&session.waiter);
                let history = || self.visits.last_history();
                Chart::of_all(language, reading, history, |chart| {
                    self.page.render((language, None), count, chart, take)
                })
            }
            Scope::Name(name) => {
                let shown = self.shown_history(&session.waiter, name);
                let reading = shown.as_ref().map_or(0, |shown| shown.reading);
                let history = || shown.map(|shown| shown.history);
                let chart = self.page.drawn.of_name(language, reading, history);
                let [title, here] = &scope.place(&self.settings.base_path);
                let counter = Some([title.as_str(), here.as_str()]);
                self.page
                    .render((language, counter), count, chart.html(), take)
            }
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
    pub(super) fn head(&self, scope: &Scope, form: &Form, answer: Answer<'_>) -> Answered {
        if !self.is_ready() {
            let reason = if self.visits.has_begun() {
                Refused::LedgerDown
            } else {
                Refused::Starting
            };
            return self.deny(Denied::Refused(reason), scope, form, answer);
        }
        let header = match form {
            Form::Json => fields::VISIT_JSON,
            Form::Page(language) | Form::Text(language) => self.page.fields(*language),
            Form::Picture(_) => fields::VISIT_PICTURE,
            Form::Beacon(origin) => return answer.send_head(Status::NoContent, &origin.fields()),
        };
        answer.send_head(Status::Ok, header)
    }

    /// Answers a visit, or a look ahead of one, that gets no numbers. A process that stops says so,
    /// whatever else is amiss: another one is about to take its place.
    fn deny(&self, denied: Denied, scope: &Scope, form: &Form, answer: Answer<'_>) -> Answered {
        let denied = match denied {
            Denied::Refused(reason) if self.is_draining() && reason != Refused::NamesFull => {
                Denied::Refused(Refused::Closing)
            }
            denied => denied,
        };
        let format = match (form, &denied) {
            (Form::Picture(badge), _) => {
                let status = match denied {
                    Denied::Refused(Refused::NamesFull) => (Status::NotFound, None),
                    Denied::Refused(_) => (Status::ServiceUnavailable, Some(RETRY_AFTER_S)),
                    Denied::Limited(time) => (Status::TooManyRequests, Some(retry_after_s(time))),
                };
                return self.last_known(scope, badge, status, answer);
            }
            (Form::Page(language), Denied::Limited(time)) => {
                return self.outage(
                    Reason::Rate,
                    retry_after_s(*time),
                    (scope, *language),
                    answer,
                );
            }
            (Form::Page(language), Denied::Refused(reason)) if *reason != Refused::NamesFull => {
                let reason = Reason::Visits(*reason);
                return self.outage(reason, TRY_AGAIN_S, (scope, *language), answer);
            }
            (Form::Page(_) | Form::Text(_), _) => Format::Text,
            (Form::Json | Form::Beacon(_), _) => Format::Json,
        };
        match denied {
            Denied::Refused(reason) => refuse(reason, format, answer),
            Denied::Limited(time) => too_many(retry_after_s(time), format, answer),
        }
    }
}

impl Form {
    /// The forms' names in `/metrics`.
    pub(super) const LABELS: [&'static str; 4] = ["page", "json", "picture", "beacon"];

    /// The index of its name.
    fn label(&self) -> usize {
        match self {
            Form::Page(_) | Form::Text(_) => 0,
            Form::Json => 1,
            Form::Picture(_) => 2,
            Form::Beacon(_) => 3,
        }
    }
}

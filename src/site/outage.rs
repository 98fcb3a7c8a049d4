//! The page of a visit that got no numbers: why, the last numbers known, and when it tries again.

use std::fmt::Write as _;

use super::assets::Versions;
use super::measures::Reason;
use super::negotiation::Language;
use super::page::header_fields;
use super::routes::Scope;
use super::text::{fill, grouped_text, size};
use super::words::{Words, words};
use super::{Site, StoreNames};
use crate::http::{Answer, Answered, Status};
use crate::visits::{Refused, StoreState};

const TEMPLATE: &str = include_str!("outage.html");

impl Site {
    /// Answers a visit with the page that says why it got no numbers. After so many seconds the
    /// page tries again.
    #[cold]
    pub(super) fn outage(
        &self,
        reason: Reason,
        seconds: u64,
        (scope, language): (&Scope, Language),
        answer: Answer<'_>,
    ) -> Answered {
        let words = words(language);
        let status = match reason {
            Reason::Rate => Status::TooManyRequests,
            Reason::Visits(_) => Status::ServiceUnavailable,
        };
        let fields = header_fields(words) + &format!("Retry-After: {seconds}\r\n");
        let body = self.outage_page(reason, seconds, scope, words);
        answer.send(status, &fields, body.as_bytes())
    }

    fn outage_page(&self, reason: Reason, seconds: u64, scope: &Scope, words: &Words) -> String {
        let text = &words.outage;
        let [what, why] = sentences(reason, words);
        let ledger = text.ledger[usize::from(!self.names.has_database())];
        let in_process = usize::from(self.names.counter.is_none());
        let seconds_shown = format!("<b id=\"retry\">{seconds}</b>");
        let last = self.last_count(scope);
        let (total, cache) = (
            last.map(|last| last.total),
            last.and_then(|last| last.cache),
        );
        let size = size(total.unwrap_or(0), cache.unwrap_or(0));
        let total = total.map(|total| number("total", total, words));
        let cache = cache.map(|cache| number("cache", cache, words));
        let unknown = || format!("<b class=\"unknown\">{}</b>", text.unknown);
        let versions = Versions::get();
        let [name, _] = scope.place(&self.settings.base_path);
        let filled = [
            ("{lang}", words.lang),
            ("{base}", &self.settings.base_path),
            ("{style-version}", &versions.style),
            ("{script-version}", &versions.script),
            ("{name}", &name),
            ("{heading}", words.heading),
            ("{what}", what),
            ("{why}", &why.replace("{}", ledger)),
            ("{again}", &text.again.replace("{}", &seconds_shown)),
            ("{seconds}", &seconds.to_string()),
            ("{now}", text.now),
            ("{last-total}", text.last_total),
            ("{last-cache}", text.last_cache[in_process]),
            ("{size}", size),
            ("{total}", &total.unwrap_or_else(unknown)),
            ("{cache}", &cache.unwrap_or_else(unknown)),
            ("{stores}", words.stores),
            ("{states}", &self.states(words)),
        ];
        fill(TEMPLATE, &filled)
    }

    /// An item for each store, with its state.
    fn states(&self, words: &Words) -> String {
        let StoreNames { counter, .. } = self.names;
        let names = [Some(self.names.ledger_shown(words)), counter];
        let states = self.visits.store_states();
        let mut items = String::new();
        for (name, (_, state)) in names.into_iter().zip(states) {
            let Some(name) = name else { continue };
            let (class, state) = match state {
                StoreState::Up => ("", words.up),
                StoreState::Down => (" class=\"down\"", words.down),
                StoreState::Starting => (" class=\"down\"", words.starting),
            };
            // Writing to a String cannot fail.
            let _ = write!(items, "<li{class}>{name} <b>{state}</b></li>");
        }
        items
    }
}

fn number(id: &str, number: impl itoa::Integer + Copy, words: &Words) -> String {
    let shown = grouped_text(number, words.language);
    let mut digits = itoa::Buffer::new();
    let value = digits.format(number);
    format!("<data id=\"{id}\" value=\"{value}\">{shown}</data>")
}

/// The headline and the sentence of a reason.
fn sentences(reason: Reason, words: &Words) -> [&'static str; 2] {
    let text = &words.outage;
    match reason {
        Reason::Visits(Refused::Starting) => text.is_starting,
        Reason::Visits(Refused::LedgerDown) => text.ledger_down,
        Reason::Visits(Refused::Overloaded) => text.overloaded,
        Reason::Visits(Refused::Late) => text.late,
        // A name beyond the last one is 404, and has no outage.
        Reason::Visits(Refused::Closing | Refused::NamesFull) => text.closing,
        Reason::Rate => text.rate,
    }
}

//! `/history?format=html`: the charts and tables of all periods, for browsers that run no script.

use std::sync::Arc;

use super::assets::Versions;
use super::measures::Reason;
use super::negotiation::Language;
use super::page::header_fields;
use super::routes::Scope;
use super::text::fill;
use super::visit::TRY_AGAIN_S;
use super::words::words;
use super::{Site, chart};
use crate::http::{Answer, Answered, Status};
use crate::visits::Waiter;

const TEMPLATE: &str = include_str!("history.html");

impl Site {
    /// Answers with the page; without a history, with the page of an outage.
    #[cold]
    pub(super) fn history_page(
        &self,
        waiter: &Arc<Waiter>,
        scope: &Scope,
        language: Language,
        answer: Answer<'_>,
    ) -> Answered {
        let history = match self.read_history(waiter, scope) {
            Ok(history) => history,
            Err(reason) => {
                let reason = Reason::Visits(reason);
                return self.outage(reason, TRY_AGAIN_S, (scope, language), answer);
            }
        };
        let words = words(language);
        let [title, here] = scope.place(&self.settings.base_path);
        let [minutes, hours, days, months] = words.links;
        let filled = [
            ("{lang}", words.lang),
            ("{name}", &title),
            ("{history}", words.history),
            ("{base}", &self.settings.base_path),
            ("{style-version}", &Versions::get().style),
            ("{heading}", words.heading),
            ("{choose}", words.choose),
            ("{minutes}", minutes),
            ("{hours}", hours),
            ("{days}", days),
            ("{months}", months),
            ("{utc}", words.utc),
            ("{charts}", &chart::render_all(&history, words, &here)),
        ];
        let body = fill(TEMPLATE, &filled);
        answer.send(Status::Ok, &header_fields(words), body.as_bytes())
    }
}

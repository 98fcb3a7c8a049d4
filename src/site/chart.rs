//! The history as charts: three figures with one path each. The style shows the one that the
//! address names.

use std::fmt::Write as _;

use super::negotiation::Language;
use super::text::{grouped, utc};
use crate::visits::history::{History, Series, Step};

/// From one bar to the next, in units of the drawing; live.js has the same numbers.
const PITCH: usize = 10;
const HEIGHT: u64 = 100;
/// The highest bar, with room above it.
const HIGHEST: u64 = 96;
/// The lowest bar above zero, so that it is visible.
const LOWEST: u64 = 2;

/// The charts' texts in one language.
struct Words {
    /// For each of [`Step::ALL`].
    captions: [&'static str; 3],
    sum: &'static str,
    most: &'static str,
    to: &'static str,
    unavailable: &'static str,
}

const PORTUGUESE: Words = Words {
    captions: ["Visitas por minuto", "Visitas por hora", "Visitas por dia"],
    sum: "ao todo",
    most: "no máximo",
    to: "a",
    unavailable: "O histórico está indisponível agora.",
};

const ENGLISH: Words = Words {
    captions: ["Visits per minute", "Visits per hour", "Visits per day"],
    sum: "in all",
    most: "at most",
    to: "to",
    unavailable: "The history is unavailable now.",
};

/// The figure's identifier, and the step's name in `?by=`.
pub(super) fn name(step: Step) -> &'static str {
    match step {
        Step::Minute => "minute",
        Step::Hour => "hour",
        Step::Day => "day",
    }
}

/// The three figures. The minutes come last, so the style can show them by default.
#[cold]
pub(super) fn render(history: Option<&History>, language: Language) -> String {
    let words = words(language);
    let Some(history) = history else {
        return format!("<p class=\"note\">{}</p>", words.unavailable);
    };
    let mut html = String::with_capacity(4096);
    for step in [Step::Hour, Step::Day, Step::Minute] {
        figure(history.of(step), words, language, &mut html);
    }
    html
}

fn words(language: Language) -> &'static Words {
    match language {
        Language::Portuguese => &PORTUGUESE,
        Language::English => &ENGLISH,
    }
}

fn figure(series: &Series, words: &Words, language: Language, html: &mut String) {
    let name = name(series.step);
    let most = series.visits.iter().copied().max().unwrap_or(0);
    let shown = |number: u64| {
        let mut text = Vec::new();
        grouped(number, language, &mut text);
        String::from_utf8(text).unwrap_or_default()
    };
    let points = series.visits.len();
    let _ = write!(
        html,
        "<figure id=\"{name}\"><figcaption id=\"{name}-caption\">{} \
         <small><b class=\"sum\">{}</b> {}, <b class=\"most\">{}</b> {}</small></figcaption>\
         <svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-labelledby=\"{name}-caption\">\
         <path d=\"{}\"/></svg><p class=\"axis\">",
        words.captions[series.step as usize],
        shown(series.visits.iter().sum()),
        words.sum,
        shown(most),
        words.most,
        points * PITCH,
        path(&series.visits, most),
    );
    time(series, 0, language, "", html);
    let _ = write!(html, " <span>{}</span> ", words.to);
    time(series, points.saturating_sub(1), language, " UTC", html);
    html.push_str("</p></figure>");
}

/// A vertical line for each point above zero.
fn path(visits: &[u64], most: u64) -> String {
    let mut path = String::with_capacity(visits.len() * 10);
    for (index, count) in visits.iter().enumerate().filter(|(_, count)| **count > 0) {
        // A product of two counts needs 128 bits.
        let height = (u128::from(*count) * u128::from(HIGHEST) / u128::from(most.max(1))) as u64;
        let top = HEIGHT - height.max(LOWEST);
        let _ = write!(path, "M{} {top}V{HEIGHT}", index * PITCH + PITCH / 2);
    }
    path
}

/// A point's start as a person of that language writes it.
fn time(series: &Series, index: usize, language: Language, zone: &str, html: &mut String) {
    let full = utc(series.start_of(index));
    let (year, month, day) = (&full[..4], &full[5..7], &full[8..10]);
    let date = match language {
        Language::Portuguese => format!("{day}/{month}/{year}"),
        Language::English => format!("{year}-{month}-{day}"),
    };
    let shown = match series.step {
        Step::Minute => full[11..16].to_owned(),
        Step::Hour => format!("{date} {}", &full[11..16]),
        Step::Day => date,
    };
    let _ = write!(html, "<time datetime=\"{full}\">{shown}{zone}</time>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_bar_is_the_most_and_none_is_lost() {
        assert_eq!(path(&[0, 1, 0, 1000], 1000), "M15 98V100M35 4V100");
        assert_eq!(path(&[0, 0], 0), "");
        assert_eq!(path(&[u64::MAX], u64::MAX), "M5 4V100");
    }
}

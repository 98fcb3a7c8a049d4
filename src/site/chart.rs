//! The history as charts: a figure for a period, with one path for the bars that are over and one
//! for the last. chart.js draws the same.

use std::fmt::Write as _;

use super::negotiation::Language;
use super::text::{grouped_text, utc};
use super::words::{Words, words};
use crate::visits::history::{History, Period, Series};

/// Of the drawing, in which a bar is one unit wide.
const HEIGHT: u64 = 100;
/// The lowest bar above zero, so that it is visible.
const LOWEST: u64 = 2;

/// The figure's identifier, and the period's name in `?by=`.
pub(super) fn name(period: Period) -> &'static str {
    match period {
        Period::Minute => "minute",
        Period::Hour => "hour",
        Period::Day => "day",
        Period::Month => "month",
    }
}

/// What the page of a visit shows: today, the week, and the minutes. The other periods are loaded
/// when they are chosen.
#[cold]
pub(super) fn render(history: Option<&History>, language: Language) -> String {
    let words = words(language);
    let Some(history) = history else {
        return format!("<p class=\"note\">{}</p>", words.no_history);
    };
    let mut html = String::with_capacity(2 * 1024);
    let (today, week) = history.today_and_week();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        html,
        "<p class=\"facts\">{} <b id=\"today\">{}</b> {} <b id=\"week\">{}</b></p>",
        words.today,
        grouped_text(today, language),
        words.week,
        grouped_text(week, language),
    );
    figure(history.of(Period::Minute), words, "", &mut html);
    html
}

/// All periods, each with its table and its files at `here`. The style shows the one that the
/// address names, and without any the last.
#[cold]
pub(super) fn render_all(history: &History, words: &Words, here: &str) -> String {
    let mut html = String::with_capacity(32 * 1024);
    for period in [Period::Hour, Period::Day, Period::Month, Period::Minute] {
        let series = history.of(period);
        figure(series, words, &table(series, words, here), &mut html);
    }
    html
}

/// A figure that ends with `below`.
fn figure(series: &Series, words: &Words, below: &str, html: &mut String) {
    let name = name(series.period);
    let shown = |number: u64| grouped_text(number, words.language);
    let (peak, most) = peak(&series.visits);
    let top = top(most);
    let _ = write!(
        html,
        "<figure id=\"{name}\"><figcaption>{} \
         <small><b class=\"sum\">{}</b> {}<span class=\"peak\"{}>, {} <b class=\"most\">{}</b> {} ",
        words.captions[series.period as usize],
        shown(series.visits.iter().sum()),
        words.sum,
        if most == 0 { " hidden" } else { "" },
        words.peak,
        shown(most),
        words.at[series.period as usize],
    );
    time(series, peak, words.language, html);
    let _ = write!(
        html,
        "</span></small></figcaption><div class=\"plot\"><p class=\"y\" aria-hidden=\"true\">\
         <span>{}</span><span>{}</span><span>0</span></p>\
         <div class=\"bars\"><svg viewBox=\"-.5 -{HEIGHT} {} {HEIGHT}\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\">",
        short(top, words),
        short(top / 2, words),
        series.visits.len(),
    );
    let (now, past) = series.visits.split_last().unwrap_or((&0, &[]));
    let _ = write!(html, "<path d=\"{}\"/>", path(past, 0, top));
    let now = path(&[*now], past.len(), top);
    let _ = write!(
        html,
        "<path class=\"now\" d=\"{now}\"/></svg></div><p class=\"axis\">"
    );
    time(series, 0, words.language, html);
    let _ = write!(html, "<span> {} </span>", words.to);
    time(series, past.len(), words.language, html);
    let _ = write!(html, "</p></div>{below}</figure>");
}

/// The points as a table, the newest first, and links to them as files.
fn table(series: &Series, words: &Words, here: &str) -> String {
    let [when, count] = words.columns;
    let mut html = format!(
        "<details><summary>{}</summary><table><caption>{}</caption><thead><tr>\
         <th scope=\"col\">{when}</th><th scope=\"col\">{count}</th></tr></thead><tbody>",
        words.table, words.captions[series.period as usize]
    );
    for (index, visits) in series.visits.iter().enumerate().rev() {
        html.push_str("<tr><th scope=\"row\">");
        time(series, index, words.language, &mut html);
        let visits = grouped_text(*visits, words.language);
        let _ = write!(html, "</th><td>{visits}</td></tr>");
    }
    let name = name(series.period);
    let _ = write!(
        html,
        "</tbody></table></details><p class=\"get\">{}: \
         <a href=\"{here}/history?by={name}&amp;format=csv\">CSV</a> \
         <a href=\"{here}/history?by={name}&amp;format=json\">JSON</a></p>",
        words.download
    );
    html
}

/// The highest point, of equals the newest: its index and its visits.
fn peak(visits: &[u64]) -> (usize, u64) {
    let points = visits.iter().copied().enumerate();
    points.max_by_key(|(_, visits)| *visits).unwrap_or_default()
}

/// The value at the top of the axis: a digit, or 10, times a power of ten. Its half can be written
/// by [`short`], too.
fn top(most: u64) -> u64 {
    let mut unit = 1_u64;
    while most > unit.saturating_mul(10) {
        unit = unit.saturating_mul(10);
    }
    let steps = most.div_ceil(unit).max(1);
    let odd = if unit == 1 || unit >= 1_000_000 {
        steps % 2
    } else {
        0
    };
    (steps + odd).saturating_mul(unit)
}

/// A value on the axis. From a million on it has few digits that are not zero.
fn short(number: u64, words: &Words) -> String {
    let [million, billion] = words.units;
    match number {
        0..1_000_000 => grouped_text(number, words.language),
        1_000_000..1_000_000_000 => grouped_text(number / 1_000_000, words.language) + million,
        _ => grouped_text(number / 1_000_000_000, words.language) + billion,
    }
}

/// For each point above zero a line from its height down to the axis.
fn path(visits: &[u64], first: usize, top: u64) -> String {
    let mut path = String::with_capacity(visits.len() * 8);
    for (index, count) in visits.iter().enumerate().filter(|(_, count)| **count > 0) {
        // A product of two counts needs 128 bits.
        let height = (u128::from(*count) * u128::from(HEIGHT) / u128::from(top)) as u64;
        let _ = write!(path, "M{}-{}V0", first + index, height.max(LOWEST));
    }
    path
}

/// A point's start as a person of that language writes it.
fn time(series: &Series, index: usize, language: Language, html: &mut String) {
    let full = utc(series.start_of(index));
    let (year, month, day, minute) = (&full[..4], &full[5..7], &full[8..10], &full[11..16]);
    let date = match (language, series.period) {
        (Language::Portuguese, Period::Month) => format!("{month}/{year}"),
        (Language::Portuguese, _) => format!("{day}/{month}/{year}"),
        (Language::English, Period::Month) => format!("{year}-{month}"),
        (Language::English, _) => format!("{year}-{month}-{day}"),
    };
    let shown = match series.period {
        Period::Minute => minute.to_owned(),
        Period::Hour => format!("{date} {minute}"),
        Period::Day | Period::Month => date,
    };
    let _ = write!(html, "<time datetime=\"{full}\">{shown}</time>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_the_axis_says_and_none_is_lost() {
        assert_eq!(path(&[0, 1, 0, 1000], 0, 1000), "M1-2V0M3-100V0");
        assert_eq!(path(&[5], 59, 10), "M59-50V0");
        assert_eq!(path(&[0, 0], 0, 2), "");
        assert_eq!(path(&[u64::MAX], 0, u64::MAX), "M0-100V0");
    }

    #[test]
    fn the_axis_ends_at_a_round_value_and_so_does_its_half() {
        for (most, expected) in [
            (0, 2),
            (1, 2),
            (2, 2),
            (3, 4),
            (10, 10),
            (11, 20),
            (22, 30),
            (99, 100),
            (101, 200),
            (6_000_001, 8_000_000),
        ] {
            assert_eq!(top(most), expected, "{most}");
        }
        assert_eq!(top(u64::MAX), u64::MAX);
        assert_eq!(short(500_000, words(Language::English)), "500,000");
        assert_eq!(short(20_000_000, words(Language::Portuguese)), "20 mi");
        assert_eq!(short(4_000_000_000, words(Language::English)), "4B");
    }

    #[test]
    fn of_equal_peaks_the_newest_counts() {
        assert_eq!(peak(&[3, 7, 7, 1]), (2, 7));
        assert_eq!(peak(&[]), (0, 0));
    }
}

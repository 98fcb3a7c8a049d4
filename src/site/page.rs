//! The page: both numbers, the history and the stores' states, in the visitor's language. All but
//! the numbers is made in advance: the charts once per reading of the history, the rest at start.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::assets::Versions;
use super::negotiation::Language;
use super::text::{fill, grouped, size};
use super::words::{Words, words};
use super::{StoreNames, chart};
use crate::visits::Count;
use crate::visits::history::History;

const TEMPLATE: &str = include_str!("page.html");

/// The header fields of a page in that language.
pub(super) fn header_fields(words: &Words) -> String {
    format!(
        "Content-Type: text/html; charset=utf-8\r\nContent-Language: {}\r\n\
         Cache-Control: no-store\r\nVary: Accept, Accept-Language\r\n\
         Referrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; \
         connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\n",
        words.lang
    )
}

/// A part of the page.
#[derive(Debug)]
enum Part {
    Text(String),
    /// The counter's name with a separator behind it; empty for all visits.
    Name,
    /// The path before the counter's routes.
    Here,
    Total,
    TotalShown,
    Cache,
    CacheShown,
    /// The class of both numbers, by their digits.
    Size,
    Charts,
}

type Placeholder = (&'static str, fn() -> Part);

/// The placeholders of the parts that change.
const PLACEHOLDERS: [Placeholder; 8] = [
    ("{name}", || Part::Name),
    ("{here}", || Part::Here),
    ("{total}", || Part::Total),
    ("{total-shown}", || Part::TotalShown),
    ("{cache}", || Part::Cache),
    ("{cache-shown}", || Part::CacheShown),
    ("{size}", || Part::Size),
    ("{charts}", || Part::Charts),
];

/// Readings of names whose charts are kept, each of 2 to 5 kB. Their numbers are consecutive, so
/// the last ones are there.
const DRAWN: usize = 1024;

/// The page in one language, with the counter up and down.
#[derive(Debug)]
struct Edition {
    language: Language,
    fields: String,
    with_cache: Vec<Part>,
    without_cache: Vec<Part>,
    /// The charts of names, each at the place of its reading.
    drawn: OnceLock<Vec<Mutex<Option<Arc<Charts>>>>>,
}

/// The charts of one reading of the history, in one language.
#[derive(Debug)]
pub(super) struct Charts {
    reading: u64,
    html: Box<str>,
}

impl Charts {
    fn draw(reading: u64, history: Option<Arc<History>>, language: Language) -> Charts {
        let html = chart::render(history.as_deref(), language).into_boxed_str();
        Charts { reading, html }
    }

    pub(super) fn html(&self) -> &str {
        &self.html
    }
}

/// The page in every language.
#[derive(Debug)]
pub(super) struct Page {
    portuguese: Edition,
    english: Edition,
}

/// Both numbers as people write them.
#[derive(Debug, Default)]
struct Numbers {
    total: Vec<u8>,
    cache: Vec<u8>,
}

impl Page {
    /// `base` is what every path begins with.
    pub(super) fn new(names: StoreNames, base: &str) -> Page {
        Page {
            portuguese: Edition::new(words(Language::Portuguese), names, base),
            english: Edition::new(words(Language::English), names, base),
        }
    }

    pub(super) fn fields(&self, language: Language) -> &str {
        &self.edition(language).fields
    }

    /// Renders the page of the counter `name`, whose routes are below `here`, and lends its parts to
    /// `take`.
    pub(super) fn render<R>(
        &self,
        (language, name, here): (Language, &str, &str),
        count: Count,
        charts: &str,
        take: impl FnOnce(&[&[u8]]) -> R,
    ) -> R {
        thread_local! {
            static NUMBERS: RefCell<Numbers> = RefCell::default();
        }
        let edition = self.edition(language);
        NUMBERS.with_borrow_mut(|numbers| edition.join([name, here], count, charts, numbers, take))
    }

    /// Lends the charts of all visits to `take`. Each worker draws them once per reading and
    /// language.
    pub(super) fn charts<R>(
        &self,
        language: Language,
        reading: u64,
        history: impl FnOnce() -> Option<Arc<History>>,
        take: impl FnOnce(&str) -> R,
    ) -> R {
        thread_local! {
            static CHARTS: RefCell<[Option<Charts>; 2]> = const { RefCell::new([None, None]) };
        }
        CHARTS.with_borrow_mut(|all| {
            let charts = &mut all[language as usize];
            if charts
                .as_ref()
                .is_none_or(|charts| charts.reading != reading)
            {
                *charts = Some(Charts::draw(reading, history(), language));
            }
            take(charts.as_ref().map_or("", Charts::html))
        })
    }

    /// The charts of a name, which all workers share: there are too many for each to draw them.
    pub(super) fn charts_of_name(
        &self,
        language: Language,
        reading: u64,
        history: impl FnOnce() -> Option<Arc<History>>,
    ) -> Arc<Charts> {
        let drawn = self.edition(language).drawn.get_or_init(|| {
            let places = std::iter::repeat_with(Mutex::default);
            places.take(DRAWN).collect()
        });
        let mut place = drawn[reading as usize % DRAWN]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*place {
            Some(charts) if charts.reading == reading => Arc::clone(charts),
            _ => {
                let charts = Arc::new(Charts::draw(reading, history(), language));
                *place = Some(Arc::clone(&charts));
                charts
            }
        }
    }

    fn edition(&self, language: Language) -> &Edition {
        match language {
            Language::Portuguese => &self.portuguese,
            Language::English => &self.english,
        }
    }
}

impl Edition {
    fn new(words: &Words, names: StoreNames, base: &str) -> Edition {
        Edition {
            language: words.language,
            fields: header_fields(words),
            with_cache: parts(words, names, base, true),
            without_cache: parts(words, names, base, false),
            drawn: OnceLock::new(),
        }
    }

    /// Fills the numbers in, and lends all parts to `take`.
    fn join<R>(
        &self,
        [name, here]: [&str; 2],
        count: Count,
        charts: &str,
        numbers: &mut Numbers,
        take: impl FnOnce(&[&[u8]]) -> R,
    ) -> R {
        let parts = match count.cache {
            Some(_) => &self.with_cache,
            None => &self.without_cache,
        };
        let cache = count.cache.unwrap_or_default();
        numbers.total.clear();
        grouped(count.total, self.language, &mut numbers.total);
        numbers.cache.clear();
        grouped(cache, self.language, &mut numbers.cache);
        let mut digits = [itoa::Buffer::new(), itoa::Buffer::new()];
        let [total_digits, cache_digits] = &mut digits;
        let (total_digits, cache_digits) =
            (total_digits.format(count.total), cache_digits.format(cache));
        let mut pieces: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
        for (piece, part) in pieces.iter_mut().zip(parts) {
            *piece = match part {
                Part::Text(text) => text.as_bytes(),
                Part::Name => name.as_bytes(),
                Part::Here => here.as_bytes(),
                Part::Total => total_digits.as_bytes(),
                Part::TotalShown => &numbers.total,
                Part::Cache => cache_digits.as_bytes(),
                Part::CacheShown => &numbers.cache,
                Part::Size => size(count.total, cache).as_bytes(),
                Part::Charts => charts.as_bytes(),
            };
        }
        take(&pieces)
    }
}

/// More than a page has; a test counts them.
const MAX_PARTS: usize = 32;

/// The template with all placeholders filled but those of [`PLACEHOLDERS`].
fn parts(words: &Words, names: StoreNames, base: &str, counter_up: bool) -> Vec<Part> {
    let rows = if names.has_database() {
        words.rows
    } else {
        words.rows_in_file
    };
    let (cache_name, cache_note) = match names.counter {
        Some(_) => (words.cache, words.cache_note),
        None => (words.memory, words.memory_note),
    };
    let cache_block = if counter_up {
        "<data id=\"cache\" value=\"{cache}\">{cache-shown}</data>"
    } else {
        ""
    };
    let hidden = |hidden: bool| if hidden { " hidden" } else { "" };
    let versions = Versions::get();
    let [minutes, hours, days, months] = words.links;
    let filled = [
        ("{lang}", words.lang),
        ("{title}", words.title),
        ("{description}", words.description),
        ("{base}", base),
        ("{style-version}", &versions.style),
        ("{script-version}", &versions.script),
        ("{heading}", words.heading),
        ("{live}", words.live),
        ("{total-name}", words.total),
        ("{total-note}", rows),
        ("{cache-name}", cache_name),
        ("{cache-block}", cache_block),
        ("{cache-hidden}", hidden(!counter_up)),
        ("{cache-note}", cache_note),
        ("{down-hidden}", hidden(counter_up)),
        ("{unavailable}", words.unavailable),
        ("{cache-down}", words.cache_down),
        ("{history}", words.history),
        ("{choose}", words.choose),
        ("{minutes}", minutes),
        ("{hours}", hours),
        ("{days}", days),
        ("{months}", months),
        ("{download}", words.download),
        ("{embed}", words.embed),
        ("{stores}", words.stores),
        ("{ledger-name}", names.ledger_shown(words)),
        ("{up}", words.up),
        ("{down}", words.down),
        ("{counter-state}", &counter_state(words, names, counter_up)),
        ("{utc}", words.utc),
    ];
    split(&fill(TEMPLATE, &filled))
}

fn counter_state(words: &Words, names: StoreNames, up: bool) -> String {
    let Some(name) = names.counter else {
        return String::new();
    };
    let (class, state) = if up {
        ("", words.up)
    } else {
        (" class=\"down\"", words.down)
    };
    format!(
        "<li id=\"counter-state\"{class}>{name} \
         <b data-up=\"{}\" data-down=\"{}\">{state}</b></li>",
        words.up, words.down
    )
}

/// Cuts a text at the placeholders of the parts that change.
fn split(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    let next = |rest: &str| {
        let found = PLACEHOLDERS
            .iter()
            .filter_map(|(name, part)| rest.find(name).map(|at| (at, name.len(), part)));
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, length, part)) = next(rest) {
        parts.push(Part::Text(rest[..at].to_owned()));
        parts.push(part());
        rest = &rest[at + length..];
    }
    parts.push(Part::Text(rest.to_owned()));
    parts
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn no_placeholder_and_no_part_is_left() {
        let names = StoreNames {
            ledger: "PostgreSQL",
            counter: Some("Redis"),
        };
        let page = Page::new(names, "/base");
        let history = Arc::new(History::new(SystemTime::now(), &[]));
        for language in [Language::Portuguese, Language::English] {
            for (reading, cache, history) in [(0, Some(3), None), (1, None, Some(&history))] {
                let count = Count {
                    total: 1234,
                    pruned: 0,
                    cache,
                };
                let charts = page.charts_of_name(language, reading, || history.cloned());
                page.charts(
                    language,
                    reading,
                    || history.cloned(),
                    |same| {
                        assert_eq!(charts.html(), same);
                    },
                );
                page.render(
                    (language, "blog · ", "/here"),
                    count,
                    charts.html(),
                    |parts| {
                        let text = parts.concat();
                        let text = String::from_utf8_lossy(&text);
                        assert!(
                            !text.contains('{') && text.contains("value=\"1234\""),
                            "{text}"
                        );
                        assert!(text.ends_with("</html>\n"), "{text}");
                        assert!(text.contains("href=\"/here/stats\""), "{text}");
                        assert!(text.contains("<title>blog · "), "{text}");
                        assert_eq!(cache.is_some(), text.contains("id=\"cache\""));
                        assert_eq!(history.is_some(), text.contains("<figure"), "{text}");
                    },
                );
            }
        }
    }
    #[test]
    fn each_reading_of_a_name_is_drawn_once_and_never_shown_as_another() {
        let names = StoreNames {
            ledger: "PostgreSQL",
            counter: None,
        };
        let page = Page::new(names, "");
        let history = Arc::new(History::new(SystemTime::now(), &[]));
        let (pt, en) = (Language::Portuguese, Language::English);
        let first = page.charts_of_name(pt, 5, || Some(Arc::clone(&history)));
        let again = page.charts_of_name(pt, 5, || panic!("drawn twice"));
        assert!(Arc::ptr_eq(&first, &again));
        let english = page.charts_of_name(en, 5, || Some(Arc::clone(&history)));
        assert_ne!(first.html(), english.html());
        // The same place.
        let other = page.charts_of_name(pt, 5 + DRAWN as u64, || None);
        assert_ne!(first.html(), other.html());
        let anew = page.charts_of_name(pt, 5, || Some(Arc::clone(&history)));
        assert_eq!(first.html(), anew.html());
    }
}

//! The page: both numbers, the history and the stores' states, in the visitor's language. All but
//! the numbers is made in advance: the charts once per reading of the history, the rest at start.

use std::cell::RefCell;

use super::StoreNames;
use super::assets::Versions;
use super::drawn::Drawn;
use super::negotiation::Language;
use super::text::{fill, grouped, size};
use super::words::{Words, words};
use crate::visits::Count;

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

/// The page in one language.
#[derive(Debug)]
struct Edition {
    language: Language,
    fields: String,
    /// Of all visits: the paths are known at start.
    all: Layout,
    /// Of a counter by name.
    named: Layout,
}

/// The page's parts with the counter up and down.
#[derive(Debug)]
struct Layout {
    with_cache: Vec<Part>,
    without_cache: Vec<Part>,
}

/// The page in every language.
#[derive(Debug)]
pub(super) struct Page {
    portuguese: Edition,
    english: Edition,
    /// The charts of names.
    pub(super) drawn: Drawn,
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
            drawn: Drawn::default(),
        }
    }

    pub(super) fn fields(&self, language: Language) -> &str {
        &self.edition(language).fields
    }

    /// Renders the page of all visits or of one counter, given by its title and the path before its
    /// routes, and lends its parts to `take`.
    pub(super) fn render<R>(
        &self,
        (language, counter): (Language, Option<[&str; 2]>),
        count: Count,
        chart: &str,
        take: impl FnOnce(&[&[u8]]) -> R,
    ) -> R {
        thread_local! {
            static NUMBERS: RefCell<Numbers> = RefCell::default();
        }
        let edition = self.edition(language);
        NUMBERS.with_borrow_mut(|numbers| edition.join(counter, count, chart, numbers, take))
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
            all: Layout::new(words, names, base, &[("{name}", ""), ("{here}", base)]),
            named: Layout::new(words, names, base, &[]),
        }
    }

    /// Fills the numbers in, and lends all parts to `take`.
    fn join<R>(
        &self,
        counter: Option<[&str; 2]>,
        count: Count,
        chart: &str,
        numbers: &mut Numbers,
        take: impl FnOnce(&[&[u8]]) -> R,
    ) -> R {
        let layout = if counter.is_some() {
            &self.named
        } else {
            &self.all
        };
        let [name, here] = counter.unwrap_or_default();
        let parts = match count.cache {
            Some(_) => &layout.with_cache,
            None => &layout.without_cache,
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
                Part::Charts => chart.as_bytes(),
            };
        }
        take(&pieces)
    }
}

impl Layout {
    /// `known` are the placeholders of [`PLACEHOLDERS`] whose values never change.
    fn new(words: &Words, names: StoreNames, base: &str, known: &[(&str, &str)]) -> Layout {
        let parts = |counter_up| split(&fill(&text(words, names, base, counter_up), known));
        Layout {
            with_cache: parts(true),
            without_cache: parts(false),
        }
    }
}

/// More than a page has; a test counts them.
const MAX_PARTS: usize = 32;

/// The template with all placeholders filled but those of [`PLACEHOLDERS`].
fn text(words: &Words, names: StoreNames, base: &str, counter_up: bool) -> String {
    let rows = if names.has_database() {
        words.rows
    } else {
        words.rows_in_file
    };
    let (cache_name, cache_note) = match names.counter {
        Some(_) => (words.cache, words.cache_note),
        None => (words.memory, words.memory_note),
    };
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
        ("{total-name}", words.total),
        ("{total-note}", rows),
        ("{cache-name}", cache_name),
        ("{cache-tile}", &cache_tile(words, cache_note, counter_up)),
        ("{history}", words.history),
        ("{choose}", words.choose),
        ("{minutes}", minutes),
        ("{hours}", hours),
        ("{days}", days),
        ("{months}", months),
        ("{download}", words.download),
        ("{stores}", words.stores),
        ("{ledger-name}", names.ledger_shown(words)),
        ("{up}", words.up),
        ("{counter-state}", &counter_state(words, names, counter_up)),
        ("{utc}", words.utc),
    ];
    fill(TEMPLATE, &filled)
}

/// The number with its note, or why there is none. live.js makes the other one.
fn cache_tile(words: &Words, note: &str, up: bool) -> String {
    if up {
        format!(
            "<dd><data id=\"cache\" value=\"{{cache}}\">{{cache-shown}}</data></dd>\n\
             <dd id=\"cache-note\" class=\"note\">{note}</dd>"
        )
    } else {
        format!(
            "<dd id=\"cache-down\" class=\"note\"><b class=\"unknown\">{}</b>{}</dd>",
            words.unavailable, words.cache_down
        )
    }
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
    format!("<li id=\"counter-state\"{class}>{name} <b>{state}</b></li>")
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
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::visits::history::History;

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
                let chart = Drawn::default();
                let chart = chart.of_name(language, reading, || history.cloned());
                page.render(
                    (language, Some(["blog · ", "/base/c/blog"])),
                    count,
                    chart.html(),
                    |parts| {
                        let text = parts.concat();
                        let text = String::from_utf8_lossy(&text);
                        assert!(
                            !text.contains('{') && text.contains("value=\"1234\""),
                            "{text}"
                        );
                        assert!(text.ends_with("</html>\n"), "{text}");
                        assert!(text.contains("href=\"/base/c/blog/stats\""), "{text}");
                        assert!(text.contains("<title>blog · "), "{text}");
                        assert_eq!(cache.is_some(), text.contains("id=\"cache\""));
                        assert_eq!(history.is_some(), text.contains("<figure"), "{text}");
                    },
                );
            }
        }
    }
}

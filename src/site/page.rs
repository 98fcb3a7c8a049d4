//! The page: both numbers, the history and the stores' states, in the visitor's language. All but
//! the numbers is made in advance: the charts about once a second while somebody asks, the rest at
//! start.

use std::cell::RefCell;
use std::sync::Arc;

use super::negotiation::Language;
use super::text::grouped;
use super::{StoreNames, chart};
use crate::visits::Count;
use crate::visits::history::History;

const TEMPLATE: &str = include_str!("page.html");
/// Served beside the page: a browser loads it once, so a visit is smaller.
pub(super) const STYLE: &str = include_str!("page.css");
/// Served beside the page.
pub(super) const SCRIPT: &str = include_str!("live.js");

/// The page's texts in one language.
struct Words {
    language: Language,
    lang: &'static str,
    title: &'static str,
    description: &'static str,
    heading: &'static str,
    live: &'static str,
    total_name: &'static str,
    /// `{}` is the ledger's name.
    total_note: &'static str,
    cache_name: &'static str,
    /// `{}` is the counter's name.
    cache_note: &'static str,
    cache_note_in_process: &'static str,
    cache_down: &'static str,
    embedded: &'static str,
    embedded_name: &'static str,
    history: &'static str,
    period: &'static str,
    last_hour: &'static str,
    last_days: &'static str,
    last_months: &'static str,
    stores: &'static str,
    up: &'static str,
    down: &'static str,
    times: &'static str,
    history_json: &'static str,
}

const PORTUGUESE: Words = Words {
    language: Language::Portuguese,
    lang: "pt-BR",
    title: "Visitas",
    description: "Quantas visitas esta página já teve.",
    heading: "Contador de visitas",
    live: "ao vivo",
    total_name: "Total de visitas",
    total_note: "Uma linha por visita, guardada em {}.",
    cache_name: "Visitas no cache",
    cache_note: "Contadas em {} desde que ele começou.",
    cache_note_in_process: "Contadas na memória desde que este processo começou.",
    cache_down: "O cache está indisponível; a visita foi contada no total.",
    embedded: "um arquivo local",
    embedded_name: "Arquivo local",
    history: "Histórico",
    period: "Período",
    last_hour: "última hora",
    last_days: "dois dias",
    last_months: "90 dias",
    stores: "Onde as visitas são guardadas",
    up: "funcionando",
    down: "fora do ar",
    times: "Horários em UTC.",
    history_json: "histórico em JSON",
};

const ENGLISH: Words = Words {
    language: Language::English,
    lang: "en",
    title: "Visits",
    description: "How many visits this page has had.",
    heading: "Visit counter",
    live: "live",
    total_name: "All visits",
    total_note: "One row per visit, kept in {}.",
    cache_name: "Visits in the cache",
    cache_note: "Counted in {} since it started.",
    cache_note_in_process: "Counted in memory since this process started.",
    cache_down: "The cache is unavailable; the visit is counted in the total.",
    embedded: "a local file",
    embedded_name: "Local file",
    history: "History",
    period: "Period",
    last_hour: "last hour",
    last_days: "two days",
    last_months: "90 days",
    stores: "Where visits are kept",
    up: "working",
    down: "down",
    times: "Times in UTC.",
    history_json: "history as JSON",
};

/// A part of the page.
#[derive(Debug)]
enum Part {
    Text(String),
    Total,
    TotalShown,
    Cache,
    CacheShown,
    Charts,
}

type Placeholder = (&'static str, fn() -> Part);

/// The placeholders of the parts that change.
const PLACEHOLDERS: [Placeholder; 5] = [
    ("{total}", || Part::Total),
    ("{total-shown}", || Part::TotalShown),
    ("{cache}", || Part::Cache),
    ("{cache-shown}", || Part::CacheShown),
    ("{charts}", || Part::Charts),
];

/// The page in one language, with the counter up and down.
#[derive(Debug)]
struct Edition {
    language: Language,
    fields: String,
    with_cache: Vec<Part>,
    without_cache: Vec<Part>,
}

/// The charts of one reading of the history, in one language.
#[derive(Debug)]
struct Charts {
    reading: u64,
    html: Vec<u8>,
}

/// The page in every language.
#[derive(Debug)]
pub(super) struct Page {
    portuguese: Edition,
    english: Edition,
}

impl Page {
    /// `base` is what every path begins with.
    pub(super) fn new(names: StoreNames, base: &str) -> Page {
        Page {
            portuguese: Edition::new(&PORTUGUESE, names, base),
            english: Edition::new(&ENGLISH, names, base),
        }
    }

    pub(super) fn fields(&self, language: Language) -> &str {
        &self.edition(language).fields
    }

    /// Renders the page and lends it to `take`. Its charts show that reading of the history; each
    /// worker draws them once per reading and language.
    pub(super) fn render<R>(
        &self,
        language: Language,
        count: Count,
        reading: u64,
        history: impl FnOnce() -> Option<Arc<History>>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> R {
        thread_local! {
            static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
            static CHARTS: RefCell<[Option<Charts>; 2]> = const { RefCell::new([None, None]) };
        }
        let edition = self.edition(language);
        let parts = if count.cache.is_some() {
            &edition.with_cache
        } else {
            &edition.without_cache
        };
        let cache = count.cache.unwrap_or_default();
        let mut digits = itoa::Buffer::new();
        let fill = |body: &mut Vec<u8>, charts: &[u8]| {
            body.clear();
            for part in parts {
                match part {
                    Part::Text(text) => body.extend_from_slice(text.as_bytes()),
                    Part::Total => body.extend_from_slice(digits.format(count.total).as_bytes()),
                    Part::TotalShown => grouped(count.total, edition.language, body),
                    Part::Cache => body.extend_from_slice(digits.format(cache).as_bytes()),
                    Part::CacheShown => grouped(cache, edition.language, body),
                    Part::Charts => body.extend_from_slice(charts),
                }
            }
            take(body)
        };
        CHARTS.with_borrow_mut(|all| {
            let charts = &mut all[language as usize];
            if charts
                .as_ref()
                .is_none_or(|charts| charts.reading != reading)
            {
                let html = chart::render(history().as_deref(), language).into_bytes();
                *charts = Some(Charts { reading, html });
            }
            let html = charts.as_ref().map_or(&[][..], |charts| &charts.html);
            BODY.with_borrow_mut(|body| fill(body, html))
        })
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
        let fields = format!(
            "Content-Type: text/html; charset=utf-8\r\nContent-Language: {}\r\n\
             Cache-Control: no-store\r\nVary: Accept, Accept-Language\r\n\
             Referrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; \
             connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'\r\n",
            words.lang
        );
        let note = match names.counter {
            Some(name) => words.cache_note.replace("{}", name),
            None => words.cache_note_in_process.to_owned(),
        };
        let up = format!(
            "<dd><data id=\"cache\" value=\"{{cache}}\">{{cache-shown}}</data></dd>\
             <dd class=\"note\">{note}</dd>"
        );
        let down = format!("<dd class=\"note\">{}</dd>", words.cache_down);
        let (with_cache, without_cache) = (
            parts(words, names, base, &up, true),
            parts(words, names, base, &down, false),
        );
        Edition {
            language: words.language,
            fields,
            with_cache,
            without_cache,
        }
    }
}

/// The template with all placeholders filled but those of [`PLACEHOLDERS`].
fn parts(
    words: &Words,
    names: StoreNames,
    base: &str,
    cache_block: &str,
    counter_up: bool,
) -> Vec<Part> {
    let postgres = names.ledger == "PostgreSQL";
    let (ledger, ledger_name) = if postgres {
        (names.ledger, names.ledger)
    } else {
        (words.embedded, words.embedded_name)
    };
    let counter_state = names.counter.map_or(String::new(), |name| {
        let (class, state) = if counter_up {
            ("", words.up)
        } else {
            (" class=\"down\"", words.down)
        };
        format!(
            "<li id=\"counter-state\"{class}>{name} \
             <b data-up=\"{}\" data-down=\"{}\">{state}</b></li>",
            words.up, words.down
        )
    });
    let total_note = words.total_note.replace("{}", ledger);
    let (style_version, script_version) = (version(STYLE), version(SCRIPT));
    let filled = [
        ("{lang}", words.lang),
        ("{base}", base),
        ("{title}", words.title),
        ("{description}", words.description),
        ("{style-version}", &style_version),
        ("{script-version}", &script_version),
        ("{heading}", words.heading),
        ("{live}", words.live),
        ("{total-name}", words.total_name),
        ("{total-note}", &total_note),
        ("{cache-name}", words.cache_name),
        ("{cache-block}", cache_block),
        ("{history}", words.history),
        ("{period}", words.period),
        ("{last-hour}", words.last_hour),
        ("{last-days}", words.last_days),
        ("{last-months}", words.last_months),
        ("{stores}", words.stores),
        ("{ledger-name}", ledger_name),
        ("{up}", words.up),
        ("{down}", words.down),
        ("{counter-state}", &counter_state),
        ("{times}", words.times),
        ("{history-json}", words.history_json),
    ];
    let text = filled
        .iter()
        .fold(TEMPLATE.to_owned(), |text, (placeholder, value)| {
            text.replace(placeholder, value)
        });
    let mut parts = Vec::new();
    let mut rest = text.as_str();
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

/// A file's version, so that a browser may keep the file for ever: FNV-1a, 32 bits.
fn version(text: &str) -> String {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn no_placeholder_is_left() {
        let names = StoreNames {
            ledger: "PostgreSQL",
            counter: Some("Redis"),
        };
        let page = Page::new(names, "/visits");
        let history = Arc::new(History::new(SystemTime::now(), &[]));
        for language in [Language::Portuguese, Language::English] {
            for (reading, cache, history) in [(0, Some(3), None), (1, None, Some(&history))] {
                page.render(
                    language,
                    Count {
                        total: 1234,
                        pruned: 0,
                        cache,
                    },
                    reading,
                    || history.cloned(),
                    |body| {
                        let text = String::from_utf8_lossy(body);
                        assert!(
                            !text.contains('{') && text.contains("value=\"1234\""),
                            "{text}"
                        );
                        assert_eq!(cache.is_some(), text.contains("id=\"cache\""));
                        assert_eq!(history.is_some(), text.contains("<figure"), "{text}");
                    },
                );
            }
        }
    }
}

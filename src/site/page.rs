//! The page: both numbers, the history and the stores' states, in the visitor's language. All but
//! the numbers is made in advance, at start or, for the charts, about once a second while somebody
//! looks.

use std::cell::RefCell;
use std::sync::Arc;

use super::negotiation::Language;
use super::text::grouped;
use super::{StoreNames, chart};
use crate::visits::Count;
use crate::visits::history::History;

const TEMPLATE: &str = include_str!("page.html");
/// The page's style, served beside it: a browser takes it once, and a visit is so much smaller.
pub(super) const STYLE: &str = include_str!("page.css");
/// The page's script, served beside it.
pub(super) const SCRIPT: &str = include_str!("live.js");

/// What the page says, in one language.
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
    cache_away: &'static str,
    embedded: &'static str,
    embedded_name: &'static str,
    history: &'static str,
    period: &'static str,
    last_hour: &'static str,
    last_days: &'static str,
    last_months: &'static str,
    stores: &'static str,
    up: &'static str,
    away: &'static str,
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
    total_note: "Uma linha por visita, guardada em {}: sobrevive a tudo.",
    cache_name: "Visitas no cache",
    cache_note: "Contadas em {} desde que ele começou.",
    cache_note_in_process: "Contadas na memória desde que este processo começou.",
    cache_away: "O cache está indisponível; a visita foi contada no total.",
    embedded: "um arquivo local",
    embedded_name: "Arquivo local",
    history: "Histórico",
    period: "Período",
    last_hour: "última hora",
    last_days: "dois dias",
    last_months: "90 dias",
    stores: "Onde as visitas são guardadas",
    up: "funcionando",
    away: "fora do ar",
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
    total_note: "One row a visit, kept in {}: survives everything.",
    cache_name: "Visits in the cache",
    cache_note: "Counted in {} since it started.",
    cache_note_in_process: "Counted in memory since this process started.",
    cache_away: "The cache is unavailable; the visit is counted in the total.",
    embedded: "a local file",
    embedded_name: "Local file",
    history: "History",
    period: "Period",
    last_hour: "last hour",
    last_days: "two days",
    last_months: "90 days",
    stores: "Where visits are kept",
    up: "working",
    away: "away",
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

/// The name of a place, and the part that stands there.
type Place = (&'static str, fn() -> Part);

/// Where the parts that change stand in the template.
const PLACES: [Place; 5] = [
    ("{total}", || Part::Total),
    ("{total-shown}", || Part::TotalShown),
    ("{cache}", || Part::Cache),
    ("{cache-shown}", || Part::CacheShown),
    ("{charts}", || Part::Charts),
];

/// The page in one language, with the counter there and away.
#[derive(Debug)]
struct Edition {
    language: Language,
    fields: String,
    with_cache: Vec<Part>,
    without_cache: Vec<Part>,
}

/// The charts of one look at the history, in one language.
#[derive(Debug)]
struct Charts {
    look: u64,
    html: Vec<u8>,
}

/// The page in every language.
#[derive(Debug)]
pub(super) struct Page {
    portuguese: Edition,
    english: Edition,
}

impl Page {
    pub(super) fn new(names: StoreNames) -> Page {
        Page {
            portuguese: Edition::new(&PORTUGUESE, names),
            english: Edition::new(&ENGLISH, names),
        }
    }

    /// The header fields that go with the page.
    pub(super) fn fields(&self, language: Language) -> &str {
        &self.edition(language).fields
    }

    /// Renders the page and lends it to `take`. Its charts are those of that look at the history,
    /// which `history` gives; each worker draws them once a look and language.
    pub(super) fn render(
        &self,
        language: Language,
        count: Count,
        look: u64,
        history: impl FnOnce() -> Option<Arc<History>>,
        take: impl FnOnce(&[u8]),
    ) {
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
            take(body);
        };
        CHARTS.with_borrow_mut(|all| {
            let charts = &mut all[language as usize];
            if charts.as_ref().is_none_or(|charts| charts.look != look) {
                let html = chart::render(history().as_deref(), language).into_bytes();
                *charts = Some(Charts { look, html });
            }
            let html = charts.as_ref().map_or(&[][..], |charts| &charts.html);
            BODY.with_borrow_mut(|body| fill(body, html));
        });
    }

    fn edition(&self, language: Language) -> &Edition {
        match language {
            Language::Portuguese => &self.portuguese,
            Language::English => &self.english,
        }
    }
}

impl Edition {
    fn new(words: &Words, names: StoreNames) -> Edition {
        let fields = format!(
            "Content-Type: text/html; charset=utf-8\r\nContent-Language: {}\r\nCache-Control: no-store\r\n\
             Vary: Accept, Accept-Language\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
             img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            words.lang
        );
        let note = match names.counter {
            Some(name) => words.cache_note.replace("{}", name),
            None => words.cache_note_in_process.to_owned(),
        };
        let there = format!(
            "<dd><data id=\"cache\" value=\"{{cache}}\">{{cache-shown}}</data></dd><dd class=\"note\">{note}</dd>"
        );
        let away = format!("<dd class=\"note\">{}</dd>", words.cache_away);
        let (with_cache, without_cache) = (
            parts(words, names, &there, true),
            parts(words, names, &away, false),
        );
        Edition {
            language: words.language,
            fields,
            with_cache,
            without_cache,
        }
    }
}

/// The template with everything filled in but what changes.
fn parts(words: &Words, names: StoreNames, cache_block: &str, counter_up: bool) -> Vec<Part> {
    let postgres = names.ledger == "PostgreSQL";
    let (ledger, ledger_name) = if postgres {
        (names.ledger, names.ledger)
    } else {
        (words.embedded, words.embedded_name)
    };
    let counter_state = names.counter.map_or(String::new(), |name| {
        let (class, state) = if counter_up { ("", words.up) } else { (" class=\"away\"", words.away) };
        format!(
            "<li id=\"counter-state\"{class}>{name} <b data-up=\"{}\" data-away=\"{}\">{state}</b></li>",
            words.up, words.away
        )
    });
    let text = TEMPLATE
        .replace("{lang}", words.lang)
        .replace("{title}", words.title)
        .replace("{description}", words.description)
        .replace("{style-version}", &version(STYLE))
        .replace("{script-version}", &version(SCRIPT))
        .replace("{heading}", words.heading)
        .replace("{live}", words.live)
        .replace("{total-name}", words.total_name)
        .replace("{total-note}", &words.total_note.replace("{}", ledger))
        .replace("{cache-name}", words.cache_name)
        .replace("{cache-block}", cache_block)
        .replace("{history}", words.history)
        .replace("{period}", words.period)
        .replace("{last-hour}", words.last_hour)
        .replace("{last-days}", words.last_days)
        .replace("{last-months}", words.last_months)
        .replace("{stores}", words.stores)
        .replace("{ledger-name}", ledger_name)
        .replace("{up}", words.up)
        .replace("{away}", words.away)
        .replace("{counter-state}", &counter_state)
        .replace("{times}", words.times)
        .replace("{history-json}", words.history_json);
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    let next = |rest: &str| {
        let found = PLACES
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

/// Tells this version of a file from every other, so that a browser may keep it for ever: FNV-1a,
/// 32 bits.
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
        let page = Page::new(StoreNames {
            ledger: "PostgreSQL",
            counter: Some("Redis"),
        });
        let history = Arc::new(History::new(SystemTime::now(), &[]));
        for language in [Language::Portuguese, Language::English] {
            for (look, cache, history) in [(0, Some(3), None), (1, None, Some(&history))] {
                page.render(
                    language,
                    Count {
                        total: 1234,
                        pruned: 0,
                        cache,
                    },
                    look,
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

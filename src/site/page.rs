//! The page: both numbers in the visitor's language. Made once at start, but for the numbers.

use std::cell::RefCell;

use super::StoreNames;
use super::negotiation::Language;
use crate::visits::Count;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// The hash that allows [`STYLE`] and no other style (CSP Level 3, section 2.3.1). A test holds the two together.
const STYLE_HASH: &str = "sha256-GKS5aqR38KBz3tQJ8TalT3f5jdYIveJDd7lBK8KAEj8=";

/// What the page says, in one language.
struct Words {
    lang: &'static str,
    title: &'static str,
    heading: &'static str,
    total_name: &'static str,
    /// `{}` is the ledger's name.
    total_note: &'static str,
    cache_name: &'static str,
    /// `{}` is the counter's name.
    cache_note: &'static str,
    cache_note_in_process: &'static str,
    cache_away: &'static str,
    embedded: &'static str,
}

const PORTUGUESE: Words = Words {
    lang: "pt-BR",
    title: "Visitas",
    heading: "Contador de visitas",
    total_name: "Total de visitas",
    total_note: "Uma linha por visita, guardada em {}: sobrevive a tudo.",
    cache_name: "Visitas no cache",
    cache_note: "Contadas em {} desde que ele começou.",
    cache_note_in_process: "Contadas na memória desde que este processo começou.",
    cache_away: "O cache está indisponível; a visita foi contada no total.",
    embedded: "um arquivo local",
};

const ENGLISH: Words = Words {
    lang: "en",
    title: "Visits",
    heading: "Visit counter",
    total_name: "All visits",
    total_note: "One row a visit, kept in {}: survives everything.",
    cache_name: "Visits in the cache",
    cache_note: "Counted in {} since it started.",
    cache_note_in_process: "Counted in memory since this process started.",
    cache_away: "The cache is unavailable; the visit is counted in the total.",
    embedded: "a local file",
};

/// A part of the page.
#[derive(Debug)]
enum Part {
    Text(String),
    Total,
    Cache,
}

/// The page in one language, with the counter there and away.
#[derive(Debug)]
struct Edition {
    fields: String,
    with_cache: Vec<Part>,
    without_cache: Vec<Part>,
}

/// The page in every language.
#[derive(Debug)]
pub(super) struct Page {
    portuguese: Edition,
    english: Edition,
}

impl Page {
    pub(super) fn new(names: StoreNames) -> Page {
        Page { portuguese: Edition::new(&PORTUGUESE, names), english: Edition::new(&ENGLISH, names) }
    }

    /// The header fields that go with the page.
    pub(super) fn fields(&self, language: Language) -> &str {
        &self.edition(language).fields
    }

    /// Renders the page and lends it to `take`.
    pub(super) fn render(&self, language: Language, count: Count, take: impl FnOnce(&[u8])) {
        thread_local! {
            static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let edition = self.edition(language);
        let parts = if count.cache.is_some() { &edition.with_cache } else { &edition.without_cache };
        let (mut total, mut cache) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (total, cache) = (total.format(count.total), cache.format(count.cache.unwrap_or_default()));
        BODY.with_borrow_mut(|body| {
            body.clear();
            for part in parts {
                body.extend_from_slice(match part {
                    Part::Text(text) => text.as_bytes(),
                    Part::Total => total.as_bytes(),
                    Part::Cache => cache.as_bytes(),
                });
            }
            take(body);
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
             Vary: Accept, Accept-Language\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; style-src '{STYLE_HASH}'; img-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'\r\n",
            words.lang
        );
        let note = match names.counter {
            Some(name) => words.cache_note.replace("{}", name),
            None => words.cache_note_in_process.to_owned(),
        };
        let there =
            format!("<dd><data id=\"cache\" value=\"{{cache}}\">{{cache}}</data></dd><dd class=\"note\">{note}</dd>");
        let away = format!("<dd class=\"note\">{}</dd>", words.cache_away);
        Edition { fields, with_cache: parts(words, names, &there), without_cache: parts(words, names, &away) }
    }
}

/// The template with everything filled in but the numbers.
fn parts(words: &Words, names: StoreNames, cache_block: &str) -> Vec<Part> {
    let ledger = if names.ledger == "PostgreSQL" { names.ledger } else { words.embedded };
    let text = TEMPLATE
        .replace("{style}", STYLE)
        .replace("{lang}", words.lang)
        .replace("{title}", words.title)
        .replace("{heading}", words.heading)
        .replace("{total-name}", words.total_name)
        .replace("{total-note}", &words.total_note.replace("{}", ledger))
        .replace("{cache-name}", words.cache_name)
        .replace("{cache-block}", cache_block);
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = [rest.find("{total}"), rest.find("{cache}")].into_iter().flatten().min() {
        parts.push(Part::Text(rest[..at].to_owned()));
        parts.push(if rest[at..].starts_with("{total}") { Part::Total } else { Part::Cache });
        rest = &rest[at + "{total}".len()..];
    }
    parts.push(Part::Text(rest.to_owned()));
    parts
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_policy_allows_the_style_there_is() {
        let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
        assert_eq!(STYLE_HASH, format!("sha256-{digest}"));
    }

    #[test]
    fn no_placeholder_is_left() {
        let names = StoreNames { ledger: "PostgreSQL", counter: Some("Redis") };
        let page = Page::new(names);
        for language in [Language::Portuguese, Language::English] {
            for cache in [Some(3), None] {
                page.render(language, Count { total: 12, cache }, |body| {
                    let text = String::from_utf8_lossy(body);
                    let body = text.split("</style>").nth(1).unwrap_or_default();
                    assert!(!body.contains('{') && body.contains("value=\"12\""), "{text}");
                    assert_eq!(cache.is_some(), body.contains("id=\"cache\""));
                });
            }
        }
    }
}

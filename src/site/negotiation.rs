//! The form and the language of an answer: proactive negotiation by Accept and Accept-Language (RFC
//! 9110, section 12).

use super::query;
use crate::http::Request;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    /// `{"total":N,"cache":M}`
    Json,
    /// The page; where there is none, a sentence instead of the page that says so.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `pt-BR`
    Portuguese,
    /// `en`
    English,
}

/// JSON where it is preferred to HTML, otherwise the page.
pub(super) fn format(request: &Request<'_>) -> Format {
    if prefers(request, "application/json", "text/html") {
        Format::Json
    } else if prefers(request, "text/plain", "text/html") {
        Format::Text
    } else {
        Format::Html
    }
}

/// Whether CSV is asked for instead of JSON, by `?format=` or else by Accept; `None` for an unknown
/// word.
pub(super) fn asks_csv(request: &Request<'_>) -> Option<bool> {
    match query::value(request.target, "format").as_deref() {
        Some("csv") => Some(true),
        Some("json") => Some(false),
        Some(_) => None,
        None => Some(prefers(request, "text/csv", "application/json")),
    }
}

/// Whether Accept prefers the media type `wanted` to `usual`: by quality, then by how specific the
/// matching range is. Without Accept it does not.
fn prefers(request: &Request<'_>, wanted: &str, usual: &str) -> bool {
    let of = |media_type: &str| {
        let mut preference = Preference::default();
        for (range, quality) in request.fields("accept").flat_map(weighted) {
            if let Some(specificity) = matches(range, media_type) {
                preference.offer(specificity, quality);
            }
        }
        preference
    };
    let (wanted, usual) = (of(wanted), of(usual));
    wanted.quality > 0 && (wanted.quality, wanted.specificity) > (usual.quality, usual.specificity)
}

/// How specific the range matches the type (RFC 9110, section 12.5.1): 2 in full, 1 as `type/*`, 0
/// as `*/*`.
fn matches(range: &str, media_type: &str) -> Option<u8> {
    let family = media_type.split('/').next()?;
    match range.strip_suffix("/*") {
        Some("*") => Some(0),
        Some(prefix) => prefix.eq_ignore_ascii_case(family).then_some(1),
        None => range.eq_ignore_ascii_case(media_type).then_some(2),
    }
}

/// Portuguese where it is asked for and English is not preferred, or where no language is; English
/// also where only other languages are asked for.
pub(super) fn language(request: &Request<'_>) -> Language {
    let (mut english, mut portuguese) = (Preference::default(), Preference::default());
    let mut other = false;
    for (range, quality) in request.fields("accept-language").flat_map(weighted) {
        let range = range.to_ascii_lowercase();
        match range.split('-').next() {
            // Of `en-US, en;q=0.9` the better one counts: there is one English.
            Some("en") => english.better(1, quality),
            Some("pt") => portuguese.better(1, quality),
            Some("*") => {
                english.offer(0, quality);
                portuguese.offer(0, quality);
            }
            _ => other |= quality > 0,
        }
    }
    let wants_portuguese = portuguese.is_named() && portuguese.quality > 0;
    let refuses_english = english.is_named() && english.quality == 0;
    // A reader of another language more often reads English.
    let instead = other && !wants_portuguese && !refuses_english;
    if english.quality > portuguese.quality || instead {
        Language::English
    } else {
        Language::Portuguese
    }
}

/// The quality, in thousandths, that the most specific matching range gives.
#[derive(Debug, Default)]
struct Preference {
    quality: u16,
    specificity: Option<u8>,
}

impl Preference {
    /// A range matched that is not `*`.
    fn is_named(&self) -> bool {
        self.specificity > Some(0)
    }

    /// A range matches: it counts unless a more specific one did.
    fn offer(&mut self, specificity: u8, quality: u16) {
        if self.specificity.is_none_or(|before| before <= specificity) {
            *self = Preference {
                quality,
                specificity: Some(specificity),
            };
        }
    }

    /// As [`Preference::offer`], but of two equally specific ranges the better counts.
    fn better(&mut self, specificity: u8, quality: u16) {
        let before = if self.specificity == Some(specificity) {
            self.quality
        } else {
            0
        };
        self.offer(specificity, quality.max(before));
    }
}

/// The members of a list with their qualities (RFC 9110, section 12.4.2), without invalid ones.
fn weighted(list: &[u8]) -> impl Iterator<Item = (&str, u16)> {
    std::str::from_utf8(list)
        .unwrap_or_default()
        .split(',')
        .filter_map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let range = parts.next().filter(|range| !range.is_empty())?;
            let weight =
                parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some((range, weight.map_or(Some(1000), thousandths)?))
        })
}

/// `0`, `1`, or with up to three decimals.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{decimals:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_as_the_grammar_has_them() {
        assert_eq!(thousandths("1"), Some(1000));
        assert_eq!(thousandths("0.5"), Some(500));
        assert_eq!(thousandths("0.001"), Some(1));
        assert_eq!(thousandths("1.000"), Some(1000));
        for wrong in ["", "2", "1.1", "0.1234", "-1", "0.x", ".5"] {
            assert_eq!(thousandths(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_keep_their_order_and_drop_what_is_not_valid() {
        let list: Vec<(&str, u16)> = weighted(b"a;q=0.5, b ;level=1;q=0.25,, c;q=7, d").collect();
        assert_eq!(list, [("a", 500), ("b", 250), ("d", 1000)]);
    }
}

//! Numbers as a language writes them, times in UTC, and text inside XML or JSON.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::locale::Grouping;
use super::negotiation::Language;
use crate::logging;

/// Appends `1.234` in Portuguese, `1,234` in English.
pub(super) fn grouped(number: impl itoa::Integer, language: Language, into: &mut Vec<u8>) {
    grouping(language).append(number, into);
}

/// As [`grouped`], on its own.
pub(super) fn grouped_text(number: impl itoa::Integer, language: Language) -> String {
    grouping(language).write(number)
}

fn grouping(language: Language) -> Grouping {
    match language {
        Language::Portuguese => Grouping::new(".", 4),
        Language::English => Grouping::new(",", 4),
    }
}

/// The template with its placeholders filled in.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let text = template.to_owned();
    values
        .iter()
        .fold(text, |text, (place, value)| text.replace(place, value))
}

/// The class of both numbers, by the digits of the longer one: the style makes long ones smaller,
/// so that none is broken.
pub(super) fn size(total: u64, cache: i64) -> &'static str {
    match total.max(cache.unsigned_abs()) {
        0..1_000_000 => "n6",
        1_000_000..1_000_000_000 => "n9",
        1_000_000_000..1_000_000_000_000 => "n12",
        _ => "n19",
    }
}

/// `2026-01-31T12:00:00Z`
pub(super) fn utc(unix_s: i64) -> String {
    let mut time = logging::rfc3339(UNIX_EPOCH + Duration::from_secs(unix_s.unsigned_abs()));
    time.truncate("2026-01-31T12:00:00".len());
    time + "Z"
}

/// Appends `text` for XML and its attributes. What XML cannot hold becomes U+FFFD.
pub(super) fn escape_xml(text: &str, into: &mut String) {
    for c in text.chars() {
        match c {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\'' => into.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => into.push('\u{fffd}'),
            c => into.push(c),
        }
    }
}

/// Appends `text` for the value of a query (RFC 3986, section 2.1).
pub(super) fn percent_encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// Appends `text` as a JSON string, with its quotes.
pub(super) fn json_string(text: &str, into: &mut String) {
    into.push('"');
    logging::escape_json(text, into);
    into.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_the_right() {
        let shown = |number: i64, language| {
            let mut text = Vec::new();
            grouped(number, language, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        for (number, portuguese, english) in [
            (0, "0", "0"),
            (999, "999", "999"),
            (1234, "1.234", "1,234"),
            (-1_234_567, "-1.234.567", "-1,234,567"),
        ] {
            assert_eq!(shown(number, Language::Portuguese), portuguese);
            assert_eq!(shown(number, Language::English), english);
        }
    }

    #[test]
    fn times_end_with_their_zone() {
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
    }

    #[test]
    fn nothing_gets_out_of_a_string() {
        let (mut xml, mut json) = (String::new(), String::new());
        escape_xml("<a b='\"&\u{1}", &mut xml);
        assert_eq!(xml, "&lt;a b=&#39;&quot;&amp;\u{fffd}");
        json_string("a\"\\\n", &mut json);
        assert_eq!(json, "\"a\\\"\\\\\\n\"");
    }
}

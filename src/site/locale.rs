//! How languages group the digits of a whole number: the decimal formats of Unicode's CLDR.

/// Between two groups.
const NO_BREAK_SPACE: &str = "\u{a0}";
const NARROW_NO_BREAK_SPACE: &str = "\u{202f}";
const APOSTROPHE: &str = "\u{2019}";

/// A language's way to write a whole number. The default one has no groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grouping {
    separator: &'static str,
    /// Digits of a number that has groups at least.
    least: usize,
    /// Digits of each group but the last one, which has three.
    size: usize,
}

impl Default for Grouping {
    fn default() -> Self {
        Grouping::new("", 4)
    }
}

impl Grouping {
    pub(super) const fn new(separator: &'static str, least: usize) -> Grouping {
        Grouping {
            separator,
            least,
            size: 3,
        }
    }

    /// The grouping of a language tag such as `pt` or `de-CH` (BCP 47); `None` where it is unknown.
    pub(super) fn of(tag: &str) -> Option<Grouping> {
        let tag = tag.to_ascii_lowercase().replace('_', "-");
        let mut parts = tag.split('-');
        // A script may stand between language and region, as in `zh-Hans-CN`.
        let (language, region) = (parts.next()?, parts.next_back().unwrap_or_default());
        Some(match (language, region) {
            ("de", "ch" | "li") => Grouping::new(APOSTROPHE, 4),
            ("it", "ch") => Grouping::new(APOSTROPHE, 5),
            ("de", "at") | ("en", "za") | ("fr", "ca") => Grouping::new(NO_BREAK_SPACE, 4),
            ("en", "in") | ("hi" | "ta" | "te", _) => Grouping {
                size: 2,
                ..Grouping::new(",", 4)
            },
            ("pt", "pt") | ("pl" | "hu" | "bg" | "lv" | "et", _) => {
                Grouping::new(NO_BREAK_SPACE, 5)
            }
            ("es", "mx" | "us" | "419") => Grouping::new(",", 4),
            ("es", "ar") => Grouping::new(".", 4),
            ("es" | "it" | "sl", _) => Grouping::new(".", 5),
            (
                "pt" | "de" | "nl" | "da" | "ro" | "el" | "tr" | "id" | "vi" | "hr" | "sr" | "ca"
                | "gl" | "eu" | "is",
                _,
            ) => Grouping::new(".", 4),
            ("fr", _) => Grouping::new(NARROW_NO_BREAK_SPACE, 4),
            ("ru" | "uk" | "cs" | "sk" | "sv" | "nb" | "nn" | "no" | "fi" | "lt", _) => {
                Grouping::new(NO_BREAK_SPACE, 4)
            }
            ("en" | "ja" | "zh" | "ko" | "th" | "he" | "ms" | "sw" | "fil" | "ur", _) => {
                Grouping::new(",", 4)
            }
            _ => return None,
        })
    }

    pub(super) fn write(self, number: impl itoa::Integer) -> String {
        let mut text = Vec::with_capacity(40);
        self.append(number, &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    pub(super) fn append(self, number: impl itoa::Integer, into: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number).as_bytes();
        let (sign, digits) = text.split_at(usize::from(text.first() == Some(&b'-')));
        into.extend_from_slice(sign);
        let has_groups = digits.len() >= self.least;
        for (index, digit) in digits.iter().enumerate() {
            let left = digits.len() - index;
            if has_groups && index > 0 && left >= 3 && (left - 3) % self.size == 0 {
                into.extend_from_slice(self.separator.as_bytes());
            }
            into.push(*digit);
        }
    }

    /// Tells groupings apart, for an entity tag.
    pub(super) fn key(self) -> impl Iterator<Item = u8> {
        let numbers = [self.least as u8, self.size as u8];
        self.separator.bytes().chain(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_as_the_language_has_them() {
        for (tag, expected) in [
            ("en", ["999", "1,234", "12,345", "123,456,789"]),
            ("EN_us", ["999", "1,234", "12,345", "123,456,789"]),
            ("pt-BR", ["999", "1.234", "12.345", "123.456.789"]),
            ("es", ["999", "1234", "12.345", "123.456.789"]),
            ("hi", ["999", "1,234", "12,345", "12,34,56,789"]),
            (
                "fr",
                [
                    "999",
                    "1\u{202f}234",
                    "12\u{202f}345",
                    "123\u{202f}456\u{202f}789",
                ],
            ),
            ("zh-Hans-CN", ["999", "1,234", "12,345", "123,456,789"]),
        ] {
            let grouping = Grouping::of(tag).unwrap_or_default();
            let written = [999, 1234, 12_345, 123_456_789].map(|number| grouping.write(number));
            assert_eq!(written, expected, "{tag}");
        }
        assert_eq!(Grouping::default().write(u64::MAX), u64::MAX.to_string());
        for unknown in ["", "-", "xx", "english", "\u{e9}"] {
            assert_eq!(Grouping::of(unknown), None, "{unknown}");
        }
    }
}

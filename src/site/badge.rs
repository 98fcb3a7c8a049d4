//! The total as a badge for other pages: an SVG, or JSON from which shields.io draws one.

use std::fmt::Write as _;

use super::locale::Grouping;
use super::picture::{Picture, Style};
use super::refusal::{RETRY_AFTER_S, refuse_reading};
use super::routes::Scope;
use super::text::json_string;
use super::{Session, Site, fields};
use crate::fnv::{self, fnv1a};
use crate::http::{Answer, Answered, Status};

/// Characters of a label.
const MAX_LABEL: usize = 40;
/// Seconds for which other pages and their proxies may keep a badge.
const FRESH_S: u32 = 60;

#[derive(Debug, Clone)]
pub struct BadgeRequest {
    pub(super) badge: Badge,
    /// As JSON for shields.io.
    pub(super) json: bool,
    /// If-None-Match: the entity tags that the client has (RFC 9110, section 13.1.2).
    pub(super) if_none_match: String,
    /// If-Match: the entity tags of which the badge must have one (section 13.1.1).
    pub(super) if_match: Option<String>,
}

/// The colours of shields.io.
const NAMED: &[(&str, u32)] = &[
    ("brightgreen", 0x44_cc_11),
    ("green", 0x97_ca_00),
    ("yellowgreen", 0xa4_a6_1d),
    ("yellow", 0xdf_b3_17),
    ("orange", 0xfe_7d_37),
    ("red", 0xe0_5d_44),
    ("blue", 0x00_7e_c6),
    ("grey", 0x55_55_55),
    ("gray", 0x55_55_55),
    ("lightgrey", 0x9f_9f_9f),
];
/// The green of the page.
const DEFAULT_COLOUR: u32 = 0x0b_6e_4f;
/// Behind a number that may be old.
const GREY: u32 = 0x9f_9f_9f;
/// In place of a number that was never known: a dash.
const UNKNOWN: &str = "\u{2013}";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    label: String,
    /// Red, green and blue.
    colour: u32,
    style: Style,
    grouping: Grouping,
}

impl Badge {
    /// The badge that a query describes. It cuts a long label. What is unknown gives the default.
    pub(super) fn of(query: impl Fn(&str) -> Option<String>) -> Badge {
        let label = query("label");
        let label = label
            .as_deref()
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .unwrap_or("visitas");
        let read = |name: &str| query(name).unwrap_or_default();
        Badge {
            label: label.chars().take(MAX_LABEL).collect(),
            colour: parse_colour(&read("color")).unwrap_or(DEFAULT_COLOUR),
            style: Style::named(&read("style")).unwrap_or_default(),
            grouping: Grouping::of(&read("locale")).unwrap_or_default(),
        }
    }

    /// The entity tag of this badge with this total (RFC 9110, section 8.8.3).
    pub(super) fn tag(&self, total: u64) -> String {
        let look = self.grouping.key().chain([self.style as u8]);
        let hash = fnv1a(fnv::BASIS, look.chain(self.label.bytes()));
        format!("\"{total:x}-{:x}-{hash:x}\"", self.colour)
    }

    pub(super) fn svg(&self, total: u64) -> String {
        self.picture(&self.grouping.write(total), self.colour)
    }

    /// The badge while the total cannot be read: the last one known, in grey.
    fn grey_svg(&self, total: Option<u64>) -> String {
        let known = total.map(|total| self.grouping.write(total));
        self.picture(known.as_deref().unwrap_or(UNKNOWN), GREY)
    }

    fn picture(&self, number: &str, colour: u32) -> String {
        let picture = Picture {
            style: self.style,
            label: &self.label,
            number,
            colour,
        };
        picture.svg()
    }

    /// Schema 1 of shields.io's endpoint badge.
    pub(super) fn json(&self, total: u64) -> String {
        let mut json = String::from("{\"schemaVersion\":1,\"label\":");
        json_string(&self.label, &mut json);
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            ",\"message\":\"{}\",\"color\":\"#{:06x}\",\"cacheSeconds\":{FRESH_S}}}",
            self.grouping.write(total),
            self.colour
        );
        json
    }
}

impl Site {
    /// Answers with the badge, or says that the client has it already (RFC 9110, section 13.2.2).
    pub(super) fn badge(
        &self,
        session: &Session,
        scope: &Scope,
        request: &BadgeRequest,
        answer: Answer<'_>,
    ) -> Answered {
        let total = match self.peek(session, scope) {
            Ok(count) => count.total,
            Err(reason) if request.json => return refuse_reading(reason, answer),
            Err(_) => {
                let status = Status::ServiceUnavailable;
                return self.last_known(
                    scope,
                    &request.badge,
                    (status, Some(RETRY_AFTER_S)),
                    answer,
                );
            }
        };
        let BadgeRequest { badge, json, .. } = request;
        let tag = badge.tag(total);
        let header = header_fields(*json, &tag);
        let names = |listed: &str| listed == "*" || listed == tag;
        if let Some(tags) = &request.if_match
            && !tags.split(',').map(str::trim).any(names)
        {
            return answer.send(Status::PreconditionFailed, &header, b"");
        }
        // The weak comparison: `W/` plays no part in it.
        let names_weakly = |listed: &str| names(listed) || listed.strip_prefix("W/") == Some(&tag);
        let mut tags = request.if_none_match.split(',').map(str::trim);
        if tags.any(names_weakly) {
            return answer.send_head(Status::NotModified, &header);
        }
        let body = if *json {
            badge.json(total)
        } else {
            badge.svg(total)
        };
        answer.send(Status::Ok, &header, body.as_bytes())
    }

    /// Refuses with a picture of the last total known, since an image that a page embeds should
    /// not look broken.
    pub(super) fn last_known(
        &self,
        scope: &Scope,
        badge: &Badge,
        (status, retry_after_s): (Status, Option<u64>),
        answer: Answer<'_>,
    ) -> Answered {
        let mut header = fields::VISIT_PICTURE.to_owned();
        if let Some(seconds) = retry_after_s {
            // Writing to a String cannot fail.
            let _ = write!(header, "Retry-After: {seconds}\r\n");
        }
        let total = self.last_count(scope).map(|count| count.total);
        answer.send(status, &header, badge.grey_svg(total).as_bytes())
    }
}

/// The header fields of a badge with that entity tag.
fn header_fields(json: bool, tag: &str) -> String {
    let kind = if json {
        "application/json"
    } else {
        "image/svg+xml"
    };
    format!(
        "Content-Type: {kind}\r\nCache-Control: public, max-age={}\r\nETag: {tag}\r\n{}{}",
        FRESH_S,
        fields::CORS,
        fields::EMBEDDED
    )
}

/// A name, or three or six hexadecimal digits, with or without a `#`.
fn parse_colour(text: &str) -> Option<u32> {
    if let Some((_, colour)) = NAMED
        .iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name))
    {
        return Some(*colour);
    }
    let digits = text.strip_prefix('#').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u32::from_str_radix(digits, 16).ok()?;
    match digits.len() {
        6 => Some(number),
        3 => Some(
            [number >> 8, number >> 4 & 15, number & 15]
                .iter()
                .fold(0, |all, part| (all << 8) | (part * 17)),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_names_or_digits_and_nothing_else() {
        assert_eq!(parse_colour("Red"), Some(0xe0_5d_44));
        assert_eq!(parse_colour("#0af"), Some(0x00_aa_ff));
        assert_eq!(parse_colour("00aaff"), Some(0x00_aa_ff));
        for none in ["", "12345", "#12345678", "+12345", "url(x)", "\"/>", "ééé"] {
            assert_eq!(parse_colour(none), None, "{none}");
        }
    }

    fn badge(query: &[(&str, &str)]) -> Badge {
        Badge::of(|name| {
            let found = query.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_label_is_bounded_and_stays_text() {
        for style in ["flat", "flat-square", "for-the-badge"] {
            let label = "<&\"".repeat(100);
            let badge = badge(&[
                ("label", &label),
                ("color", "javascript:x"),
                ("style", style),
            ]);
            assert_eq!(badge.label.chars().count(), MAX_LABEL);
            let svg = badge.svg(12);
            assert!(
                !svg.contains("<&") && svg.contains("&lt;&amp;&quot;") && svg.contains("#0b6e4f"),
                "{svg}"
            );
        }
    }

    #[test]
    fn what_looks_different_has_another_tag() {
        let looks: [&[(&str, &str)]; 6] = [
            &[],
            &[("label", "a")],
            &[("color", "red")],
            &[("style", "flat-square")],
            &[("locale", "en")],
            &[("locale", "pt")],
        ];
        let tags: std::collections::BTreeSet<String> = looks
            .iter()
            .flat_map(|look| [1, 2].map(|total| badge(look).tag(total)))
            .collect();
        assert_eq!(tags.len(), 2 * looks.len());
        assert_eq!(badge(&[("style", "x"), ("locale", "x")]), badge(&[]));
    }
}

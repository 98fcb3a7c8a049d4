//! The total as a badge for other pages: an SVG, or JSON from which shields.io draws one.

use std::fmt::Write as _;

use super::negotiation::Format;
use super::refusal::refuse;
use super::text::{escape_xml, json_string};
use super::{Session, Site, fields};
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Badge {
    label: String,
    /// Red, green and blue.
    colour: u32,
}

impl Badge {
    /// The badge of a query. It cuts a long label, and replaces an unknown colour by the default.
    pub(super) fn new(label: Option<&str>, colour: Option<&str>) -> Badge {
        let label = label
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .unwrap_or("visitas");
        Badge {
            label: label.chars().take(MAX_LABEL).collect(),
            colour: colour.and_then(parse_colour).unwrap_or(DEFAULT_COLOUR),
        }
    }

    /// The entity tag of this badge with this total (RFC 9110, section 8.8.3).
    pub(super) fn tag(&self, total: u64) -> String {
        // FNV-1a, 64 bits: the label is bounded, and nobody gains by a collision.
        let hash = self
            .label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        format!("\"{total:x}-{:x}-{hash:x}\"", self.colour)
    }

    pub(super) fn svg(&self, total: u64) -> String {
        let total = total.to_string();
        let (left, right) = (width(&self.label), width(&total));
        let (label_box, total_box) = (left + 10, right + 10);
        let all = label_box + total_box;
        let ink = if is_light(self.colour) {
            "#111"
        } else {
            "#fff"
        };
        let mut label = String::new();
        escape_xml(&self.label, &mut label);
        let mut svg = String::with_capacity(900);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"20\" role=\"img\" \
             aria-label=\"{label}: {total}\"><title>{label}: {total}</title>\
             <clipPath id=\"r\"><rect width=\"{all}\" height=\"20\" rx=\"3\"/></clipPath>\
             <g clip-path=\"url(#r)\"><path fill=\"#444\" d=\"M0 0h{label_box}v20H0z\"/>\
             <path fill=\"#{:06x}\" d=\"M{label_box} 0h{total_box}v20h-{total_box}z\"/></g>\
             <g text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,Geneva,sans-serif\" \
             font-size=\"11\">\
             <text x=\"{}\" y=\"14\" fill=\"#fff\" textLength=\"{left}\">{label}</text>\
             <text x=\"{}\" y=\"14\" fill=\"{ink}\" textLength=\"{right}\">{total}</text>\
             </g></svg>",
            self.colour,
            label_box / 2,
            label_box + total_box / 2,
        );
        svg
    }

    /// Schema 1 of shields.io's endpoint badge.
    pub(super) fn json(&self, total: u64) -> String {
        let mut json = String::from("{\"schemaVersion\":1,\"label\":");
        json_string(&self.label, &mut json);
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            ",\"message\":\"{total}\",\"color\":\"#{:06x}\",\"cacheSeconds\":{FRESH_S}}}",
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
        request: &BadgeRequest,
        answer: Answer<'_>,
    ) -> Answered {
        let total = match self.peek(session) {
            Ok(count) => count.total,
            Err(reason) => return refuse(reason, Format::Json, answer),
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
}

/// The header fields of a badge with that entity tag.
fn header_fields(json: bool, tag: &str) -> String {
    let kind = if json {
        "application/json"
    } else {
        "image/svg+xml"
    };
    format!(
        "Content-Type: {kind}\r\nCache-Control: public, max-age={}\r\nETag: {tag}\r\n{}",
        FRESH_S,
        fields::CORS
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

/// Whether dark text reads better on it than white: relative luminance (WCAG 2.2) without its
/// gamma.
fn is_light(colour: u32) -> bool {
    let [_, red, green, blue] = colour.to_be_bytes().map(u32::from);
    red * 2126 + green * 7152 + blue * 722 > 120 * 10_000
}

/// About the width of the text in Verdana at 11 pixels. `textLength` stretches other fonts to it.
fn width(text: &str) -> usize {
    let tenths = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '!' | '|' | '\'' | ' ' => 39,
        'f' | 'r' | 't' | '(' | ')' | '-' | '[' | ']' | '/' => 47,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 102,
        'A'..='Z' => 77,
        '0'..='9' => 70,
        c if c.is_ascii() => 66,
        'À'..='ɏ' => 70,
        _ => 110,
    };
    text.chars().map(tenths).sum::<usize>() / 10 + 1
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

    #[test]
    fn a_label_is_bounded_and_stays_text() {
        let badge = Badge::new(Some(&"<&\"".repeat(100)), Some("javascript:x"));
        assert_eq!(badge.label.chars().count(), MAX_LABEL);
        let svg = badge.svg(12);
        assert!(
            !svg.contains("<&") && svg.contains("&lt;&amp;&quot;") && svg.contains("#0b6e4f"),
            "{svg}"
        );
        assert_ne!(badge.tag(1), badge.tag(2));
        assert_ne!(badge.tag(1), Badge::new(None, None).tag(1));
    }
}

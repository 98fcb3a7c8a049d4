//! The picture of a badge: a label and a number side by side, as SVG, in three styles.

use std::fmt::Write as _;

use super::text::escape_xml;

/// The styles of shields.io that are drawn here, under its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    #[default]
    Flat,
    FlatSquare,
    ForTheBadge,
}

impl Style {
    pub(super) fn named(name: &str) -> Option<Style> {
        Some(match name {
            "flat" => Style::Flat,
            "flat-square" => Style::FlatSquare,
            "for-the-badge" => Style::ForTheBadge,
            _ => return None,
        })
    }

    /// The measures in pixels.
    fn look(self) -> Look {
        let flat = Look {
            height: 20,
            radius: 3,
            padding: 5,
            font: 11,
            baseline: 14,
            is_loud: false,
        };
        match self {
            Style::Flat => flat,
            Style::FlatSquare => Look { radius: 0, ..flat },
            Style::ForTheBadge => Look {
                height: 28,
                radius: 0,
                padding: 11,
                font: 10,
                baseline: 18,
                is_loud: true,
            },
        }
    }
}

struct Look {
    height: usize,
    radius: usize,
    /// Left and right of each text.
    padding: usize,
    font: usize,
    baseline: usize,
    /// Capital letters far apart, and a bold number.
    is_loud: bool,
}

#[derive(Debug)]
pub(super) struct Picture<'a> {
    pub(super) style: Style,
    pub(super) label: &'a str,
    pub(super) number: &'a str,
    /// Red, green and blue, behind the number.
    pub(super) colour: u32,
}

impl Picture<'_> {
    pub(super) fn svg(&self) -> String {
        let look = self.style.look();
        let (mut label, mut name) = (self.label.to_owned(), String::new());
        escape_xml(&label, &mut name);
        if look.is_loud {
            label = label.to_uppercase();
        }
        let (left, right) = (look.width(&label, false), look.width(self.number, true));
        let [label_box, number_box] = [left, right].map(|width| width + 2 * look.padding);
        let (mut shown, mut number) = (String::new(), String::new());
        escape_xml(&label, &mut shown);
        escape_xml(self.number, &mut number);
        let Look {
            height,
            radius,
            font,
            baseline,
            ..
        } = look;
        let all = label_box + number_box;
        let ink = if is_light(self.colour) {
            "#111"
        } else {
            "#fff"
        };
        let weight = if look.is_loud {
            " font-weight=\"bold\""
        } else {
            ""
        };
        let mut svg = String::with_capacity(900);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"{height}\" \
             role=\"img\" aria-label=\"{name}: {number}\"><title>{name}: {number}</title>\
             <clipPath id=\"r\"><rect width=\"{all}\" height=\"{height}\" rx=\"{radius}\"/>\
             </clipPath><g clip-path=\"url(#r)\">\
             <path fill=\"#444\" d=\"M0 0h{label_box}v{height}H0z\"/>\
             <path fill=\"#{:06x}\" d=\"M{label_box} 0h{number_box}v{height}h-{number_box}z\"/>\
             </g><g text-anchor=\"middle\" \
             font-family=\"Verdana,DejaVu Sans,Geneva,sans-serif\" font-size=\"{font}\">\
             <text x=\"{}\" y=\"{baseline}\" fill=\"#fff\" textLength=\"{left}\">{shown}</text>\
             <text x=\"{}\" y=\"{baseline}\" fill=\"{ink}\"{weight} \
             textLength=\"{right}\">{number}</text></g></svg>",
            self.colour,
            label_box / 2,
            label_box + number_box / 2,
        );
        svg
    }
}

impl Look {
    /// About the width of the text in Verdana. `textLength` stretches other fonts to it.
    fn width(&self, text: &str, is_number: bool) -> usize {
        let tenths: usize = text.chars().map(tenths_at_11).sum();
        if !self.is_loud {
            return tenths / 10 + 1;
        }
        // Bold letters are an eighth wider, and every letter has 1.2 pixels to itself.
        let bold = if is_number { tenths / 8 } else { 0 };
        (tenths + bold) * self.font / 110 + text.chars().count() * 12 / 10 + 1
    }
}

/// The width of a character in tenths of a pixel, at 11 pixels. Within a group they differ by less
/// than one pixel.
fn tenths_at_11(c: char) -> usize {
    match c {
        'i' | 'l' | '\'' | '\u{2019}' | '\u{202f}' => 30,
        'f' | 'j' | '.' | ',' | ' ' | '\u{a0}' => 39,
        'r' | 't' | 'I' | '!' => 46,
        'J' | '-' | '/' | '(' | ')' | '[' | ']' | ':' | ';' | '|' | '"' => 50,
        'c' | 's' | 'z' => 57,
        'a' | 'e' | 'k' | 'v' | 'x' | 'y' | 'E' | 'F' | 'L' | 'P' | 'T' | 'Y' => 66,
        'D' | 'G' | 'H' | 'N' | 'O' | 'Q' | 'U' => 84,
        'w' | 'M' | '+' | '=' | '<' | '>' | '#' | '~' => 91,
        'm' | 'W' | '%' | '@' => 109,
        'A'..='Z' | '&' => 76,
        c if c.is_ascii() || c == '\u{2013}' => 69,
        'À'..='ɏ' => 70,
        _ => 110,
    }
}

/// Whether dark text reads better on it than white: relative luminance (WCAG 2.2) without its
/// gamma.
fn is_light(colour: u32) -> bool {
    let [_, red, green, blue] = colour.to_be_bytes().map(u32::from);
    red * 2126 + green * 7152 + blue * 722 > 120 * 10_000
}

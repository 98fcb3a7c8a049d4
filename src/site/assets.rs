//! The files beside the page, without indentation and comments: people read them in the repository.

use std::sync::OnceLock;

use crate::fnv::{self, fnv1a};

const STYLE_SOURCE: &str = include_str!("page.css");
const SCRIPT_SOURCE: &str = concat!(
    include_str!("words.js"),
    include_str!("chart.js"),
    include_str!("embed.js"),
    include_str!("live.js")
);

static STYLE_TEXT: [u8; squeezed_length(STYLE_SOURCE)] = squeeze(STYLE_SOURCE);
static SCRIPT_TEXT: [u8; squeezed_length(SCRIPT_SOURCE)] = squeeze(SCRIPT_SOURCE);

/// A browser loads it once, so a visit is smaller.
pub(super) const STYLE: &[u8] = &STYLE_TEXT;
/// As [`STYLE`].
pub(super) const SCRIPT: &[u8] = &SCRIPT_TEXT;

/// The versions of the files. They are in their addresses, so a browser may keep them.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) style: String,
    pub(super) script: String,
}

impl Versions {
    pub(super) fn get() -> &'static Versions {
        static VERSIONS: OnceLock<Versions> = OnceLock::new();
        VERSIONS.get_or_init(|| Versions {
            style: version(STYLE),
            script: version(SCRIPT),
        })
    }
}

fn version(text: &[u8]) -> String {
    let hash = fnv1a(fnv::BASIS, text.iter().copied());
    format!("{:08x}", hash as u32)
}

/// The text without empty lines, lines of `//`, and the spaces that a line begins with.
const fn squeeze<const N: usize>(text: &str) -> [u8; N] {
    let mut squeezed = [0; N];
    squeeze_into(text, &mut squeezed);
    squeezed
}

const fn squeezed_length(text: &str) -> usize {
    squeeze_into(text, &mut [])
}

/// Writes as much as there is room for, and gives the length of all.
const fn squeeze_into(text: &str, into: &mut [u8]) -> usize {
    let text = text.as_bytes();
    let (mut length, mut at, mut line_begins) = (0, 0, true);
    while at < text.len() {
        let byte = text[at];
        if line_begins && byte == b'/' && text[at + 1] == b'/' {
            while text[at] != b'\n' {
                at += 1;
            }
        } else if !(line_begins && matches!(byte, b' ' | b'\n')) {
            if length < into.len() {
                into[length] = byte;
            }
            length += 1;
            line_begins = byte == b'\n';
        }
        at += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_and_comments_are_left_out_and_nothing_else() {
        let text = "// one\n\n  a { // b\n    // c\n  'd  e';\n";
        assert_eq!(squeeze::<19>(text), *b"a { // b\n'd  e';\n\0\0");
        assert_eq!(squeezed_length(text), 17);
    }
}

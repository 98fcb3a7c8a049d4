//! The files beside the page, without indentation and comments: people read them in the repository.

use std::sync::OnceLock;

use crate::fnv::{self, fnv1a};
use crate::squeeze::Squeeze;

const STYLE_SOURCE: &str = include_str!("page.css");
const SCRIPT_SOURCE: &str = concat!(
    include_str!("words.js"),
    include_str!("chart.js"),
    include_str!("embed.js"),
    include_str!("live.js")
);

static STYLE_TEXT: [u8; Squeeze::Script.length(STYLE_SOURCE)] = Squeeze::Script.text(STYLE_SOURCE);
static SCRIPT_TEXT: [u8; Squeeze::Script.length(SCRIPT_SOURCE)] =
    Squeeze::Script.text(SCRIPT_SOURCE);

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

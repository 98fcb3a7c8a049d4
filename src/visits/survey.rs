//! What a look at a store found, for a person who sets it up: see `visitas check`.

use std::borrow::Cow;

/// Text that is mostly known in advance.
type Text = Cow<'static, str>;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// As it should be.
    Fine,
    /// Works, but a person should know.
    Mind,
    /// Keeps visits from being served.
    Fails,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: Text,
    /// What to do; empty when nothing is.
    pub todo: Text,
}

impl Finding {
    /// As it should be.
    pub fn fine(what: &'static str, found: impl Into<Text>) -> Finding {
        Finding { weight: Weight::Fine, what, found: found.into(), todo: Cow::Borrowed("") }
    }

    /// Works, but a person should know.
    pub fn mind(what: &'static str, found: impl Into<Text>, todo: impl Into<Text>) -> Finding {
        Finding { weight: Weight::Mind, what, found: found.into(), todo: todo.into() }
    }

    /// Keeps visits from being served.
    pub fn fails(what: &'static str, found: impl Into<Text>, todo: &'static str) -> Finding {
        Finding { weight: Weight::Fails, what, found: found.into(), todo: Cow::Borrowed(todo) }
    }
}

//! What a diagnosis of a store found, for a person who sets it up: see `visitas check`.

use std::borrow::Cow;

/// Text that is mostly known in advance.
type Text = Cow<'static, str>;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, but a person should know.
    Warning,
    /// Keeps visits from being served.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// How much it matters.
    pub severity: Severity,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: Text,
    /// What to do; empty when nothing is.
    pub todo: Text,
}

impl Check {
    /// As it should be.
    pub fn fine(what: &'static str, found: impl Into<Text>) -> Check {
        Check {
            severity: Severity::Fine,
            what,
            found: found.into(),
            todo: Cow::Borrowed(""),
        }
    }

    /// Works, but a person should know.
    pub fn warns(what: &'static str, found: impl Into<Text>, todo: impl Into<Text>) -> Check {
        Check {
            severity: Severity::Warning,
            what,
            found: found.into(),
            todo: todo.into(),
        }
    }

    /// Keeps visits from being served.
    pub fn fails(what: &'static str, found: impl Into<Text>, todo: &'static str) -> Check {
        Check {
            severity: Severity::Failure,
            what,
            found: found.into(),
            todo: Cow::Borrowed(todo),
        }
    }
}

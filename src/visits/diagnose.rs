//! What `visitas check` found, and what to do.

use std::borrow::Cow;

type Text = Cow<'static, str>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Fine,
    /// Works, but a person should know.
    Warning,
    /// Keeps visits from being served.
    Failure,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub severity: Severity,
    pub what: &'static str,
    pub found: Text,
    /// Empty when there is nothing to do.
    pub todo: Text,
}

impl Check {
    pub fn fine(what: &'static str, found: impl Into<Text>) -> Check {
        Check {
            severity: Severity::Fine,
            what,
            found: found.into(),
            todo: Cow::Borrowed(""),
        }
    }

    pub fn warns(what: &'static str, found: impl Into<Text>, todo: impl Into<Text>) -> Check {
        Check {
            severity: Severity::Warning,
            what,
            found: found.into(),
            todo: todo.into(),
        }
    }

    pub fn fails(what: &'static str, found: impl Into<Text>, todo: &'static str) -> Check {
        Check {
            severity: Severity::Failure,
            what,
            found: found.into(),
            todo: Cow::Borrowed(todo),
        }
    }
}

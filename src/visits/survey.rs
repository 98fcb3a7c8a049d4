//! What a look at a store found, for a person who sets it up: see `visitas check`.

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
    pub what: String,
    /// What was found.
    pub found: String,
    /// What to do; empty when nothing is.
    pub todo: String,
}

impl Finding {
    /// As it should be.
    pub fn fine(what: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { weight: Weight::Fine, what: what.into(), found: found.into(), todo: String::new() }
    }

    /// Works, but a person should know.
    pub fn mind(what: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Finding {
        Finding { weight: Weight::Mind, what: what.into(), found: found.into(), todo: todo.into() }
    }

    /// Keeps visits from being served.
    pub fn fails(what: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Finding {
        Finding { weight: Weight::Fails, what: what.into(), found: found.into(), todo: todo.into() }
    }
}

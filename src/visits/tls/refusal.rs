//! The error of a connection that is not encrypted as its settings ask for.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// A sentence, which names the setting.
#[derive(Debug, Clone)]
pub(in crate::visits) struct Refusal(pub(in crate::visits) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Refusal {}

impl Refusal {
    /// The refusal among an error's causes, if one is.
    pub(in crate::visits) fn among<'a>(
        mut error: &'a (dyn StdError + 'static),
    ) -> Option<&'a Refusal> {
        loop {
            // An I/O error does not count what it was made of among its causes.
            let of_io = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            let found = match of_io {
                Some(inner) => inner.downcast_ref(),
                None => error.downcast_ref(),
            };
            if found.is_some() {
                return found;
            }
            error = error.source()?;
        }
    }
}

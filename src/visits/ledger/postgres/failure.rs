//! What goes wrong with PostgreSQL, in sentences for the log.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Error;

use crate::visits::tls::Refusal;

/// What went wrong in a session.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's answer, or the library's own error.
    Statement(Error),
    /// Not within this time.
    Slow(Duration),
    /// The connection is closed.
    Closed,
    /// The commit was answered with this warning: a wait for a standby that was cancelled.
    Unsettled(String),
    /// A name has no address.
    NoAddress(std::io::Error),
    /// Not encrypted as the settings ask for.
    Encryption(Refusal),
    /// Neither with TLS nor without, first the one that was tried first.
    Neither(Box<Failure>, Box<Failure>),
    /// The server takes no writes.
    ReadOnly,
    /// The table is missing, and must not be made while somebody replaces it.
    Missing,
    /// What the server has is not what visitas needs, until a person changes it.
    Unfit(String),
    /// An answer without the row that it must have.
    NoRow,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_closed() {
            Failure::Closed
        } else if let Some(refusal) = Refusal::among(&error) {
            Failure::Encryption(refusal.clone())
        } else {
            Failure::Statement(error)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Statement(error) => f.write_str(&describe(error)),
            Failure::Slow(limit) => write!(f, "no answer in {limit:?}"),
            Failure::Closed => f.write_str("the server closed the connection"),
            Failure::Unsettled(warning) => write!(
                f,
                "committed, but not where commits are replicated to: {warning}"
            ),
            Failure::NoAddress(error) => write!(f, "{error}"),
            Failure::Encryption(refusal) => write!(f, "{refusal}"),
            Failure::Neither(first, second) => {
                let (first, second) = (first.to_string(), second.to_string());
                match first == second {
                    true => f.write_str(&first),
                    false => write!(f, "{first}; and tried otherwise: {second}"),
                }
            }
            Failure::ReadOnly => f.write_str("the server takes no writes: a standby, or read-only"),
            Failure::Missing => f.write_str("the table acessos is missing"),
            Failure::Unfit(reason) => f.write_str(reason),
            Failure::NoRow => f.write_str("an answer without a row"),
        }
    }
}

impl Failure {
    /// The SQLSTATE of the server's answer (PostgreSQL manual, appendix A).
    pub(super) fn code(&self) -> &str {
        match self {
            Failure::Statement(error) => error.code().map_or("", |code| code.code()),
            Failure::Neither(_, second) => second.code(),
            _ => "",
        }
    }

    /// Whether it is the encryption that failed.
    pub(super) fn is_for_encryption(&self) -> bool {
        match self {
            Failure::Encryption(_) => true,
            Failure::Neither(first, second) => {
                first.is_for_encryption() || second.is_for_encryption()
            }
            _ => false,
        }
    }

    /// Whether another kind of connection may do better: the handshake failed, or the server
    /// refused the session. Class 28 is invalid authorization; class 08 is what a pooler says.
    pub(super) fn may_be_for_encryption(&self) -> bool {
        self.is_for_encryption() || self.code().starts_with("28") || self.code().starts_with("08")
    }
}

/// The error with its cause and its SQLSTATE: the library's own text stops at "db error".
fn describe(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map_or(String::new(), |hint| format!("; {hint}"));
        let setting = setting(db.message());
        let code = db.code().code();
        return format!("{} (SQLSTATE {code}){hint}{setting}", db.message());
    }
    match std::error::Error::source(error) {
        Some(source) if source.to_string().contains("channel binding") => {
            format!("{error}: {source}, which channel_binding=require asks for")
        }
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The setting that a server's refusal is about, where it is about encryption: the words of
/// PostgreSQL and of poolers.
fn setting(message: &str) -> &'static str {
    if message.contains("no encryption") || message.contains("SSL required") {
        "; DB_SSLMODE (sslmode) has to be require or above there"
    } else if message.contains("client certificate") || message.contains("certificate auth") {
        "; DB_SSLCERT (sslcert) and DB_SSLKEY (sslkey) name the client certificate"
    } else {
        ""
    }
}

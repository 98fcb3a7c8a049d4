//! What goes wrong with PostgreSQL, in sentences for the log.

use std::fmt;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use super::endpoints::Place;
use crate::visits::tls::Refusal;

/// What went wrong in a session.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's answer is an error.
    Server(Box<ServerError>),
    /// No connection could be made there.
    Unreachable(Place, io::Error),
    /// The connection broke.
    Broken(io::Error),
    /// What came is not the protocol, or not what was asked for.
    Protocol(&'static str),
    /// The login failed on this side.
    Login(String),
    /// Not within this time.
    Slow(Duration),
    /// The connection is closed.
    Closed,
    /// The commit was answered with this warning: a wait for a standby that was cancelled.
    Unsettled(String),
    /// A name has no address.
    NoAddress(io::Error),
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

/// An error as the server tells it (PostgreSQL manual, "Error and Notice Message Fields").
#[derive(Debug, Default)]
pub(super) struct ServerError {
    /// In English, whatever the server's language: since PostgreSQL 9.6.
    severity: String,
    /// The SQLSTATE (PostgreSQL manual, appendix A).
    pub(super) code: String,
    pub(super) message: String,
    hint: Option<String>,
    pub(super) constraint: Option<String>,
    /// The function of the server's source that reported it.
    pub(super) routine: Option<String>,
}

impl ServerError {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> io::Result<ServerError> {
        let mut error = ServerError::default();
        while let Some(field) = fields.next()? {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => error.severity = text,
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'H' => error.hint = Some(text),
                b'n' => error.constraint = Some(text),
                b'R' => error.routine = Some(text),
                _ => {}
            }
        }
        Ok(error)
    }

    /// Whether the server ends the session with it.
    pub(super) fn is_fatal(&self) -> bool {
        ["FATAL", "PANIC"].contains(&self.severity.as_str())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Encryption(refusal)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Server(error) => {
                let setting = setting(&error.message);
                write!(f, "{} (SQLSTATE {})", error.message, error.code)?;
                if let Some(hint) = &error.hint {
                    write!(f, "; {hint}")?;
                }
                f.write_str(setting)
            }
            Failure::Unreachable(place, error) => write!(f, "connecting to {place}: {error}"),
            Failure::Broken(error) => write!(f, "the connection broke: {error}"),
            Failure::Protocol(what) => write!(f, "this is no answer of PostgreSQL: {what}"),
            Failure::Login(reason) => write!(f, "the login failed: {reason}"),
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
    /// The failure of a wait, a read or a write that had `limit`.
    pub(super) fn of_io(error: io::Error, limit: Duration) -> Failure {
        if error.kind() == io::ErrorKind::TimedOut {
            Failure::Slow(limit)
        } else if let Some(refusal) = Refusal::among(&error) {
            Failure::Encryption(refusal.clone())
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Failure::Closed
        } else {
            Failure::Broken(error)
        }
    }

    /// The SQLSTATE of the server's answer.
    pub(super) fn code(&self) -> &str {
        match self {
            Failure::Server(error) => &error.code,
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

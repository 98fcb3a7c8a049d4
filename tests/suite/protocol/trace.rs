//! The steps of a trace, in words. `(w0, 2)` is entry 2 of writer 0.

use std::fmt::{Display, Formatter, Result};

use super::database::{Change, Closing, Found};
use super::session::{Move, Phase, Reply, Request};
use super::world::{Fault, Step};

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Step::Send(lane, request) => write!(f, "lane {lane} sends: {request}"),
            Step::Statement(request, moved) => write!(f, "server, {request}: {moved}"),
            Step::Confirm(change) => write!(f, "the standby confirms: {change}"),
            Step::Fault(fault) => write!(f, "FAULT {fault}"),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Fault::LoseConnection(lane) => {
                write!(f, "lane {lane} loses its connection, its request goes on")
            }
            Fault::CancelWait(change) => {
                write!(f, "the wait for the standby is cancelled: {change}")
            }
            Fault::TerminateWait(change) => write!(
                f,
                "the session that waits for the standby is terminated: {change}"
            ),
            Fault::Crash => write!(
                f,
                "the primary crashes and restarts, or all its WAL survives a failover"
            ),
            Fault::FailOver { kept } => write!(
                f,
                "failover to a standby with {kept} of the unconfirmed transactions"
            ),
            Fault::Mislead(lane) => write!(f, "an old primary answers lane {lane}: duplicate key"),
            Fault::Deadline(lane) => write!(
                f,
                "deadline: lane {lane} answers 503 and abandons its batch"
            ),
            Fault::Close(writer) => write!(f, "another process begins to close w{writer}"),
            Fault::Delete(writer, below) => {
                write!(f, "the entries of w{writer} below {below} are deleted")
            }
        }
    }
}

impl Display for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Request::Append {
                writer,
                number,
                batch: Some(batch),
                ..
            } => {
                write!(f, "batch {batch} as (w{writer}, {number})")
            }
            Request::Append { writer, number, .. } => {
                write!(f, "empty entry (w{writer}, {number})")
            }
            Request::HandOver { old, new } => {
                if let Some((writer, number)) = old {
                    write!(f, "close w{writer}")?;
                    if number > 0 {
                        write!(f, " (batch in doubt at {number})")?;
                    }
                }
                if let Some(new) = new {
                    write!(
                        f,
                        "{}register w{new}",
                        if old.is_some() { ", " } else { "" }
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl Display for Move {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Move::To(Phase::Sent) => write!(f, "the log has changed, looks again"),
            Move::To(Phase::Looked(..)) => write!(f, "looks at the log"),
            Move::To(Phase::Keyed(..)) => write!(f, "inserts the entry"),
            Move::Commit(_) => write!(f, "writes its commit record"),
            Move::Refuse(Reply::DuplicateKey) => write!(f, "duplicate key"),
            Move::Refuse(_) => write!(f, "VI001, the predecessor is missing"),
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Change::Append {
                writer,
                number,
                batch: Some(batch),
                ..
            } => {
                write!(f, "batch {batch} as (w{writer}, {number})")
            }
            Change::Append { writer, number, .. } => write!(f, "empty entry (w{writer}, {number})"),
            Change::HandOver {
                closing,
                opened,
                found,
            } => {
                match (closing, found) {
                    (Some(Closing { writer, number, .. }), _) => {
                        write!(f, "w{writer} closed at {number}. ")?
                    }
                    (None, Found::ClosedAt(number)) => {
                        write!(f, "the old writer was closed at {number}. ")?
                    }
                    (None, Found::Unknown) => write!(f, "the old writer has no entry. ")?,
                    (None, Found::Nothing) => {}
                }
                opened.map_or(Ok(()), |new| write!(f, "w{new} registered."))
            }
            Change::Delete { writer, below } => {
                write!(f, "the entries of w{writer} below {below} deleted")
            }
        }
    }
}

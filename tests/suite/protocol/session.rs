//! A request and its session. Each step is one statement with its own snapshot (READ COMMITTED).

use super::database::{Batch, Change, Closing, Database, Entry, Found, Number, Writer};
use super::rules::{Rule, Setup};
use super::server::Server;

pub(super) type LaneNumber = u8;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Session {
    pub(super) request: Request,
    /// The lane that still listens for the answer.
    pub(super) lane: Option<LaneNumber>,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Request {
    /// Append a batch, or an empty entry: the running total is `before` without it and `total` with
    /// it.
    Append {
        writer: Writer,
        number: Number,
        before: u8,
        total: u8,
        batch: Option<Batch>,
    },
    /// Close `old`, whose batch in doubt has this number; register `new`.
    HandOver {
        old: Option<(Writer, Number)>,
        new: Option<Writer>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Between client and server.
    Sent,
    /// Has seen the newest entry, with this number and total, and has no key yet.
    Looked(Number, u8),
    /// Has also inserted its entry: others wait for its key.
    Keyed(Number, u8),
}

/// What a statement leads to.
#[derive(Clone, Copy)]
pub(super) enum Move {
    To(Phase),
    Commit(Change),
    Refuse(Reply),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Appended,
    HandedOver {
        opened: Option<Writer>,
        found: Found,
    },
    DuplicateKey,
    /// SQLSTATE VI001.
    BrokenChain,
}

pub(super) enum Key {
    Free,
    Taken,
    /// By a transaction in flight; another insert waits.
    Held,
}

impl Session {
    /// The next statement; `None` while the session waits for a key.
    pub(super) fn advance(&self, setup: &Setup, server: &Server) -> Option<Move> {
        let visible = server.visible();
        match self.request {
            Request::Append { .. } if setup.without(Rule::KeyFirst) => {
                self.look_then_append(setup, server, &visible)
            }
            Request::Append { .. } => self.append(setup, server, &visible),
            Request::HandOver { old: None, new } => open(setup, server, &visible, new),
            Request::HandOver {
                old: Some(old),
                new,
            } => self.hand_over(setup, server, &visible, old, new),
        }
    }

    /// The key first, the predecessor in a later snapshot, then the rows.
    fn append(&self, setup: &Setup, server: &Server, visible: &Database) -> Option<Move> {
        let Request::Append {
            writer,
            number,
            before,
            total,
            batch,
        } = self.request
        else {
            return None;
        };
        let chained = visible.entry(writer, number - 1)
            == Some(Entry {
                total: before,
                closed: false,
            });
        match self.phase {
            Phase::Sent | Phase::Looked(..) => match server.key(setup, visible, writer, number) {
                Key::Held => None,
                Key::Taken => Some(Move::Refuse(Reply::DuplicateKey)),
                Key::Free => Some(Move::To(Phase::Keyed(number, total))),
            },
            Phase::Keyed(..) if chained || setup.without(Rule::Predecessor) => {
                Some(Move::Commit(Change::Append {
                    writer,
                    number,
                    total,
                    batch,
                }))
            }
            Phase::Keyed(..) => Some(Move::Refuse(Reply::BrokenChain)),
        }
    }

    /// The wrong order: looks for key and predecessor, and inserts later.
    fn look_then_append(&self, setup: &Setup, server: &Server, visible: &Database) -> Option<Move> {
        let Request::Append {
            writer,
            number,
            before,
            total,
            batch,
        } = self.request
        else {
            return None;
        };
        if self.phase != Phase::Sent {
            return match server.key(setup, visible, writer, number) {
                Key::Held => None,
                Key::Taken => Some(Move::Refuse(Reply::DuplicateKey)),
                Key::Free => Some(Move::Commit(Change::Append {
                    writer,
                    number,
                    total,
                    batch,
                })),
            };
        }
        if visible.entry(writer, number).is_some() {
            return Some(Move::Refuse(Reply::DuplicateKey));
        }
        let chained = visible.entry(writer, number - 1)
            == Some(Entry {
                total: before,
                closed: false,
            });
        Some(if chained {
            Move::To(Phase::Looked(number, total))
        } else {
            Move::Refuse(Reply::BrokenChain)
        })
    }

    /// Closes the old writer unless it is closed; registers the new one in the same transaction.
    fn hand_over(
        &self,
        setup: &Setup,
        server: &Server,
        visible: &Database,
        (writer, batch_at): (Writer, Number),
        opened: Option<Writer>,
    ) -> Option<Move> {
        let commit = |closing, found| {
            Some(Move::Commit(Change::HandOver {
                closing,
                opened,
                found,
            }))
        };
        match self.phase {
            Phase::Sent => match visible.newest(writer) {
                None => commit(None, Found::Unknown),
                Some((number, entry)) if entry.closed => commit(None, Found::ClosedAt(number)),
                Some((number, _)) if setup.without(Rule::Fence) => {
                    commit(None, Found::ClosedAt(number + 1))
                }
                Some((number, entry)) => Some(Move::To(Phase::Looked(number, entry.total))),
            },
            Phase::Looked(newest, total) => {
                match server.key(
                    setup,
                    visible,
                    writer,
                    closing_number(setup, batch_at, newest),
                ) {
                    Key::Held => None,
                    Key::Taken => Some(Move::To(Phase::Sent)),
                    Key::Free => Some(Move::To(Phase::Keyed(newest, total))),
                }
            }
            Phase::Keyed(newest, total) => {
                let chained = visible.entry(writer, newest)
                    == Some(Entry {
                        total,
                        closed: false,
                    });
                if !chained && !setup.without(Rule::ClosingChained) {
                    return Some(Move::To(Phase::Sent));
                }
                let number = closing_number(setup, batch_at, newest);
                let carried = if setup.without(Rule::CarryTotal) {
                    0
                } else {
                    total
                };
                commit(
                    Some(Closing {
                        writer,
                        number,
                        total,
                        carried,
                    }),
                    Found::ClosedAt(number),
                )
            }
        }
    }

    /// Whether the session has inserted this key.
    pub(super) fn holds(&self, setup: &Setup, writer: Writer, number: Number) -> bool {
        match (self.phase, self.request) {
            (
                Phase::Keyed(..),
                Request::Append {
                    writer: own,
                    number: at,
                    ..
                },
            ) => (own, at) == (writer, number),
            (
                Phase::Keyed(newest, _),
                Request::HandOver {
                    old: Some((own, batch_at)),
                    ..
                },
            ) => (own, closing_number(setup, batch_at, newest)) == (writer, number),
            _ => false,
        }
    }
}

/// Registers a writer, and nothing else.
fn open(
    setup: &Setup,
    server: &Server,
    visible: &Database,
    opened: Option<Writer>,
) -> Option<Move> {
    let change = Change::HandOver {
        closing: None,
        opened,
        found: Found::Nothing,
    };
    match server.key(setup, visible, opened?, 0) {
        Key::Held => None,
        Key::Taken => Some(Move::Refuse(Reply::DuplicateKey)),
        Key::Free => Some(Move::Commit(change)),
    }
}

fn closing_number(setup: &Setup, batch_at: Number, newest: Number) -> Number {
    if setup.without(Rule::NextNumber) {
        batch_at.max(newest + 1)
    } else {
        newest + 1
    }
}

impl Request {
    pub(super) fn names(self, writer: Writer) -> bool {
        match self {
            Request::Append { writer: own, .. } => own == writer,
            Request::HandOver { old, new } => {
                old.is_some_and(|(old, _)| old == writer) || new == Some(writer)
            }
        }
    }
}

impl Change {
    pub(super) fn reply(self) -> Reply {
        match self {
            Change::HandOver { opened, found, .. } => Reply::HandedOver { opened, found },
            Change::Append { .. } | Change::Delete { .. } => Reply::Appended,
        }
    }
}

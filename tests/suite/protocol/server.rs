//! The primary: its sessions, its WAL, and the part of it that the standby has confirmed.

use std::ops::RangeInclusive;

use super::database::{Change, Database, Found, Number, Writer};
use super::rules::Setup;
use super::session::{Key, LaneNumber, Move, Phase, Reply, Request, Session};

#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Server {
    /// The part of the WAL that is confirmed and visible, applied.
    kept: Database,
    /// The WAL behind it, in order.
    tail: Vec<Logged>,
    /// How many transactions of `tail` the standby has confirmed. The others are lost in some
    /// failover.
    confirmed: usize,
    sessions: Vec<Session>,
}

/// A transaction whose commit record is in the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Logged {
    change: Change,
    wait: Wait,
}

/// While a commit waits for the standby, its change is invisible and others wait for its keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wait {
    Over,
    /// The lane that still listens for the answer.
    ForStandby(Option<LaneNumber>),
}

#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) result: Reply,
    /// PostgreSQL's warning: the wait for the standby was cancelled, the commit is local.
    pub(super) warned: bool,
}

/// The answer of a step, if a lane listens.
pub(super) type Answered = Option<(LaneNumber, Answer)>;

impl Server {
    /// What a new snapshot shows.
    pub(super) fn visible(&self) -> Database {
        let mut database = self.kept;
        self.tail
            .iter()
            .filter(|logged| logged.wait == Wait::Over)
            .for_each(|logged| database.apply(logged.change));
        database
    }

    /// The data of a standby with this part of the tail.
    fn prefix(&self, length: usize) -> Database {
        let mut database = self.kept;
        self.tail[..length]
            .iter()
            .for_each(|logged| database.apply(logged.change));
        database
    }

    /// The data that no failover loses.
    pub(super) fn confirmed(&self) -> Database {
        self.prefix(self.confirmed)
    }

    /// The broken invariant, here or on a standby with any part of the WAL.
    pub(super) fn wrong(&self) -> Option<String> {
        let standby = (0..=self.tail.len()).find_map(|length| self.prefix(length).wrong());
        standby.or_else(|| self.visible().wrong())
    }

    pub(super) fn key(
        &self,
        setup: &Setup,
        visible: &Database,
        writer: Writer,
        number: Number,
    ) -> Key {
        let waits =
            |logged: &Logged| logged.wait != Wait::Over && logged.change.holds(writer, number);
        if self
            .sessions
            .iter()
            .any(|session| session.holds(setup, writer, number))
            || self.tail.iter().any(waits)
        {
            Key::Held
        } else if visible.entry(writer, number).is_some() {
            Key::Taken
        } else {
            Key::Free
        }
    }

    /// Registers a writer before anything happens.
    pub(super) fn register(&mut self, setup: &Setup, writer: Writer) {
        let change = Change::HandOver {
            closing: None,
            opened: Some(writer),
            found: Found::Nothing,
        };
        self.commit(setup, change, None);
        if setup.synchronous {
            self.confirm(self.tail.len() - 1);
            self.tidy(false);
        }
    }

    /// Sends a request; returns its place among the sessions.
    pub(super) fn send(&mut self, request: Request, lane: Option<LaneNumber>) -> usize {
        self.sessions.push(Session {
            request,
            lane,
            phase: Phase::Sent,
        });
        self.sessions.len() - 1
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = (usize, Request)> {
        self.sessions
            .iter()
            .enumerate()
            .map(|(at, session)| (at, session.request))
    }

    /// Executes a session's next statement, unless it waits for a key.
    pub(super) fn advance(&mut self, setup: &Setup, at: usize) -> Option<(Move, Answered)> {
        let session = self.sessions[at];
        let next = session.advance(setup, self)?;
        let answered = match next {
            Move::To(phase) => {
                self.sessions[at].phase = phase;
                None
            }
            Move::Refuse(result) => {
                self.sessions.remove(at);
                session.lane.map(|lane| {
                    (
                        lane,
                        Answer {
                            result,
                            warned: false,
                        },
                    )
                })
            }
            Move::Commit(change) => {
                self.sessions.remove(at);
                self.commit(setup, change, session.lane)
            }
        };
        Some((next, answered))
    }

    /// Writes a transaction to the WAL. Where commits are replicated it then waits.
    pub(super) fn commit(
        &mut self,
        setup: &Setup,
        change: Change,
        lane: Option<LaneNumber>,
    ) -> Answered {
        if matches!(
            change,
            Change::HandOver {
                closing: None,
                opened: None,
                ..
            }
        ) {
            // Changes nothing, so there is nothing to wait for.
            return lane.map(|lane| {
                (
                    lane,
                    Answer {
                        result: change.reply(),
                        warned: false,
                    },
                )
            });
        }
        self.tail.push(Logged {
            change,
            wait: Wait::ForStandby(lane),
        });
        if setup.synchronous {
            None
        } else {
            self.end_wait(self.tail.len() - 1, false)
        }
    }

    /// Deletes entries in a commit that does not wait. A wait would only delay others at its keys.
    pub(super) fn delete(&mut self, writer: Writer, below: Number) {
        self.tail.push(Logged {
            change: Change::Delete { writer, below },
            wait: Wait::Over,
        });
    }

    /// The commits that wait for the standby.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, Change)> {
        let waiting = self
            .tail
            .iter()
            .enumerate()
            .filter(|(_, logged)| logged.wait != Wait::Over);
        waiting.map(|(at, logged)| (at, logged.change))
    }

    /// The standby confirms the WAL up to this commit, whose wait ends.
    pub(super) fn confirm(&mut self, at: usize) -> Answered {
        self.confirmed = self.confirmed.max(at + 1);
        self.end_wait(at, false)
    }

    /// The wait ends without the standby.
    pub(super) fn cancel(&mut self, at: usize) -> Answered {
        self.end_wait(at, true)
    }

    fn end_wait(&mut self, at: usize, warned: bool) -> Answered {
        let Wait::ForStandby(lane) = std::mem::replace(&mut self.tail[at].wait, Wait::Over) else {
            return None;
        };
        lane.map(|lane| {
            (
                lane,
                Answer {
                    result: self.tail[at].change.reply(),
                    warned,
                },
            )
        })
    }

    /// How much of the tail a crash or a failover may leave.
    pub(super) fn survivors(&self) -> RangeInclusive<usize> {
        self.confirmed..=self.tail.len()
    }

    /// A crash and restart (the whole tail), or a failover to a standby with a part of it. Requests
    /// that had not arrived arrive at the new primary.
    pub(super) fn fail_over(&mut self, length: usize) {
        self.tail.truncate(length);
        self.tail
            .iter_mut()
            .for_each(|logged| logged.wait = Wait::Over);
        self.sessions.retain(|session| session.phase == Phase::Sent);
        self.sessions
            .iter_mut()
            .for_each(|session| session.lane = None);
    }

    pub(super) fn is_heard_by(&self, lane: LaneNumber) -> bool {
        self.sessions
            .iter()
            .any(|session| session.lane == Some(lane))
            || self
                .tail
                .iter()
                .any(|logged| logged.wait == Wait::ForStandby(Some(lane)))
    }

    /// The lane closes its connection. The request continues.
    pub(super) fn hang_up(&mut self, lane: LaneNumber) {
        self.sessions
            .iter_mut()
            .filter(|session| session.lane == Some(lane))
            .for_each(|session| session.lane = None);
        let own = |logged: &&mut Logged| logged.wait == Wait::ForStandby(Some(lane));
        self.tail
            .iter_mut()
            .filter(own)
            .for_each(|logged| logged.wait = Wait::ForStandby(None));
    }

    /// Normalizes states with the same future: data that no failover loses goes into `kept`.
    pub(super) fn tidy(&mut self, nothing_is_lost: bool) {
        let end = if nothing_is_lost {
            self.tail.len()
        } else {
            self.confirmed
        };
        let visible = self.tail[..end]
            .iter()
            .take_while(|logged| logged.wait == Wait::Over)
            .count();
        self.kept = self.prefix(visible);
        self.tail.drain(..visible);
        self.confirmed = self.confirmed.saturating_sub(visible);
        self.sessions.sort_unstable();
    }

    /// A writer that no request names can only be closed and deleted, which has no effect.
    pub(super) fn forget_unnamed(&mut self, writer: Writer) {
        let named = self
            .sessions
            .iter()
            .any(|session| session.request.names(writer))
            || self.tail.iter().any(|logged| logged.change.names(writer));
        if !named {
            self.kept.forget(writer);
        }
    }
}

//! The system: lanes, the server, and everything that may happen next.

use super::database::{BATCHES, Change, Number, WRITERS, Writer};
use super::explorer::Model;
use super::lane::Lane;
use super::rules::Setup;
use super::server::{Answer, Answered, Server};
use super::session::{LaneNumber, Move, Reply, Request};

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    server: Server,
    lanes: Vec<Lane>,
    /// The batches whose visitors got a 200.
    counted: [bool; BATCHES],
    /// The next number for a writer.
    fresh: Writer,
    faults_left: u8,
}

pub(super) enum Step {
    Send(LaneNumber, Request),
    Statement(Request, Move),
    /// The standby confirms the WAL up to a commit, whose wait ends.
    Confirm(Change),
    Fault(Fault),
}

pub(super) enum Fault {
    LoseConnection(LaneNumber),
    CancelWait(Change),
    TerminateWait(Change),
    Crash,
    FailOver { kept: usize },
    Mislead(LaneNumber),
    Deadline(LaneNumber),
    Close(Writer),
    Delete(Writer, Number),
}

type Next = Vec<(Step, World)>;

impl Model for Setup {
    type State = World;
    type Step = Step;

    fn start(&self) -> World {
        let lane = |(writer, batches)| Lane::new(self.registered, writer, batches);
        let lanes: Vec<_> = (0..).zip(&self.lanes).map(lane).collect();
        let fresh = if self.registered {
            lanes.len() as Writer
        } else {
            0
        };
        let mut server = Server::default();
        for writer in 0..fresh {
            server.register(self, writer);
        }
        World {
            server,
            lanes,
            counted: [false; BATCHES],
            fresh,
            faults_left: self.faults,
        }
    }

    fn steps(&self, world: &World) -> Next {
        let mut next = Vec::new();
        world.sends(self, &mut next);
        world.statements(self, &mut next);
        world.confirmations(self, &mut next);
        if world.faults_left > 0 {
            let first = next.len();
            world.lane_faults(self, &mut next);
            world.server_faults(self, &mut next);
            world.housekeeping(self, &mut next);
            next[first..]
                .iter_mut()
                .for_each(|(_, after)| after.faults_left -= 1);
        }
        next.iter_mut().for_each(|(_, after)| after.tidy(self));
        next
    }

    fn wrong(&self, world: &World) -> Option<String> {
        world.server.wrong().or_else(|| world.lost(self))
    }

    fn resolved(&self, world: &World) -> bool {
        world.lanes.iter().all(Lane::is_done)
    }

    fn is_fault(&self, step: &Step) -> bool {
        matches!(step, Step::Fault(_))
    }
}

impl World {
    /// A lane that waits for no answer may send.
    fn sends(&self, setup: &Setup, next: &mut Next) {
        for (lane, own) in (0..)
            .zip(&self.lanes)
            .filter(|(lane, _)| !self.server.is_heard_by(*lane))
        {
            for (request, changed) in own.requests(setup, self.fresh) {
                let mut after = self.clone();
                after.lanes[usize::from(lane)] = changed;
                if let Request::HandOver { new: Some(new), .. } = request {
                    after.fresh = after.fresh.max(new + 1);
                    assert!(
                        usize::from(after.fresh) <= WRITERS,
                        "the model has too few writers"
                    );
                }
                after.server.send(request, Some(lane));
                next.push((Step::Send(lane, request), after));
            }
        }
    }

    fn statements(&self, setup: &Setup, next: &mut Next) {
        for (at, request) in self.server.sessions() {
            let mut after = self.clone();
            if let Some((moved, answered)) = after.server.advance(setup, at) {
                after.deliver(setup, answered);
                next.push((Step::Statement(request, moved), after));
            }
        }
    }

    /// The standby confirms as late as possible. Earlier confirmations would only exclude
    /// failovers.
    fn confirmations(&self, setup: &Setup, next: &mut Next) {
        for (at, change) in self.server.waiting() {
            let mut after = self.clone();
            let answered = after.server.confirm(at);
            after.deliver(setup, answered);
            next.push((Step::Confirm(change), after));
        }
    }

    fn lane_faults(&self, setup: &Setup, next: &mut Next) {
        for lane in 0..self.lanes.len() as LaneNumber {
            let own = &self.lanes[usize::from(lane)];
            let mut hung_up = self.clone();
            hung_up.server.hang_up(lane);
            if self.server.is_heard_by(lane) {
                next.push((Step::Fault(Fault::LoseConnection(lane)), hung_up.clone()));
                if setup.old_primary && own.awaits_entry() {
                    let mut after = hung_up.clone();
                    let answer = Answer {
                        result: Reply::DuplicateKey,
                        warned: false,
                    };
                    after.deliver(setup, Some((lane, answer)));
                    next.push((Step::Fault(Fault::Mislead(lane)), after));
                }
            }
            if hung_up.lanes[usize::from(lane)].abandon(setup) {
                next.push((Step::Fault(Fault::Deadline(lane)), hung_up));
            }
        }
    }

    fn server_faults(&self, setup: &Setup, next: &mut Next) {
        for (at, change) in self.server.waiting() {
            let mut after = self.clone();
            let answered = after.server.cancel(at);
            if answered.is_some() {
                next.push((Step::Fault(Fault::TerminateWait(change)), after.clone()));
            }
            after.deliver(setup, answered);
            next.push((Step::Fault(Fault::CancelWait(change)), after));
        }
        for kept in self.server.survivors() {
            let mut after = self.clone();
            after.server.fail_over(kept);
            if !setup.synchronous {
                after.forgive_losses();
            }
            let whole = kept == *self.server.survivors().end();
            let fault = if whole {
                Fault::Crash
            } else {
                Fault::FailOver { kept }
            };
            next.push((Step::Fault(fault), after));
        }
    }

    /// What other processes do to a writer: close it, delete its old entries, or delete a closed
    /// one.
    fn housekeeping(&self, setup: &Setup, next: &mut Next) {
        let visible = self.server.visible();
        for writer in 0..self.fresh {
            let Some((newest, entry)) = visible.newest(writer) else {
                continue;
            };
            if !entry.closed {
                let mut after = self.clone();
                let session = after.server.send(
                    Request::HandOver {
                        old: Some((writer, 0)),
                        new: None,
                    },
                    None,
                );
                after.server.advance(setup, session);
                next.push((Step::Fault(Fault::Close(writer)), after));
            }
            let end = if visible.is_registered(writer) {
                newest
            } else {
                newest + 1
            };
            for below in (1..=end).filter(|below| visible.entry(writer, below - 1).is_some()) {
                let mut after = self.clone();
                after.server.delete(writer, below);
                next.push((Step::Fault(Fault::Delete(writer, below)), after));
            }
        }
    }

    fn deliver(&mut self, setup: &Setup, answered: Answered) {
        let Some((lane, answer)) = answered else {
            return;
        };
        let own = &mut self.lanes[usize::from(lane)];
        let batch = own.batch();
        if own.receive(setup, answer) {
            self.counted[usize::from(batch)] = true;
        }
    }

    /// A batch with a 200 that may be lost.
    fn lost(&self, setup: &Setup) -> Option<String> {
        let there = if setup.synchronous {
            self.server.confirmed()
        } else {
            self.server.visible()
        };
        let lost =
            (0..BATCHES).find(|&batch| self.counted[batch] && there.rows(batch as u8) == 0)?;
        Some(format!("batch {lost} was answered 200 and can be lost"))
    }

    /// Without a synchronous standby a failover may lose 200s, which is not an error of the
    /// protocol.
    fn forgive_losses(&mut self) {
        let there = self.server.visible();
        for (batch, counted) in (0..).zip(&mut self.counted) {
            *counted &= there.rows(batch) > 0;
        }
    }

    /// Normalizes states with the same future.
    fn tidy(&mut self, setup: &Setup) {
        self.server
            .tidy(!setup.synchronous && self.faults_left == 0);
        for writer in
            (0..self.fresh).filter(|&writer| !self.lanes.iter().any(|lane| lane.uses(writer)))
        {
            self.server.forget_unnamed(writer);
        }
    }
}

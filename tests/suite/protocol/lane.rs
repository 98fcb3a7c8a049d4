//! A lane: its requests, and its reactions to answers.

use std::ops::Range;

use super::database::{Batch, Found, Number, Writer, size};
use super::rules::{Rule, Setup};
use super::server::Answer;
use super::session::{Reply, Request};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    /// The current batch, and the one behind the last.
    batch: Batch,
    end: Batch,
    stage: Stage,
    writer: Writer,
    /// The number of the current batch, and the running total before it.
    number: Number,
    before: u8,
}

/// What the lane knows of its current batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// The lane has no writer. It holds the one tried last, and what is known of the batch once
    /// there is one.
    Opening(Option<Writer>, Found),
    /// It was not sent under this writer.
    Ready,
    /// It was sent: it may be committed now, later or never.
    InDoubt,
    /// It is committed but perhaps not replicated. An empty entry at this number proves it.
    Unsettled(Number),
    /// Only a hand-over resolves it.
    Leaving,
    /// No batch is left.
    Done,
}

impl Lane {
    pub(super) fn new(registered: bool, writer: Writer, batches: &Range<Batch>) -> Self {
        let stage = if registered {
            Stage::Ready
        } else {
            Stage::Opening(None, Found::Nothing)
        };
        Self {
            batch: batches.start,
            end: batches.end,
            stage,
            writer,
            number: 1,
            before: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    pub(super) fn awaits_entry(&self) -> bool {
        matches!(self.stage, Stage::InDoubt | Stage::Unsettled(_))
    }

    pub(super) fn batch(&self) -> Batch {
        self.batch
    }

    pub(super) fn uses(&self, writer: Writer) -> bool {
        self.writer == writer
    }

    /// Everything that the lane may send now, with the lane after it. `fresh` is an unused writer.
    pub(super) fn requests(&self, setup: &Setup, fresh: Writer) -> Vec<(Request, Self)> {
        let (writer, number, total) = (self.writer, self.number, self.before + size(self.batch));
        let batch = Request::Append {
            writer,
            number,
            before: self.before,
            total,
            batch: Some(self.batch),
        };
        let new = (!setup.without(Rule::OneTransaction)).then_some(fresh);
        let hand_over = (
            Request::HandOver {
                old: Some((writer, number)),
                new,
            },
            self.at(Stage::Leaving),
        );
        match self.stage {
            Stage::Opening(tried, then) => {
                let again = tried.filter(|_| setup.without(Rule::RegisterOnce));
                let new = Some(again.unwrap_or(fresh));
                vec![(
                    Request::HandOver { old: None, new },
                    self.at(Stage::Opening(new, then)),
                )]
            }
            Stage::Ready => vec![(batch, self.at(Stage::InDoubt))],
            Stage::InDoubt if setup.without(Rule::SameNumber) => {
                vec![(
                    Request::HandOver { old: None, new },
                    self.at(Stage::Leaving),
                )]
            }
            Stage::InDoubt => vec![(batch, *self), hand_over],
            Stage::Unsettled(number) => {
                let empty = Request::Append {
                    writer,
                    number,
                    before: total,
                    total,
                    batch: None,
                };
                vec![(empty, *self), hand_over]
            }
            Stage::Leaving => vec![hand_over],
            Stage::Done => Vec::new(),
        }
    }

    fn at(&self, stage: Stage) -> Self {
        Self { stage, ..*self }
    }

    /// Takes an answer; gives whether it is a 200 for the current batch.
    pub(super) fn receive(&mut self, setup: &Setup, answer: Answer) -> bool {
        match answer.result {
            Reply::Appended => self.appended(answer.warned && !setup.without(Rule::SettleWarning)),
            Reply::DuplicateKey => self.refused_by_key(setup),
            Reply::BrokenChain => {
                self.stage = Stage::Leaving;
                false
            }
            Reply::HandedOver { .. } if answer.warned && !setup.without(Rule::SettleHandOver) => {
                false
            }
            Reply::HandedOver {
                opened: None,
                found,
            } => {
                self.stage = Stage::Opening(None, found);
                false
            }
            Reply::HandedOver {
                opened: Some(new),
                found,
            } => {
                let found = if let Stage::Opening(_, known) = self.stage {
                    known
                } else {
                    found
                };
                self.go_on(setup, new, found)
            }
        }
    }

    fn appended(&mut self, warned: bool) -> bool {
        let number = if let Stage::Unsettled(number) = self.stage {
            number
        } else {
            self.number
        };
        if warned {
            self.stage = Stage::Unsettled(number + 1);
            return false;
        }
        self.counted(number)
    }

    fn refused_by_key(&mut self, setup: &Setup) -> bool {
        match self.stage {
            Stage::InDoubt if setup.without(Rule::SettleDuplicate) => {
                return self.counted(self.number);
            }
            Stage::InDoubt => self.stage = Stage::Unsettled(self.number + 1),
            Stage::Unsettled(number) => self.stage = Stage::Unsettled(number + 1),
            Stage::Opening(Some(new), found) if setup.without(Rule::RegisterOnce) => {
                return self.go_on(setup, new, found);
            }
            Stage::Opening(..) | Stage::Ready | Stage::Leaving | Stage::Done => {}
        }
        false
    }

    /// The batch is durable, and `number` is the last one that this writer used.
    fn counted(&mut self, number: Number) -> bool {
        self.before += size(self.batch);
        self.number = number + 1;
        self.take_next(Stage::Ready);
        true
    }

    /// Continues under a new writer, with the current batch or the next one.
    fn go_on(&mut self, setup: &Setup, new: Writer, found: Found) -> bool {
        let counted = matches!(found, Found::ClosedAt(closed) if closed > self.number);
        let refused = found == Found::Unknown && !setup.without(Rule::UnknownIsRefused);
        (self.writer, self.number, self.before) = (new, 1, 0);
        self.stage = Stage::Ready;
        if counted || refused {
            self.take_next(Stage::Ready);
        }
        counted
    }

    /// The deadline: all visitors get a 503, and the lane abandons the batch in doubt.
    pub(super) fn abandon(&mut self, setup: &Setup) -> bool {
        let in_doubt = matches!(
            self.stage,
            Stage::InDoubt | Stage::Unsettled(_) | Stage::Leaving
        );
        if in_doubt {
            let reuse = setup.without(Rule::FreshNumber);
            self.take_next(if reuse {
                Stage::Ready
            } else {
                Stage::Opening(None, Found::Nothing)
            });
        }
        in_doubt
    }

    fn take_next(&mut self, stage: Stage) {
        self.batch += 1;
        self.stage = if self.batch == self.end {
            Stage::Done
        } else {
            stage
        };
        if self.stage != Stage::Ready {
            (self.writer, self.number, self.before) = (Writer::MAX, 0, 0);
        }
    }
}

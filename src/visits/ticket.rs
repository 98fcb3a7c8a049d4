//! A ticket: one visitor's place in a lane's inbox, with its arrival and its deadline. Tickets committed together are a batch.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::seat::Seat;

/// What a visitor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// A row, an increment, and both numbers.
    Visit,
    /// Both numbers only.
    Look,
}

/// One visitor's place in the queue.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) seat: Arc<Seat>,
    /// Which of the seat's visits this is; an answer for an earlier one is dropped.
    pub(super) turn: u64,
    pub(super) asks: Asks,
    pub(super) arrival: SystemTime,
    pub(super) deadline: Instant,
}

/// What was taken from the inbox at once, in order of arrival.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) tickets: Vec<Ticket>,
}

impl Batch {
    /// Those of its tickets that are visits.
    pub(super) fn visits(&self) -> impl Iterator<Item = &Ticket> {
        self.tickets.iter().filter(|ticket| ticket.asks == Asks::Visit)
    }
}

//! Tickets, and the batch that commits them together.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::waiter::Waiter;

/// What a visitor asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::visits) enum Ask {
    /// A row, an increment, and both numbers.
    Visit,
    /// Both numbers only.
    Peek,
    /// A new reading of the history; the numbers do not matter.
    History,
}

/// One visitor in a lane's queue.
#[derive(Debug, Clone)]
pub(in crate::visits) struct Ticket {
    pub(in crate::visits) waiter: Arc<Waiter>,
    /// The waiter's generation: it drops answers to earlier ones.
    pub(in crate::visits) generation: u64,
    pub(in crate::visits) ask: Ask,
    pub(in crate::visits) arrival: SystemTime,
    pub(in crate::visits) deadline: Instant,
}

/// What was taken from the queue at once, in order of arrival.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) tickets: Vec<Ticket>,
}

impl Batch {
    /// The arrivals of its visits.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = SystemTime> {
        self.tickets
            .iter()
            .filter(|ticket| ticket.ask == Ask::Visit)
            .map(|ticket| ticket.arrival)
    }

    pub(super) fn any(&self, ask: Ask) -> bool {
        self.tickets.iter().any(|ticket| ticket.ask == ask)
    }
}

//! Tickets, and the batch that commits them together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::waiter::Waiter;
use crate::visits::ledger::{Arrivals, NamedVisits};
use crate::visits::name::Name;
use crate::visits::question::{ListQuestion, NamesQuestion};

/// What a visitor asks for.
#[derive(Debug, Clone)]
pub(in crate::visits) enum Ask {
    /// A row, an increment, and both numbers: those of all visits, or those of that name.
    Visit(Option<Name>),
    /// Both numbers only.
    Peek,
    /// A new reading of the history; the numbers do not matter, here and below.
    History,
    Names(Arc<NamesQuestion>),
    List(Arc<ListQuestion>),
}

impl Ask {
    pub(super) fn is_visit(&self) -> bool {
        matches!(self, Ask::Visit(_))
    }

    /// Whether it waits apart from visits: it takes a statement of its own.
    pub(super) fn is_question(&self) -> bool {
        !matches!(self, Ask::Visit(_) | Ask::Peek)
    }
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
    /// The history is to be read even if no ticket asks for it.
    pub(super) refresh: bool,
}

impl Batch {
    /// How many visits are in it.
    pub(super) fn visits(&self) -> usize {
        let visits = self.tickets.iter().filter(|ticket| ticket.ask.is_visit());
        visits.count()
    }

    /// Its visits, for the ledger.
    pub(super) fn arrivals(&self) -> Arrivals {
        let mut arrivals = Arrivals {
            times: Vec::with_capacity(self.tickets.len()),
            ..Arrivals::default()
        };
        let mut has_names = false;
        for ticket in &self.tickets {
            if let Ask::Visit(name) = &ticket.ask {
                arrivals.times.push(ticket.arrival);
                has_names |= name.is_some();
            }
        }
        if has_names {
            self.add_names(&mut arrivals);
        }
        arrivals
    }

    fn add_names(&self, arrivals: &mut Arrivals) {
        let mut places: HashMap<&Name, usize> = HashMap::new();
        for ticket in &self.tickets {
            let Ask::Visit(name) = &ticket.ask else {
                continue;
            };
            let Arrivals { names, name_of, .. } = &mut *arrivals;
            name_of.push(name.as_ref().map(|name| {
                let place = *places.entry(name).or_insert(names.len());
                if place == names.len() {
                    let name = name.clone();
                    names.push(NamedVisits { name, visits: 0 });
                }
                names[place].visits += 1;
                place
            }));
        }
    }

    pub(super) fn any(&self, is_meant: impl Fn(&Ask) -> bool) -> bool {
        self.tickets.iter().any(|ticket| is_meant(&ticket.ask))
    }
}

//! A writer's running numbers for each name it has counted.
//!
//! While the writer is alone, the numbers of a batch's names stay in its entry in `visitas_log`,
//! which costs less than a row for each. Names that were not visited again by the time their entry
//! leaves the recent ones get a row in `visitas_named`. A writer beside others gives each name of a
//! batch its row at once: others read rows by an index, but recent entries one by one.
//!
//! All of it is in the transaction of the batch. So the fate of the batch's entry is theirs, and a
//! closing of the writer holds for them too.

use std::collections::{HashMap, VecDeque};

use super::session::counts;
use super::writer::{Entry, Minute};
use crate::visits::history::Step;
use crate::visits::ledger::{Arrivals, Totals};
use crate::visits::name::Name;

/// Names in recent entries, each as often as it is in one. Who reads totals by name reads them all,
/// about a millisecond. Of 1,000 names in turn all are visited again before that.
const MAX_RECENT_NAMES: usize = 4096;
/// Numbers from the first recent entry to the next one, for the same reason.
pub(super) const MAX_RECENT_ENTRIES: i64 = 128;
/// Outdated rows that are dropped at once: a few milliseconds.
const ROWS_DROPPED: usize = 1024;

/// The numbers of all names. There are no more than names in use.
#[derive(Debug, Default)]
pub(super) struct NamedNumbers {
    /// Where in `numbers` each name is.
    places: HashMap<Name, usize>,
    numbers: Vec<Numbers>,
    /// The entries in `visitas_log` with numbers that `visitas_named` may lack, the oldest first.
    recent: VecDeque<Recent>,
    recent_names: usize,
    /// Rows in `visitas_named` with a newer one of the same name: the name's place, and the number.
    outdated: Vec<(usize, i64)>,
    /// The base for which totals are known.
    base: Option<i64>,
    /// Entries made, whatever became of them.
    made: u64,
}

#[derive(Debug)]
struct Recent {
    number: i64,
    places: Vec<usize>,
}

#[derive(Debug)]
struct Numbers {
    name: Name,
    /// The number of the last batch with the name.
    number: i64,
    /// The number of the newest row in `visitas_named`; 0 before the first.
    row: i64,
    total: i64,
    minute: Minute,
    /// The total without this writer's visits, and what was deleted, in that base.
    others: Option<(i64, (i64, i64))>,
    /// The last entry made with it, by [`NamedNumbers::made`].
    made_in: u64,
}

/// A writer's totals and current minutes for some names.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) totals: Vec<i64>,
    pub(super) minutes: Vec<i64>,
    pub(super) minutes_visits: Vec<i64>,
}

/// What one batch writes about names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NamedEntry {
    /// The name of each visit; empty where none has one.
    pub(super) rows: Vec<Option<Name>>,
    /// The batch's names; behind them names whose numbers leave the recent entries.
    pub(super) names: Vec<Name>,
    places: Vec<usize>,
    /// How many are the batch's.
    pub(super) asked: usize,
    /// How many of these stay in the entry: all or none.
    kept: usize,
    /// For each of the names the running total, and the current minute with its visits.
    pub(super) totals: Vec<i64>,
    pub(super) minutes: Vec<i64>,
    pub(super) minutes_visits: Vec<i64>,
    /// The name of each of [`Entry::past`]; `None` for all visits.
    pub(super) past_names: Vec<Option<Name>>,
    /// The base for which the totals of all the batch's names are known.
    pub(super) base: Option<i64>,
}

impl NamedEntry {
    fn add(&mut self, place: usize, name: &Name, total: i64, minute: Minute) {
        self.places.push(place);
        self.names.push(name.clone());
        self.totals.push(total);
        self.minutes.push(minute.start);
        self.minutes_visits.push(minute.visits);
    }
}

impl NamedNumbers {
    /// Adds what the visits change of their names, and which recent entries still count. `alone`:
    /// there is no other writer, and no change waits to be folded.
    pub(super) fn add_to(&mut self, entry: &mut Entry, visits: &Arrivals, alone: bool) {
        let asked = visits.names.len();
        let kept = if alone { asked } else { 0 };
        let leaving = self.leaving(entry.number, asked, alone);
        let first = self.recent.get(leaving).map(|recent| recent.number);
        entry.named_from = first.or((kept > 0).then_some(entry.number));
        if asked == 0 && leaving == 0 {
            return;
        }
        let mut told = NamedEntry {
            asked,
            kept,
            ..NamedEntry::default()
        };
        self.made += 1;
        if asked > 0 {
            self.add_visits(&mut told, entry, visits);
        }
        for Recent { number, places } in self.recent.range(..leaving) {
            for place in places {
                let numbers = &self.numbers[*place];
                // Neither in a later entry nor in this one.
                if numbers.number == *number && numbers.made_in != self.made {
                    told.add(*place, &numbers.name, numbers.total, numbers.minute);
                }
            }
        }
        entry.named = (!told.names.is_empty()).then_some(told);
    }

    /// How many of the recent entries are too old for the entry `number`, which adds `adds` names.
    fn leaving(&self, number: i64, adds: usize, alone: bool) -> usize {
        let mut names = self.recent_names + adds;
        let stays = |recent: &Recent| {
            let entries = number - recent.number;
            let stays = alone && names <= MAX_RECENT_NAMES && entries < MAX_RECENT_ENTRIES;
            names -= recent.places.len();
            stays
        };
        let first = self.recent.iter().position(stays);
        first.unwrap_or(self.recent.len())
    }

    fn add_visits(&mut self, told: &mut NamedEntry, entry: &mut Entry, visits: &Arrivals) {
        let name = |place: &usize| visits.names[*place].name.clone();
        let of = visits.name_of.iter();
        told.rows = of.map(|place| place.as_ref().map(name)).collect();
        told.past_names = vec![None; entry.past.len()];
        told.base = self.base;
        let times = visits.times.iter();
        let starts: Vec<i64> = times.map(|time| Step::Minute.start_of(*time)).collect();
        let is_one = starts.iter().all(|start| *start == starts[0]);
        for (index, named) in visits.names.iter().enumerate() {
            let place = self.place(&named.name);
            let numbers = &mut self.numbers[place];
            numbers.made_in = self.made;
            let (minute, past) = if is_one {
                let starts = std::iter::repeat_n(starts[0], named.visits as usize);
                numbers.minute.with(starts)
            } else {
                let starts = starts.iter().zip(&visits.name_of);
                let starts = starts.filter(|(_, of)| **of == Some(index));
                let starts: Vec<i64> = starts.map(|(start, _)| *start).collect();
                numbers.minute.with(starts.into_iter())
            };
            for (start, visits) in past {
                told.past_names.push(Some(named.name.clone()));
                entry.past.push(start);
                entry.past_visits.push(visits);
            }
            let is_known = numbers.others.map(|(base, _)| base) == self.base;
            told.base = told.base.filter(|_| is_known);
            let total = numbers.total + named.visits.cast_signed();
            told.add(place, &named.name, total, minute);
        }
    }

    fn place(&mut self, name: &Name) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.numbers.len();
        self.places.insert(name.clone(), place);
        self.numbers.push(Numbers {
            name: name.clone(),
            number: 0,
            row: 0,
            total: 0,
            minute: Minute::default(),
            others: None,
            made_in: 0,
        });
        place
    }

    /// The entry is in the log.
    pub(super) fn advance(&mut self, entry: &Entry) {
        let from = entry.named_from.unwrap_or(entry.number);
        while let Some(left) = self.recent.pop_front_if(|recent| recent.number < from) {
            self.recent_names -= left.places.len();
        }
        let Some(told) = &entry.named else { return };
        for (index, place) in told.places.iter().enumerate() {
            let numbers = &mut self.numbers[*place];
            if index >= told.kept {
                if numbers.row > 0 {
                    self.outdated.push((*place, numbers.row));
                }
                numbers.row = entry.number;
            }
            if index < told.asked {
                numbers.number = entry.number;
                numbers.total = told.totals[index];
                numbers.minute = Minute {
                    start: told.minutes[index],
                    visits: told.minutes_visits[index],
                };
            }
        }
        if told.kept > 0 {
            self.recent_names += told.kept;
            self.recent.push_back(Recent {
                number: entry.number,
                places: told.places[..told.kept].to_vec(),
            });
        }
    }

    /// What the writer has of these names.
    pub(super) fn of(&self, names: &[Name]) -> Own {
        let mut own = Own::default();
        for name in names {
            let numbers = self.places.get(name).map(|place| &self.numbers[*place]);
            let minute = numbers.map_or_else(Minute::default, |numbers| numbers.minute);
            own.totals.push(numbers.map_or(0, |numbers| numbers.total));
            own.minutes.push(minute.start);
            own.minutes_visits.push(minute.visits);
        }
        own
    }

    /// The number of the first entry that must stay in the log.
    pub(super) fn needed_from(&self) -> Option<i64> {
        self.recent.front().map(|recent| recent.number)
    }

    /// The totals of the names of a batch that is in the log: with what the ledger told of others,
    /// or with what is known of the base. `base` is the one in which the writer is alone, where it
    /// is.
    pub(super) fn sums(
        &mut self,
        entry: &NamedEntry,
        told: Option<&[(i64, i64)]>,
        base: Option<i64>,
    ) -> Vec<Totals> {
        self.base = base;
        let places = entry.places[..entry.asked].iter().enumerate();
        let sum = |(index, place): (usize, &usize)| {
            let numbers = &mut self.numbers[*place];
            let others = match told {
                Some(told) => told.get(index).copied(),
                None => numbers.others.map(|(_, others)| others),
            };
            let (total, pruned) = others.unwrap_or_default();
            numbers.others = base.map(|base| (base, (total, pruned)));
            counts((total + numbers.total, pruned))
        };
        places.map(sum).collect()
    }

    /// Whether there is enough to drop.
    pub(super) fn has_outdated(&self) -> bool {
        self.outdated.len() >= ROWS_DROPPED
    }

    /// Takes out some rows to drop: names and numbers.
    pub(super) fn outdated(&mut self) -> (Vec<Name>, Vec<i64>) {
        let upto = self.outdated.len().min(ROWS_DROPPED);
        let dropped = self.outdated.drain(..upto);
        dropped
            .map(|(place, number)| (self.numbers[place].name.clone(), number))
            .unzip()
    }
}

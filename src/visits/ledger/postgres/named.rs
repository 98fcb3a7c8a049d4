//! A writer's running numbers for each name it has counted.
//!
//! While the writer is alone, the numbers of a batch's names stay in its entry in `visitas_log`,
//! which costs less than a row for each. Names that were not visited again by the time their entry
//! leaves the recent ones get a row in `visitas_named`. A writer beside others gives each name of a
//! batch its row at once: others read rows by an index, but recent entries one by one.
//!
//! All of it is in the transaction of the batch. So whatever becomes of the batch's entry, and
//! whoever closes the writer, holds for these numbers too.

use std::collections::{HashMap, HashSet, VecDeque};

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
    names: HashMap<Name, Numbers>,
    /// The entries in `visitas_log` with numbers that `visitas_named` may lack, the oldest first.
    recent: VecDeque<Recent>,
    recent_names: usize,
    /// Rows in `visitas_named` with a newer one of the same name.
    outdated: Vec<(Name, i64)>,
    /// The base for which totals are known.
    base: Option<i64>,
}

#[derive(Debug)]
struct Recent {
    number: i64,
    names: Vec<Name>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    /// The number of the last batch with the name.
    number: i64,
    /// The number of the newest row in `visitas_named`; 0 before the first.
    row: i64,
    total: i64,
    minute: Minute,
    /// The total without this writer's visits, and what was deleted, in that base.
    others: Option<(i64, (i64, i64))>,
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
    fn add(&mut self, name: &Name, total: i64, minute: Minute) {
        self.names.push(name.clone());
        self.totals.push(total);
        self.minutes.push(minute.start);
        self.minutes_visits.push(minute.visits);
    }
}

impl NamedNumbers {
    /// Adds what the visits change of their names, and which recent entries still count. `alone`
    /// tells that there is no other writer.
    pub(super) fn add_to(&self, entry: &mut Entry, visits: &Arrivals, alone: bool) {
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
        if asked > 0 {
            self.add_visits(&mut told, entry, visits);
        }
        if leaving > 0 {
            let newer: HashSet<&Name> = visits.names.iter().map(|named| &named.name).collect();
            for Recent { number, names } in self.recent.range(..leaving) {
                let last = names
                    .iter()
                    .filter_map(|name| self.names.get_key_value(name));
                let last = last.filter(|(_, numbers)| numbers.number == *number);
                for (name, numbers) in last.filter(|(name, _)| !newer.contains(name)) {
                    told.add(name, numbers.total, numbers.minute);
                }
            }
        }
        entry.named = (!told.names.is_empty()).then_some(told);
    }

    /// How many of the recent entries are too old for the next one, which has that number and adds
    /// so many names.
    fn leaving(&self, number: i64, adds: usize, alone: bool) -> usize {
        let mut names = self.recent_names + adds;
        let stays = |recent: &Recent| {
            let entries = number - recent.number;
            let stays = alone && names <= MAX_RECENT_NAMES && entries < MAX_RECENT_ENTRIES;
            names -= recent.names.len();
            stays
        };
        let first = self.recent.iter().position(stays);
        first.unwrap_or(self.recent.len())
    }

    fn add_visits(&self, told: &mut NamedEntry, entry: &mut Entry, visits: &Arrivals) {
        let name = |place: &usize| visits.names[*place].name.clone();
        let of = visits.name_of.iter();
        told.rows = of.map(|place| place.as_ref().map(name)).collect();
        told.past_names = vec![None; entry.past.len()];
        told.base = self.base;
        let mut starts: Vec<Vec<i64>> = vec![Vec::new(); visits.names.len()];
        for (time, place) in visits.times.iter().zip(&visits.name_of) {
            if let Some(place) = place {
                starts[*place].push(Step::Minute.start_of(*time));
            }
        }
        for (named, starts) in visits.names.iter().zip(starts) {
            let numbers = self.names.get(&named.name).copied().unwrap_or_default();
            let (minute, past) = numbers.minute.with(starts.into_iter());
            for (start, visits) in past {
                told.past_names.push(Some(named.name.clone()));
                entry.past.push(start);
                entry.past_visits.push(visits);
            }
            let total = numbers.total + named.visits.cast_signed();
            told.add(&named.name, total, minute);
            let is_known = numbers.others.map(|(base, _)| base) == self.base;
            told.base = told.base.filter(|_| is_known);
        }
    }

    /// The entry is in the log.
    pub(super) fn advance(&mut self, entry: &Entry) {
        let from = entry.named_from.unwrap_or(entry.number);
        while let Some(left) = self.recent.pop_front_if(|recent| recent.number < from) {
            self.recent_names -= left.names.len();
        }
        let Some(told) = &entry.named else { return };
        for (index, name) in told.names.iter().enumerate() {
            let numbers = self.names.entry(name.clone()).or_default();
            if index >= told.kept {
                if numbers.row > 0 {
                    self.outdated.push((name.clone(), numbers.row));
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
                names: told.names[..told.kept].to_vec(),
            });
        }
    }

    /// What the writer has of these names.
    pub(super) fn of(&self, names: &[Name]) -> Own {
        let mut own = Own::default();
        for name in names {
            let numbers = self.names.get(name).copied().unwrap_or_default();
            own.totals.push(numbers.total);
            own.minutes.push(numbers.minute.start);
            own.minutes_visits.push(numbers.minute.visits);
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
        visits: &Arrivals,
        told: Option<&[(i64, i64)]>,
        base: Option<i64>,
    ) -> Vec<Totals> {
        self.base = base;
        let mut sums = Vec::with_capacity(visits.names.len());
        for (index, named) in visits.names.iter().enumerate() {
            let numbers = self.names.entry(named.name.clone()).or_default();
            let others = match told {
                Some(told) => told.get(index).copied(),
                None => numbers.others.map(|(_, others)| others),
            };
            let (total, pruned) = others.unwrap_or_default();
            numbers.others = base.map(|base| (base, (total, pruned)));
            sums.push(counts((total + numbers.total, pruned)));
        }
        sums
    }

    /// Whether there is enough to drop.
    pub(super) fn has_outdated(&self) -> bool {
        self.outdated.len() >= ROWS_DROPPED
    }

    /// Takes out some rows to drop: names and numbers.
    pub(super) fn outdated(&mut self) -> (Vec<Name>, Vec<i64>) {
        let upto = self.outdated.len().min(ROWS_DROPPED);
        self.outdated.drain(..upto).unzip()
    }
}

//! A writer's running numbers for each name it has counted.
//!
//! Each batch appends one entry per name in it to `visitas_named`, in the transaction of the
//! batch's own entry. So whatever becomes of that one, and whoever closes the writer, holds for
//! these too.

use std::collections::HashMap;

use super::writer::{Entry, Minute};
use crate::visits::history::Step;
use crate::visits::ledger::{Arrivals, Totals};
use crate::visits::name::Name;

/// Outdated entries that are dropped at once: a few milliseconds.
const ENTRIES_DROPPED: usize = 1024;

/// The numbers of all names. There are no more than names in use.
#[derive(Debug, Default)]
pub(super) struct NamedNumbers {
    names: HashMap<Name, Numbers>,
    /// Entries with a newer one of the same name.
    outdated: Vec<(Name, i64)>,
    /// The base for which totals are known.
    base: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    /// The number of the newest entry; 0 before the first.
    number: i64,
    total: i64,
    minute: Minute,
    /// The total without this writer's visits, in that base.
    others: Option<(i64, Totals)>,
}

/// What one batch adds to `visitas_named`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NamedEntry {
    /// The name of each visit.
    pub(super) rows: Vec<Option<Name>>,
    pub(super) names: Vec<Name>,
    /// For each of the names the running total, and the current minute with its visits.
    pub(super) totals: Vec<i64>,
    pub(super) minutes: Vec<i64>,
    pub(super) minutes_visits: Vec<i64>,
    /// The name of each of [`Entry::past`]; `None` for all visits.
    pub(super) past_names: Vec<Option<Name>>,
    /// The base for which the totals of all these names are known.
    pub(super) base: Option<i64>,
}

impl NamedNumbers {
    /// Adds what the visits change of their names.
    pub(super) fn add_to(&self, entry: &mut Entry, visits: &Arrivals) {
        let name = |place: &usize| visits.names[*place].name.clone();
        let of = visits.name_of.iter();
        let mut told = NamedEntry {
            rows: of.map(|place| place.as_ref().map(name)).collect(),
            past_names: vec![None; entry.past.len()],
            base: self.base,
            ..NamedEntry::default()
        };
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
            told.names.push(named.name.clone());
            told.totals.push(numbers.total + named.visits.cast_signed());
            told.minutes.push(minute.start);
            told.minutes_visits.push(minute.visits);
            let is_known = numbers.others.map(|(base, _)| base) == self.base;
            told.base = told.base.filter(|_| is_known);
        }
        entry.named = Some(told);
    }

    /// The entry with that number is in the log.
    pub(super) fn advance(&mut self, entry: &NamedEntry, number: i64) {
        for (index, name) in entry.names.iter().enumerate() {
            let numbers = self.names.entry(name.clone()).or_default();
            if numbers.number > 0 {
                self.outdated.push((name.clone(), numbers.number));
            }
            numbers.number = number;
            numbers.total = entry.totals[index];
            numbers.minute = Minute {
                start: entry.minutes[index],
                visits: entry.minutes_visits[index],
            };
        }
    }

    /// The totals of the names of a batch that is in the log: what the ledger told, or what follows
    /// from the base that is known. `base` is the one in which the writer is alone, where it is.
    pub(super) fn sums(
        &mut self,
        visits: &Arrivals,
        told: Option<&[Totals]>,
        base: Option<i64>,
    ) -> Vec<Totals> {
        self.base = base;
        let mut sums = Vec::with_capacity(visits.names.len());
        for (index, named) in visits.names.iter().enumerate() {
            let numbers = self.names.entry(named.name.clone()).or_default();
            let ours = numbers.total.cast_unsigned();
            let sum = match (told, numbers.others) {
                (Some(told), _) => told.get(index).copied().unwrap_or_default(),
                (None, others) => {
                    let (_, others) = others.unwrap_or_default();
                    Totals {
                        total: others.total + ours,
                        ..others
                    }
                }
            };
            let others = Totals {
                total: sum.total.saturating_sub(ours),
                ..sum
            };
            numbers.others = base.map(|base| (base, others));
            sums.push(sum);
        }
        sums
    }

    /// Whether there is enough to drop.
    pub(super) fn has_outdated(&self) -> bool {
        self.outdated.len() >= ENTRIES_DROPPED
    }

    /// Takes out some entries to drop: names and numbers.
    pub(super) fn outdated(&mut self) -> (Vec<Name>, Vec<i64>) {
        let upto = self.outdated.len().min(ENTRIES_DROPPED);
        self.outdated.drain(..upto).unzip()
    }
}

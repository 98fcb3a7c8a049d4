//! A writer: one lane's identity in the log, with the running totals for its next entry.

use std::collections::BTreeMap;

use super::named::{NamedEntry, NamedNumbers};
use crate::visits::history::Step;
use crate::visits::ledger::Arrivals;

/// A lane's place in `visitas_log`.
#[derive(Debug)]
pub(super) struct Writer {
    /// Random: no two writers ever share one.
    pub(super) id: i64,
    /// The number of its next entry.
    pub(super) number: i64,
    total: i64,
    minute: Minute,
    pub(super) named: NamedNumbers,
}

/// A minute and the visits in it so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Minute {
    /// In seconds since 1970.
    pub(super) start: i64,
    pub(super) visits: i64,
}

/// What one batch adds to the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) writer: i64,
    pub(super) number: i64,
    /// The writer's running total in the previous entry.
    pub(super) before: i64,
    pub(super) visits: i64,
    /// The writer's current minute with this batch.
    pub(super) minute: Minute,
    /// Minutes that are over for this writer, and its visits in them.
    pub(super) past: Vec<i64>,
    pub(super) past_visits: Vec<i64>,
    /// `None` where nothing is written about names.
    pub(super) named: Option<NamedEntry>,
    /// The first entry, perhaps this one, with numbers of names that `visitas_named` may lack.
    pub(super) named_from: Option<i64>,
}

impl Writer {
    pub(super) fn new(id: i64) -> Self {
        Writer {
            id,
            number: 1,
            total: 0,
            minute: Minute::default(),
            named: NamedNumbers::default(),
        }
    }

    /// The minute it is in, in seconds since 1970.
    pub(super) fn minute(&self) -> i64 {
        self.minute.start
    }

    /// The next entry, for these visits; without visits it changes no number. `alone`: there is
    /// no other writer, and no change waits to be folded.
    pub(super) fn entry(&mut self, visits: &Arrivals, alone: bool) -> Entry {
        let mut entry = Entry {
            writer: self.id,
            number: self.number,
            before: self.total,
            visits: visits.times.len() as i64,
            ..Entry::default()
        };
        let over;
        let starts = visits.times.iter().map(|time| Step::Minute.start_of(*time));
        (entry.minute, over) = self.minute.with(starts);
        (entry.past, entry.past_visits) = over.into_iter().unzip();
        self.named.add_to(&mut entry, visits, alone);
        entry
    }

    /// The entry is in the log.
    pub(super) fn advance(&mut self, entry: &Entry) {
        self.number = entry.number + 1;
        self.total = entry.before + entry.visits;
        self.minute = entry.minute;
        self.named.advance(entry);
    }
}

impl Minute {
    /// The current minute with one visit in each of the minutes that start there, and the minutes
    /// that are over. The latest stays current: a clock that was set back must not reopen one per
    /// visit.
    pub(super) fn with(
        self,
        starts: impl ExactSizeIterator<Item = i64> + Clone,
    ) -> (Minute, BTreeMap<i64, i64>) {
        if starts.clone().all(|start| start == self.start) {
            let visits = self.visits + starts.len() as i64;
            let start = self.start;
            return (Minute { start, visits }, BTreeMap::new());
        }
        let mut minutes = BTreeMap::new();
        if self.visits > 0 {
            minutes.insert(self.start, self.visits);
        }
        starts.for_each(|start| *minutes.entry(start).or_insert(0) += 1);
        let (start, visits) = minutes.pop_last().unwrap_or((self.start, self.visits));
        (Minute { start, visits }, minutes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::named::MAX_RECENT_ENTRIES;
    use super::*;
    use crate::visits::ledger::{NamedVisits, Totals};
    use crate::visits::name::Name;

    fn at(seconds: &[u64]) -> Arrivals {
        let time = |second: &u64| UNIX_EPOCH + Duration::from_secs(*second);
        Arrivals {
            times: seconds.iter().map(time).collect(),
            ..Arrivals::default()
        }
    }

    /// Makes the next entry, and commits it.
    fn commit(writer: &mut Writer, visits: &Arrivals, alone: bool) -> Entry {
        let entry = writer.entry(visits, alone);
        writer.advance(&entry);
        entry
    }

    /// The totals of the names in a committed entry.
    fn sums(
        writer: &mut Writer,
        entry: &Entry,
        told: Option<&[(i64, i64)]>,
        base: i64,
    ) -> Vec<Totals> {
        let named = entry.named.as_ref().expect("names");
        writer.named.sums(named, told, Some(base))
    }

    fn minute(start: i64, visits: i64) -> Minute {
        Minute { start, visits }
    }

    #[test]
    fn totals_run_on_and_minutes_that_are_over_are_told_once() {
        let mut writer = Writer::new(7);
        let first = writer.entry(&at(&[60, 61]), false);
        assert_eq!(
            (first.number, first.before, first.minute),
            (1, 0, minute(60, 2))
        );
        assert!(first.past.is_empty());
        writer.advance(&first);
        let second = writer.entry(&at(&[119, 125, 300]), false);
        assert_eq!((second.number, second.before, second.visits), (2, 2, 3));
        assert_eq!(
            (second.past, second.past_visits),
            (vec![60, 120], vec![3, 1])
        );
        assert_eq!(second.minute, minute(300, 1));
    }

    #[test]
    fn an_empty_entry_changes_no_number() {
        let mut writer = Writer::new(7);
        commit(&mut writer, &at(&[60]), false);
        let empty = writer.entry(&at(&[]), false);
        assert_eq!(
            (empty.before, empty.visits, empty.minute),
            (1, 0, minute(60, 1))
        );
    }

    #[test]
    fn a_visit_of_an_earlier_minute_goes_to_that_minute() {
        let mut writer = Writer::new(7);
        commit(&mut writer, &at(&[600]), false);
        let entry = writer.entry(&at(&[60, 601]), false);
        assert_eq!((entry.past, entry.past_visits), (vec![60], vec![1]));
        assert_eq!(entry.minute, minute(600, 2));
    }

    /// Visits at these seconds, each with a name, or an empty one for none.
    fn named(visits: &[(u64, &str)]) -> Arrivals {
        let seconds: Vec<u64> = visits.iter().map(|(second, _)| *second).collect();
        let mut arrivals = at(&seconds);
        for (_, text) in visits {
            let names = &mut arrivals.names;
            let known = names.iter().position(|named| named.name.as_str() == *text);
            let place = (!text.is_empty()).then(|| known.unwrap_or(names.len()));
            if place == Some(names.len()) {
                let name = Name::new(text, 0);
                names.push(NamedVisits { name, visits: 0 });
            }
            place.iter().for_each(|place| names[*place].visits += 1);
            arrivals.name_of.push(place);
        }
        arrivals
    }

    #[test]
    fn each_name_has_totals_and_minutes_of_its_own() {
        let mut writer = Writer::new(7);
        commit(
            &mut writer,
            &named(&[(60, "a"), (61, "b"), (62, "a")]),
            false,
        );
        let entry = writer.entry(&named(&[(125, "b"), (126, ""), (127, "c")]), false);
        assert_eq!((entry.past, entry.past_visits), (vec![60, 60], vec![3, 1]));
        assert_eq!(entry.minute, minute(120, 3));
        let told = entry.named.expect("names");
        let name = |text: &str| Some(Name::new(text, 0));
        assert_eq!(told.rows, [name("b"), None, name("c")]);
        assert_eq!(told.past_names, [None, name("b")]);
        assert_eq!((told.totals, told.minutes), (vec![2, 1], vec![120, 120]));
        assert_eq!(told.minutes_visits, [1, 1]);
    }

    #[test]
    fn an_entry_with_a_newer_one_of_its_name_is_outdated() {
        let mut writer = Writer::new(7);
        for visits in [&[(60, "a"), (61, "b")][..], &[(62, "a")], &[(63, "a")]] {
            commit(&mut writer, &named(visits), false);
        }
        let (names, numbers) = writer.named.outdated();
        assert_eq!(
            names.iter().map(Name::as_str).collect::<Vec<_>>(),
            ["a", "a"]
        );
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_lone_writer_knows_totals_as_long_as_the_base_stays() {
        let totals = |total| Totals { total, pruned: 1 };
        let known = |entry: &Entry| entry.named.as_ref().and_then(|named| named.base);
        let mut writer = Writer::new(7);
        let visits = named(&[(60, "a"), (61, "b"), (62, "a")]);
        let entry = commit(&mut writer, &visits, true);
        assert_eq!(known(&entry), None);
        // The ledger tells what others have, and the base.
        let told = sums(&mut writer, &entry, Some(&[(10, 1), (20, 1)]), 5);
        assert_eq!(told, [totals(12), totals(21)]);
        let entry = commit(&mut writer, &visits, true);
        assert_eq!(known(&entry), Some(5));
        let told = sums(&mut writer, &entry, None, 5);
        assert_eq!(told, [totals(14), totals(22)]);
        // Another base: what was known of the old one does not count. Others may have deleted more
        // rows than they have.
        let entry = commit(&mut writer, &named(&[(63, "b")]), true);
        let told = sums(&mut writer, &entry, Some(&[(-2, 1)]), 6);
        assert_eq!(told, [totals(1)]);
        let of_a = writer.entry(&named(&[(64, "a")]), true);
        assert_eq!(known(&of_a), None);
        let entry = commit(&mut writer, &named(&[(64, "b")]), true);
        assert_eq!(known(&entry), Some(6));
        assert_eq!(sums(&mut writer, &entry, None, 6), [totals(2)]);
    }

    /// The names in an entry, and the first entry that then counts.
    fn told(entry: &Entry) -> (Vec<&str>, Option<i64>) {
        let names = entry.named.iter().flat_map(|named| &named.names);
        (names.map(Name::as_str).collect(), entry.named_from)
    }

    #[test]
    fn a_lone_writer_keeps_numbers_in_its_entries_until_there_is_another() {
        let mut writer = Writer::new(7);
        let batches = [&[(60, "a"), (61, "b")][..], &[(62, "")], &[(63, "a")]];
        for (visits, names) in batches.iter().zip([&["a", "b"][..], &[], &["a"]]) {
            let entry = writer.entry(&named(visits), true);
            assert_eq!(told(&entry), (names.to_vec(), Some(1)));
            writer.advance(&entry);
        }
        assert_eq!(writer.named.needed_from(), Some(1));
        assert!(writer.named.outdated().0.is_empty(), "no row is written");
        // Beside another writer all get their rows, those of other batches too.
        let entry = writer.entry(&named(&[(64, "c")]), false);
        assert_eq!(told(&entry), (vec!["c", "b", "a"], None));
        let numbers = entry.named.clone().expect("names");
        assert_eq!((numbers.asked, &numbers.totals[..]), (1, &[1, 1, 2][..]));
        assert_eq!(numbers.minutes_visits, [1, 1, 2]);
        writer.advance(&entry);
        assert_eq!(writer.named.needed_from(), None);
        let entry = writer.entry(&named(&[(65, "b")]), true);
        assert_eq!(told(&entry), (vec!["b"], Some(5)));
        writer.advance(&entry);
        // Of a batch without names too.
        let entry = writer.entry(&at(&[66]), false);
        assert_eq!(told(&entry), (vec!["b"], None));
        writer.advance(&entry);
        assert_eq!(writer.named.needed_from(), None);
        let (names, numbers) = writer.named.outdated();
        assert_eq!((names[0].as_str(), &numbers[..]), ("b", &[4][..]));
    }

    #[test]
    fn an_entry_that_failed_hides_no_name_from_the_next_one() {
        let mut writer = Writer::new(7);
        commit(&mut writer, &named(&[(60, "a"), (60, "b")]), true);
        let failed = writer.entry(&named(&[(61, "a")]), true);
        let again = writer.entry(&named(&[(62, "c")]), false);
        assert_eq!(failed.number, again.number);
        assert_eq!(told(&again), (vec!["c", "a", "b"], None));
    }

    #[test]
    fn names_that_are_not_visited_again_leave_their_entries_one_by_one() {
        let mut writer = Writer::new(7);
        let rows = |writer: &mut Writer, visits: &Arrivals| {
            let entry = writer.entry(visits, true);
            writer.advance(&entry);
            let from = entry.named_from.expect("recent entries");
            assert!(entry.number - from < MAX_RECENT_ENTRIES, "{from}");
            told(&entry).0[visits.names.len()..].join(",")
        };
        // By the number of entries.
        assert_eq!(rows(&mut writer, &named(&[(60, "a"), (60, "b")])), "");
        for number in 2..=MAX_RECENT_ENTRIES {
            assert_eq!(rows(&mut writer, &named(&[(61, "b")])), "", "{number}");
        }
        assert_eq!(rows(&mut writer, &named(&[(62, "c")])), "a");
        // By the number of names.
        let many: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
        let many: Vec<(u64, &str)> = many.iter().map(|name| (63, &**name)).collect();
        let many = named(&many);
        let moved: Vec<String> = (0..4).map(|_| rows(&mut writer, &many)).collect();
        assert_eq!(moved, ["", "", "", ""]);
        assert_eq!(rows(&mut writer, &many), "b,c");
        for _ in 0..3 {
            assert_eq!(rows(&mut writer, &many), "");
        }
        let entry = writer.entry(&many, true);
        assert_eq!(entry.named_from, Some(entry.number - 3));
    }
}

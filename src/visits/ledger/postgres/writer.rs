//! A writer: one lane's identity in the log, with the running totals for its next entry.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::visits::history::Step;

/// A lane's place in `visitas_log`.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// Random: no two writers ever share one.
    pub(super) id: i64,
    /// The number of its next entry.
    pub(super) number: i64,
    total: i64,
    pub(super) minute: i64,
    minute_visits: i64,
}

/// What one batch adds to the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) writer: i64,
    pub(super) number: i64,
    /// The writer's running total in the previous entry.
    pub(super) before: i64,
    pub(super) visits: i64,
    /// The writer's current minute with this batch, in seconds since 1970.
    pub(super) minute: i64,
    pub(super) minute_visits: i64,
    /// Minutes that are over for this writer, and its visits in them.
    pub(super) past: Vec<i64>,
    pub(super) past_visits: Vec<i64>,
}

impl Writer {
    pub(super) fn new(id: i64) -> Self {
        Writer {
            id,
            number: 1,
            total: 0,
            minute: 0,
            minute_visits: 0,
        }
    }

    /// The next entry, for these arrivals; without arrivals it changes no number.
    pub(super) fn entry(&self, arrivals: &[SystemTime]) -> Entry {
        let (minute, minute_visits) = (self.minute, self.minute_visits);
        let visits = arrivals.len() as i64;
        let entry = Entry {
            writer: self.id,
            number: self.number,
            before: self.total,
            visits,
            ..Entry::default()
        };
        if arrivals
            .iter()
            .all(|arrival| Step::Minute.start_of(*arrival) == minute)
        {
            return Entry {
                minute,
                minute_visits: minute_visits + visits,
                ..entry
            };
        }
        let mut minutes = BTreeMap::new();
        if minute_visits > 0 {
            minutes.insert(minute, minute_visits);
        }
        for arrival in arrivals {
            *minutes.entry(Step::Minute.start_of(*arrival)).or_insert(0) += 1;
        }
        // The latest minute stays current: a clock that was set back must not reopen one per visit.
        let (minute, minute_visits) = minutes.pop_last().unwrap_or((minute, minute_visits));
        let (past, past_visits) = minutes.into_iter().unzip();
        Entry {
            minute,
            minute_visits,
            past,
            past_visits,
            ..entry
        }
    }

    /// The entry is in the log.
    pub(super) fn advance(&mut self, entry: &Entry) {
        self.number = entry.number + 1;
        self.total = entry.before + entry.visits;
        (self.minute, self.minute_visits) = (entry.minute, entry.minute_visits);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn totals_run_on_and_minutes_that_are_over_are_told_once() {
        let mut writer = Writer::new(7);
        let first = writer.entry(&[at(60), at(61)]);
        assert_eq!(
            (
                first.number,
                first.before,
                first.minute,
                first.minute_visits
            ),
            (1, 0, 60, 2)
        );
        assert!(first.past.is_empty());
        writer.advance(&first);
        let second = writer.entry(&[at(119), at(125), at(300)]);
        assert_eq!((second.number, second.before, second.visits), (2, 2, 3));
        assert_eq!(
            (second.past, second.past_visits),
            (vec![60, 120], vec![3, 1])
        );
        assert_eq!((second.minute, second.minute_visits), (300, 1));
    }

    #[test]
    fn an_empty_entry_changes_no_number() {
        let mut writer = Writer::new(7);
        writer.advance(&writer.entry(&[at(60)]));
        let empty = writer.entry(&[]);
        assert_eq!(
            (
                empty.before,
                empty.visits,
                empty.minute,
                empty.minute_visits
            ),
            (1, 0, 60, 1)
        );
    }

    #[test]
    fn a_visit_of_an_earlier_minute_goes_to_that_minute() {
        let mut writer = Writer::new(7);
        writer.advance(&writer.entry(&[at(600)]));
        let entry = writer.entry(&[at(60), at(601)]);
        assert_eq!((entry.past, entry.past_visits), (vec![60], vec![1]));
        assert_eq!((entry.minute, entry.minute_visits), (600, 2));
    }
}

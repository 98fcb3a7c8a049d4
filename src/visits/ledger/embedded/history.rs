//! The history in the file, written in the transactions that write the rows.
//!
//! Each visit is in exactly one bucket: of its minute for a day, of its hour for a week, then of
//! its day.

use std::collections::BTreeMap;
use std::time::SystemTime;

use redb::{Database, Error, ReadableDatabase, ReadableTable, Table, TableDefinition};

use crate::visits::history::{Bucket, Step};

/// Visits by their bucket's start, in seconds since 1970. No arrival is before 1970.
pub(super) const HISTORY: TableDefinition<'_, u64, i64> = TableDefinition::new("history");

/// The bucket at `now` of a visit in that second. Requests need an hour of minutes and two days of
/// hours; the rest is margin for a clock that is set.
pub(super) fn bucket(second: i64, now: i64) -> i64 {
    let start = |step: Step| second - second.rem_euclid(step.seconds());
    let age = |start: i64| now.saturating_sub(start);
    // By the start of a bucket, so that all its rows agree.
    let step = match (age(start(Step::Minute)), age(start(Step::Hour))) {
        (..=86_400, _) => Step::Minute,
        (_, ..=691_200) => Step::Hour,
        _ => Step::Day,
    };
    start(step)
}

/// Adds a visit to each bucket that starts there. After a new newest one it also merges old
/// buckets.
pub(super) fn add(history: &mut Table<'_, u64, i64>, starts: &[Option<i64>]) -> Result<(), Error> {
    let mut minutes: BTreeMap<i64, i64> = BTreeMap::new();
    for start in starts.iter().flatten() {
        *minutes.entry(*start).or_insert(0) += 1;
    }
    let newest = history
        .last()?
        .map_or(0, |(start, _)| start.value().cast_signed());
    let begins = minutes
        .last_key_value()
        .is_some_and(|(minute, _)| *minute > newest);
    for (minute, visits) in minutes {
        add_part(history, minute, visits)?;
    }
    if begins {
        merge(history, Step::Minute.start_of(SystemTime::now()))?;
    }
    Ok(())
}

fn add_part(history: &mut Table<'_, u64, i64>, start: i64, visits: i64) -> Result<(), Error> {
    let key = start.max(0).cast_unsigned();
    let before = history.get(key)?.map_or(0, |visits| visits.value());
    history.insert(key, before + visits)?;
    Ok(())
}

/// Where the last day begins, of which every minute is kept.
pub(super) fn may_be_old(now: i64) -> i64 {
    now.saturating_sub(86_400).max(0)
}

/// Merges old minutes into their hour, and old hours into their day.
fn merge(history: &mut Table<'_, u64, i64>, now: i64) -> Result<(), Error> {
    let old = may_be_old(now).cast_unsigned();
    let mut moved = Vec::new();
    for part in history.range(..old)? {
        let (start, visits) = part?;
        let start = start.value().cast_signed();
        if bucket(start, now) != start {
            moved.push((start, visits.value()));
        }
    }
    for (start, visits) in moved {
        history.remove(start.cast_unsigned())?;
        add_part(history, bucket(start, now), visits)?;
    }
    Ok(())
}

/// The buckets of the three series that end at `now`.
pub(super) fn read(database: &Database, now: SystemTime) -> Result<Vec<Bucket>, Error> {
    let history = database.begin_read()?.open_table(HISTORY)?;
    let mut buckets = Vec::with_capacity(2000);
    for part in history.range(first(now).cast_unsigned()..)? {
        let (start, visits) = part?;
        push(
            &mut buckets,
            now,
            start.value().cast_signed(),
            visits.value(),
        );
    }
    Ok(buckets)
}

/// The first start that one of the series needs.
pub(super) fn first(now: SystemTime) -> i64 {
    let since = Step::ALL.map(|step| step.since(now));
    since.into_iter().min().unwrap_or(0).max(0)
}

/// Adds a part to the series that it is in.
pub(super) fn push(buckets: &mut Vec<Bucket>, now: SystemTime, start: i64, visits: i64) {
    for step in Step::ALL {
        if start >= step.since(now) {
            buckets.push(Bucket {
                step,
                start: start - start.rem_euclid(step.seconds()),
                visits,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_kept_by_its_minute_then_its_hour_then_its_day() {
        let day = 86_400;
        let visit = 100 * day + 3 * 3600 + 125;
        assert_eq!(bucket(visit, visit), visit - 5);
        assert_eq!(bucket(visit, visit - 5 + day), visit - 5);
        assert_eq!(bucket(visit, visit + 2 * day), 100 * day + 3 * 3600);
        assert_eq!(bucket(visit, visit + 9 * day), 100 * day);
        assert_eq!(
            bucket(visit, visit - 9 * day),
            visit - 5,
            "a clock that was set back"
        );
    }
}

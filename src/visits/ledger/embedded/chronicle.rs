//! The history in the file: kept in the transactions that write the rows, read and caught up with beside them.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use redb::{Database, Error, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::super::{Chronicle, RolledUp};
use super::{EmbeddedFile, LANES, Last, VISITS};
use crate::visits::history::{Bucket, Step};

/// Visits by the step and its beginning: see [`key`].
pub(super) const HISTORY: TableDefinition<'_, u64, i64> = TableDefinition::new("history");
/// Three numbers of rows: see [`AFTER`], [`UNTIL`] and [`KNOWN`].
pub(super) const MARKS: TableDefinition<'_, u64, i64> = TableDefinition::new("marks");
/// Rows after this one and up to [`UNTIL`] are not in the history yet.
const AFTER: u64 = 0;
/// See [`AFTER`].
const UNTIL: u64 = 1;
/// Rows that were there when the file was opened last. Those beyond that no lane's row tells of were written by a version
/// without a history.
const KNOWN: u64 = 2;

/// Minutes and hours are kept as long as anybody can ask for them, with room for a clock that is set; days for ever.
const KEPT_S: [i64; 3] = [86_400, 8 * 86_400, i64::MAX];
/// Rows a step of the roll-up adds: its commit is as short as a batch's.
const ROWS_A_STEP: u64 = 50_000;

/// The history in a transaction that writes.
pub(super) struct Writer<'t> {
    history: Table<'t, u64, i64>,
    marks: Table<'t, u64, i64>,
}

/// Opens the history's tables, creating them.
pub(super) fn open(transaction: &WriteTransaction) -> Result<Writer<'_>, Error> {
    Ok(Writer { history: transaction.open_table(HISTORY)?, marks: transaction.open_table(MARKS)? })
}

impl Writer<'_> {
    /// Adds visits to a minute, its hour and its day.
    pub(super) fn add(&mut self, minute: i64, visits: i64) -> Result<(), Error> {
        if visits == 0 {
            return Ok(());
        }
        for step in Step::ALL {
            let key = key(step, minute - minute.rem_euclid(step.seconds()));
            let before = self.history.get(key)?.map_or(0, |sum| sum.value());
            self.history.insert(key, before + visits)?;
        }
        Ok(())
    }

    /// Drops what nobody can ask for any more once it is `now`.
    pub(super) fn drop_old(&mut self, now: i64) -> Result<(), Error> {
        for (step, kept) in Step::ALL.into_iter().zip(KEPT_S) {
            self.drop_range(key(step, 0)..key(step, now.saturating_sub(kept)))?;
        }
        Ok(())
    }

    /// Drops these rows. Hardly ever is there more than one, so they are looked for one by one.
    fn drop_range(&mut self, keys: Range<u64>) -> Result<(), Error> {
        loop {
            let next = self.history.range(keys.clone())?.next().transpose()?.map(|(key, _)| key.value());
            let Some(key) = next else { return Ok(()) };
            self.history.remove(key)?;
        }
    }

    /// Finds out which of the file's rows are not in the history, and has them rolled up.
    pub(super) fn find_gap(&mut self, rows: u64, lanes: &mut Table<'_, u64, i64>) -> Result<(), Error> {
        let mut known = self.mark(KNOWN)?;
        for lane in Last::read_all(lanes)? {
            known = known.max(lane.total);
        }
        if rows > known {
            if self.mark(AFTER)? < self.mark(UNTIL)? {
                // Two gaps: what is there is given up for one.
                self.drop_range(0..u64::MAX)?;
                let last = lanes.last()?.map_or(0, |(key, _)| key.value() / 4 + 1);
                (0..last).try_for_each(|lane| Last::remove(lanes, lane))?;
                known = 0;
            }
            self.set_mark(AFTER, known)?;
            self.set_mark(UNTIL, rows)?;
        }
        self.set_mark(KNOWN, rows)
    }

    fn mark(&self, mark: u64) -> Result<u64, Error> {
        read_mark(&self.marks, mark)
    }

    fn set_mark(&mut self, mark: u64, rows: u64) -> Result<(), Error> {
        self.marks.insert(mark, rows.cast_signed())?;
        Ok(())
    }
}

/// The client of the history of a file that the lanes have open.
#[derive(Debug)]
pub struct EmbeddedChronicle {
    file: Arc<EmbeddedFile>,
}

impl EmbeddedChronicle {
    /// A client of that file.
    pub fn new(file: &Arc<EmbeddedFile>) -> Self {
        EmbeddedChronicle { file: Arc::clone(file) }
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, String> {
        let database = self.file.lock().clone().ok_or_else(|| "the file is not open".to_owned())?;
        work(&database).map_err(|error| error.to_string())
    }
}

impl Chronicle for EmbeddedChronicle {
    fn look(&mut self, now: SystemTime) -> Result<(Vec<Bucket>, bool), String> {
        self.with(|database| look(database, now))
    }

    fn roll_up(&mut self) -> Result<RolledUp, String> {
        self.with(roll_up)
    }

    fn rest(&mut self) {}
}

fn look(database: &Database, now: SystemTime) -> Result<(Vec<Bucket>, bool), Error> {
    let transaction = database.begin_read()?;
    let history = transaction.open_table(HISTORY)?;
    let mut buckets = Vec::with_capacity(200);
    for step in Step::ALL {
        for part in history.range(key(step, step.since(now))..=key(step, LAST_START))? {
            let (at, visits) = part?;
            buckets.push(Bucket { step, start: start(at.value()), visits: visits.value() });
        }
    }
    for Last { minute, visits, .. } in Last::read_all(&transaction.open_table(LANES)?)? {
        let part = |step: Step| Bucket { step, start: minute - minute.rem_euclid(step.seconds()), visits };
        buckets.extend(Step::ALL.map(part));
    }
    let marks = transaction.open_table(MARKS)?;
    Ok((buckets, read_mark(&marks, AFTER)? >= read_mark(&marks, UNTIL)?))
}

/// Reads beside the lanes, which write meanwhile, and then writes as briefly as they do: nothing changes rows from before.
fn roll_up(database: &Database) -> Result<RolledUp, Error> {
    // Rows are in the order of their arrival but for a little, so neighbours are mostly of one minute.
    let mut minutes: Vec<(i64, i64)> = Vec::new();
    let transaction = database.begin_read()?;
    let marks = transaction.open_table(MARKS)?;
    let (after, until) = (read_mark(&marks, AFTER)?, read_mark(&marks, UNTIL)?);
    if after >= until {
        return Ok(RolledUp::Nothing);
    }
    let last = until.min(after + ROWS_A_STEP);
    for row in transaction.open_table(VISITS)?.range(after + 1..=last)? {
        let s = row?.1.value().div_euclid(1_000_000);
        let minute = s - s.rem_euclid(Step::Minute.seconds());
        match minutes.last_mut() {
            Some((last, visits)) if *last == minute => *visits += 1,
            _ => minutes.push((minute, 1)),
        }
    }
    let transaction = super::begin(database)?;
    {
        let mut writer = open(&transaction)?;
        minutes.into_iter().try_for_each(|(minute, visits)| writer.add(minute, visits))?;
        writer.drop_old(Step::Minute.start_of(SystemTime::now()))?;
        writer.set_mark(AFTER, last)?;
    }
    transaction.commit()?;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(if last < until { RolledUp::UpTo { row: whole(last), of: whole(until) } } else { RolledUp::Last })
}

fn read_mark(marks: &impl ReadableTable<u64, i64>, mark: u64) -> Result<u64, Error> {
    Ok(marks.get(mark)?.map_or(0, |rows| rows.value().cast_unsigned()))
}

/// The latest beginning a key can hold: in nine million years.
const LAST_START: i64 = (1 << 48) - 1;

/// The step in the upper 16 bits, where it begins in the others. No arrival is before 1970.
fn key(step: Step, start: i64) -> u64 {
    (step as u64) << 48 | start.clamp(0, LAST_START).cast_unsigned()
}

/// Where the step of that key begins.
fn start(key: u64) -> i64 {
    (key & LAST_START.cast_unsigned()).cast_signed()
}

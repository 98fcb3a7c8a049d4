//! The history in the file: kept in the transactions that write the rows, read and caught up with beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use redb::{Database, Error, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::super::{Chronicle, RolledUp};
use super::{EmbeddedFile, LANES, Last, VISITS};
use crate::visits::history::{Bucket, Step};

/// Visits by the length of a step and its beginning, both in seconds.
const HISTORY: TableDefinition<'_, (u32, i64), i64> = TableDefinition::new("history");
/// Three numbers of rows: see [`AFTER`], [`UNTIL`] and [`KNOWN`].
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");
/// Rows after this one and up to [`UNTIL`] are not in the history yet.
const AFTER: &str = "after";
/// See [`AFTER`].
const UNTIL: &str = "until";
/// Rows that were there when the file was opened last. Those beyond that no lane's row tells of were written by a version
/// without a history.
const KNOWN: &str = "known";

/// Minutes and hours are kept as long as anybody can ask for them, with room for a clock that is set; days for ever.
const KEPT_S: [i64; 3] = [86_400, 8 * 86_400, i64::MAX];
/// Rows a step of the roll-up adds: its commit is as short as a batch's.
const ROWS_A_STEP: u64 = 50_000;

/// The history in a transaction that writes.
pub(super) struct Writer<'t> {
    history: Table<'t, (u32, i64), i64>,
    marks: Table<'t, &'static str, u64>,
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
            self.history.retain_in(key(step, i64::MIN)..key(step, now.saturating_sub(kept)), |_, _| false)?;
        }
        Ok(())
    }

    /// Finds out which of the file's rows are not in the history, and has them rolled up.
    pub(super) fn find_gap(
        &mut self,
        rows: u64,
        lanes: &mut Table<'_, u64, (u64, u64, i64, i64)>,
    ) -> Result<(), Error> {
        let mut known = self.mark(KNOWN)?;
        for lane in lanes.iter()? {
            known = known.max(Last::from(lane?.1.value()).total);
        }
        if rows > known {
            if self.mark(AFTER)? < self.mark(UNTIL)? {
                // Two gaps: what is there is given up for one.
                self.history.retain(|_, _| false)?;
                lanes.retain(|_, _| false)?;
                known = 0;
            }
            self.marks.insert(AFTER, known)?;
            self.marks.insert(UNTIL, rows)?;
        }
        self.marks.insert(KNOWN, rows)?;
        Ok(())
    }

    fn mark(&self, name: &'static str) -> Result<u64, Error> {
        Ok(self.marks.get(name)?.map_or(0, |mark| mark.value()))
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
        for part in history.range(key(step, step.since(now))..=key(step, i64::MAX))? {
            let (at, visits) = part?;
            buckets.push(Bucket { step, start: at.value().1, visits: visits.value() });
        }
    }
    for lane in transaction.open_table(LANES)?.iter()? {
        let Last { minute, visits, .. } = Last::from(lane?.1.value());
        let part = |step: Step| Bucket { step, start: minute - minute.rem_euclid(step.seconds()), visits };
        buckets.extend(Step::ALL.map(part));
    }
    let marks = transaction.open_table(MARKS)?;
    let mark = |name| Ok::<_, Error>(marks.get(name)?.map_or(0, |mark| mark.value()));
    Ok((buckets, mark(AFTER)? >= mark(UNTIL)?))
}

/// Reads beside the lanes, which write meanwhile, and then writes as briefly as they do: nothing changes rows from before.
fn roll_up(database: &Database) -> Result<RolledUp, Error> {
    let mut minutes = BTreeMap::<i64, i64>::new();
    let transaction = database.begin_read()?;
    let marks = transaction.open_table(MARKS)?;
    let mark = |name| Ok::<_, Error>(marks.get(name)?.map_or(0, |mark| mark.value()));
    let (after, until) = (mark(AFTER)?, mark(UNTIL)?);
    if after >= until {
        return Ok(RolledUp::Nothing);
    }
    let last = until.min(after + ROWS_A_STEP);
    for row in transaction.open_table(VISITS)?.range(after + 1..=last)? {
        let s = row?.1.value().div_euclid(1_000_000);
        *minutes.entry(s - s.rem_euclid(Step::Minute.seconds())).or_default() += 1;
    }
    let transaction = database.begin_write()?;
    {
        let mut writer = open(&transaction)?;
        minutes.into_iter().try_for_each(|(minute, visits)| writer.add(minute, visits))?;
        writer.drop_old(Step::Minute.start_of(SystemTime::now()))?;
        writer.marks.insert(AFTER, last)?;
    }
    transaction.commit()?;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(if last < until { RolledUp::UpTo { row: whole(last), of: whole(until) } } else { RolledUp::Last })
}

fn key(step: Step, start: i64) -> (u32, i64) {
    (step.seconds() as u32, start)
}

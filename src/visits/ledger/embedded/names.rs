//! Counters by name in the file. Every visit with a name changes its numbers in the transaction
//! that writes its row.
//!
//! A name gets a number when it is first visited, and all is kept under that number. These tables
//! too have the types of all others: a name is kept in pieces of eight bytes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use redb::{
    Database, Error, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};

use super::history;
use crate::visits::history::{Bucket, Step};
use crate::visits::ledger::{NamedVisits, Totals};
use crate::visits::name::{MAX_NAME_BYTES, Name};

/// By a name's number times [`PARTS`], plus the part: its numbers and its text.
pub(super) const NAMES: TableDefinition<'_, u64, i64> = TableDefinition::new("names");
/// For each row with a name, the name's number.
pub(super) const NAME_OF: TableDefinition<'_, u64, i64> = TableDefinition::new("contador");
/// As the history of all visits; the key has the name's number above [`START_BITS`].
pub(super) const NAMED_HISTORY: TableDefinition<'_, u64, i64> =
    TableDefinition::new("named_history");

const PARTS: u64 = 16;
/// Visits of that name.
const TOTAL: u64 = 0;
/// Of them, those whose rows were deleted for their age.
const PRUNED: u64 = 1;
/// The first of the text's pieces.
const TEXT: u64 = 2;
const PIECE: usize = 8;
/// Enough for the seconds of 30,000 years.
const START_BITS: u32 = 40;

/// The names in the file, with their numbers.
pub(super) type Known = BTreeMap<String, u64>;

/// Names that a transaction adds, with their numbers.
pub(super) type NewNames = Vec<(String, u64)>;

/// All names in the file.
pub(super) fn load(database: &Database) -> Result<Known, Error> {
    let transaction = database.begin_read()?;
    let Some(names) = existing(transaction.open_table(NAMES))? else {
        return Ok(Known::new());
    };
    let mut texts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for part in names.iter()? {
        let (key, value) = part?;
        let (number, part) = (key.value() / PARTS, key.value() % PARTS);
        if part >= TEXT {
            let text = texts.entry(number).or_default();
            let piece = value.value().to_be_bytes();
            text.extend(piece.iter().filter(|byte| **byte != 0));
        }
    }
    let known = texts.into_iter();
    Ok(known
        .map(|(number, text)| (String::from_utf8_lossy(&text).into_owned(), number))
        .collect())
}

/// A table that is made with what first goes into it.
pub(super) fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds visits to these names, so many to each. Each row has its name's place among them and its
/// bucket of the history, where it has one; the last has the number `last`. Gives the totals of each
/// name, and the names that are new: they are known once the transaction is committed.
pub(super) fn add(
    transaction: &WriteTransaction,
    visits: &[NamedVisits],
    name_of: &[Option<usize>],
    starts: &[Option<i64>],
    last: u64,
    known: &Known,
) -> Result<(Vec<Totals>, NewNames), Error> {
    let mut names = transaction.open_table(NAMES)?;
    let mut new = Vec::new();
    let (mut numbers, mut totals) = (Vec::new(), Vec::new());
    for NamedVisits { name, visits } in visits {
        let number = match known.get(name.as_str()) {
            Some(number) => *number,
            None => {
                let number = register(&mut names, name)?;
                new.push((name.to_string(), number));
                number
            }
        };
        change(&mut names, number * PARTS + TOTAL, visits.cast_signed())?;
        totals.push(totals_of(&names, number)?);
        numbers.push(number);
    }
    let mut named = transaction.open_table(NAME_OF)?;
    let mut buckets: BTreeMap<(u64, i64), i64> = BTreeMap::new();
    let first = last + 1 - starts.len() as u64;
    for (index, (place, start)) in name_of.iter().zip(starts).enumerate() {
        let Some(place) = place else { continue };
        let number = numbers[*place];
        named.insert(first + index as u64, number.cast_signed())?;
        if let Some(start) = start {
            *buckets.entry((number, *start)).or_insert(0) += 1;
        }
    }
    let mut parts = transaction.open_table(NAMED_HISTORY)?;
    for ((number, start), visits) in buckets {
        add_part(&mut parts, number, start, visits)?;
    }
    Ok((totals, new))
}

/// Gives the name the number after the last one.
fn register(names: &mut Table<'_, u64, i64>, name: &Name) -> Result<u64, Error> {
    let number = names.last()?.map_or(0, |(key, _)| key.value() / PARTS + 1);
    for (index, piece) in name.as_str().as_bytes().chunks(PIECE).enumerate() {
        let mut bytes = [0; PIECE];
        bytes[..piece.len()].copy_from_slice(piece);
        let key = number * PARTS + TEXT + index as u64;
        names.insert(key, i64::from_be_bytes(bytes))?;
    }
    Ok(number)
}

const _: () = assert!(TEXT as usize + MAX_NAME_BYTES / PIECE <= PARTS as usize);

fn change(table: &mut Table<'_, u64, i64>, key: u64, by: i64) -> Result<(), Error> {
    let before = table.get(key)?.map_or(0, |number| number.value());
    table.insert(key, before + by)?;
    Ok(())
}

fn totals_of(names: &impl ReadableTable<u64, i64>, number: u64) -> Result<Totals, Error> {
    let of = |part: u64| -> Result<u64, Error> {
        let found = names.get(number * PARTS + part)?;
        Ok(found.map_or(0, |value| value.value().max(0).cast_unsigned()))
    };
    Ok(Totals {
        total: of(TOTAL)?,
        pruned: of(PRUNED)?,
    })
}

fn key(number: u64, start: i64) -> u64 {
    (number << START_BITS) + start.max(0).cast_unsigned()
}

fn start_of(key: u64) -> i64 {
    (key & ((1 << START_BITS) - 1)).cast_signed()
}

/// Adds to a name's bucket. In a new minute it also merges the name's old buckets.
fn add_part(
    parts: &mut Table<'_, u64, i64>,
    number: u64,
    start: i64,
    visits: i64,
) -> Result<(), Error> {
    let is_new = parts.get(key(number, start))?.is_none();
    change(parts, key(number, start), visits)?;
    let now = Step::Minute.start_of(SystemTime::now());
    // Old ones move in by the thousand.
    if !is_new || start < history::may_be_old(now) {
        return Ok(());
    }
    let mut moved = Vec::new();
    for part in parts.range(key(number, 0)..key(number, history::may_be_old(now)))? {
        let (at, visits) = part?;
        let start = start_of(at.value());
        if history::bucket(start, now) != start {
            moved.push((start, visits.value()));
        }
    }
    for (start, visits) in moved {
        parts.remove(key(number, start))?;
        change(parts, key(number, history::bucket(start, now)), visits)?;
    }
    Ok(())
}

/// Takes the names off rows that are deleted for their age; they still count.
pub(super) fn prune(transaction: &WriteTransaction, rows: &[u64]) -> Result<(), Error> {
    let mut name_of = transaction.open_table(NAME_OF)?;
    let mut pruned: BTreeMap<u64, i64> = BTreeMap::new();
    for row in rows {
        if let Some(number) = name_of.remove(row)? {
            let number = number.value().cast_unsigned();
            *pruned.entry(number).or_insert(0) += 1;
        }
    }
    let mut names = transaction.open_table(NAMES)?;
    for (number, rows) in pruned {
        change(&mut names, number * PARTS + PRUNED, rows)?;
    }
    Ok(())
}

/// The number of the name of each row, asked for in the order of the rows.
pub(super) fn of_rows(
    table: Option<&ReadOnlyTable<u64, i64>>,
) -> impl FnMut(u64) -> Result<Option<u64>, Error> {
    let rows = table.map(ReadableTable::iter);
    let mut rows = rows.into_iter().flatten().flatten().peekable();
    move |number| {
        let named =
            rows.next_if(|row| !row.as_ref().is_ok_and(|(named, _)| named.value() != number));
        let Some(named) = named else { return Ok(None) };
        Ok(Some(named?.1.value().cast_unsigned()))
    }
}

/// The totals of the names with these numbers, and with `history` their buckets.
pub(super) fn read(
    database: &Database,
    numbers: &[Option<u64>],
    history: Option<SystemTime>,
) -> Result<Vec<(Totals, Vec<Bucket>)>, Error> {
    let transaction = database.begin_read()?;
    let table = existing(transaction.open_table(NAMES))?;
    let parts = existing(transaction.open_table(NAMED_HISTORY))?;
    let mut found = Vec::new();
    for number in numbers {
        let (Some(number), Some(table)) = (number, &table) else {
            found.push(Default::default());
            continue;
        };
        let mut buckets = Vec::new();
        if let (Some(now), Some(parts)) = (history, &parts) {
            let first = history::first(now);
            for part in parts.range(key(*number, first)..key(*number + 1, 0))? {
                let (at, visits) = part?;
                history::push(&mut buckets, now, start_of(at.value()), visits.value());
            }
        }
        found.push((totals_of(table, *number)?, buckets));
    }
    Ok(found)
}

/// What the file says of a name, for a count.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) totals: Totals,
    pub(super) history: BTreeMap<i64, i64>,
}

/// What the file says of every name, by its number.
pub(super) fn all(database: &Database, now: i64) -> Result<BTreeMap<u64, Kept>, Error> {
    let transaction = database.begin_read()?;
    let mut kept = BTreeMap::new();
    let Some(names) = existing(transaction.open_table(NAMES))? else {
        return Ok(kept);
    };
    for (name, number) in load(database)? {
        let totals = totals_of(&names, number)?;
        let history = BTreeMap::new();
        kept.insert(
            number,
            Kept {
                name,
                totals,
                history,
            },
        );
    }
    if let Some(parts) = existing(transaction.open_table(NAMED_HISTORY))? {
        for part in parts.iter()? {
            let (at, visits) = part?;
            if let Some(kept) = kept.get_mut(&(at.value() >> START_BITS)) {
                let start = history::bucket(start_of(at.value()), now);
                *kept.history.entry(start).or_insert(0) += visits.value();
            }
        }
    }
    Ok(kept)
}

/// Sets a name's total and its history.
pub(super) fn set(
    transaction: &WriteTransaction,
    number: u64,
    total: u64,
    right: &BTreeMap<i64, i64>,
) -> Result<(), Error> {
    let mut names = transaction.open_table(NAMES)?;
    names.insert(number * PARTS + TOTAL, total.cast_signed())?;
    let mut parts = transaction.open_table(NAMED_HISTORY)?;
    let mut old = Vec::new();
    for part in parts.range(key(number, 0)..key(number + 1, 0))? {
        old.push(part?.0.value());
    }
    for at in old {
        parts.remove(at)?;
    }
    for (start, visits) in right {
        change(&mut parts, key(number, *start), *visits)?;
    }
    Ok(())
}

//! Moves visits in, from a CSV of counter and time.
//!
//! Lines are committed in batches. With each one goes the place up to which the file was read, in
//! the same transaction: the number of lines, and a digest of all of them. So a run that was killed
//! goes on after the last line that was committed, and a file that grew has its new lines imported.
//! Where the lines before that place are not those that were imported, nothing is.

mod line;

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use super::ledger::{Importer, Moved, NamedVisits, Reached, TakeLines};
use super::name::{Admitted, NameRules, Names};
use crate::fnv::fnv1a;
pub(in crate::visits) use line::{HEADER, write_line};
use line::{QUOTED_HEADER, TAKES, read_line};

/// Lines of one transaction: some 50 ms in PostgreSQL.
const LINES_A_BATCH: usize = 5_000;
/// A line has a name and a time, perhaps in quotes.
const MAX_LINE_BYTES: usize = 256;

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What it is known by.
    pub id: String,
    /// Lines that were imported by earlier runs.
    pub before: u64,
    /// Lines that this run imported.
    pub lines: u64,
}

/// Why an import ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError {
    pub reason: String,
    /// Lines that are imported, by this run and earlier ones.
    pub lines: u64,
}

/// Opens the ledger for the import of that id.
pub type OpenImporter<'a> = &'a mut dyn FnMut(&str) -> Result<Box<dyn Importer>, String>;

/// Imports all lines of `source` that no run before has imported. Without an `id` it is known by its
/// first line. Calls `progress` with the number of lines so far.
///
/// # Errors
/// A sentence, and what is imported.
pub fn import(
    source: &mut dyn BufRead,
    id: Option<String>,
    rules: &NameRules,
    most_names: usize,
    open: OpenImporter<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    let mut lines = 0;
    let run = || {
        let mut source = Source::new(source)?;
        let mut more = source.next()?;
        let id = id.unwrap_or_else(|| format!("{:016x}", digest(0, &source.line)));
        let mut importer = open(&id)?;
        let before = importer.reached()?;
        lines = before.lines;
        let mut batch = Batch::new(Names::new(rules.clone(), most_names));
        let mut reached = Reached::default();
        while more {
            reached.lines += 1;
            reached.digest = digest(reached.digest, &source.line);
            if reached.lines > before.lines {
                batch.add(&source)?;
            } else if reached.lines == before.lines && reached != before {
                return Err(another(&id, before.lines));
            }
            more = source.next()?;
            if batch.moved.moments.len() == LINES_A_BATCH || (!more && batch.is_some()) {
                importer.add(&batch.take(), lines, reached)?;
                lines = reached.lines;
            }
            progress(reached.lines);
        }
        if reached.lines < before.lines {
            return Err(another(&id, before.lines));
        }
        let (before, lines) = (before.lines, reached.lines - before.lines);
        Ok(Imported { id, before, lines })
    };
    let done: Result<Imported, String> = run();
    done.map_err(|reason| ImportError { reason, lines })
}

fn another(id: &str, lines: u64) -> String {
    format!(
        "the first {lines} lines are not those that import {id} has; if this is another file, name \
         its import: --id NAME"
    )
}

/// The digest with one more line. It begins at 0.
pub(in crate::visits) fn digest(before: u64, line: &str) -> u64 {
    fnv1a(before, line.bytes().chain([b'\n']))
}

/// Gives a line without a time for each visit whose row was deleted: to each of the names its own,
/// and to `/` the rest of all. Returns how many lines were wanted.
pub(in crate::visits) fn give_pruned(
    all: u64,
    names: impl IntoIterator<Item = (String, u64)>,
    take: TakeLines<'_>,
) -> u64 {
    let mut left = all;
    let mut given = 0;
    let mut give = |name: &str, visits: u64| {
        let mut line = Vec::new();
        write_line(name, None, &mut line);
        given += (0..visits).take_while(|_| take(&line, 1)).count() as u64;
    };
    for (name, visits) in names {
        let visits = visits.min(left);
        left -= visits;
        give(&name, visits);
    }
    give("", left);
    given
}

/// A file, line by line.
struct Source<'a> {
    from: &'a mut dyn BufRead,
    /// The line that was read last, without its end.
    line: String,
    /// Its number.
    number: u64,
}

impl<'a> Source<'a> {
    /// The file after its header.
    fn new(from: &'a mut dyn BufRead) -> Result<Source<'a>, String> {
        let mut source = Source {
            from,
            line: String::new(),
            number: 0,
        };
        if !source.next()? {
            return Err(format!("line 1: the input is empty: expected {HEADER}"));
        }
        // Some programs begin a file with a byte order mark.
        let header = source.line.strip_prefix('\u{FEFF}');
        match header.unwrap_or(&source.line) {
            HEADER | QUOTED_HEADER => Ok(source),
            _ => Err(source.wrong(HEADER)),
        }
    }

    /// Reads the next line; says whether there is one.
    fn next(&mut self) -> Result<bool, String> {
        let mut bytes = std::mem::take(&mut self.line).into_bytes();
        bytes.clear();
        let mut bounded = (&mut *self.from).take(MAX_LINE_BYTES as u64 + 2);
        let read = bounded.read_until(b'\n', &mut bytes);
        read.map_err(|error| format!("the file cannot be read: {error}"))?;
        let some = !bytes.is_empty();
        self.number += 1;
        if bytes.pop_if(|byte| *byte == b'\n').is_some() {
            bytes.pop_if(|byte| *byte == b'\r');
        }
        let text = String::from_utf8(bytes);
        self.line = text.unwrap_or_else(|error| {
            let bytes = error.as_bytes();
            // It fits no line then.
            format!("{}\u{FFFD}", String::from_utf8_lossy(bytes))
        });
        match self.line.len() > MAX_LINE_BYTES {
            true => Err(self.wrong(TAKES)),
            false => Ok(some),
        }
    }

    fn wrong(&self, takes: &str) -> String {
        format!("line {}: {:?}: expected {takes}", self.number, self.line)
    }
}

/// The lines of the next transaction.
struct Batch {
    names: Names,
    moved: Moved,
    /// The place of each name in this batch.
    places: BTreeMap<String, u64>,
}

impl Batch {
    fn new(names: Names) -> Batch {
        Batch {
            names,
            moved: Moved::default(),
            places: BTreeMap::new(),
        }
    }

    fn is_some(&self) -> bool {
        !self.moved.moments.is_empty()
    }

    fn take(&mut self) -> Moved {
        self.places.clear();
        std::mem::take(&mut self.moved)
    }

    /// Adds the line that was read last.
    fn add(&mut self, source: &Source<'_>) -> Result<(), String> {
        let line = read_line(&source.line).ok_or_else(|| source.wrong(TAKES))?;
        let place = match line.name {
            "" => None,
            name => Some(self.place(name).map_err(|takes| source.wrong(&takes))?),
        };
        let Moved {
            moments,
            names,
            name_of,
        } = &mut self.moved;
        place.iter().for_each(|place| names[*place].visits += 1);
        moments.push(line.moment);
        name_of.push(place);
        Ok(())
    }

    fn place(&mut self, text: &str) -> Result<usize, String> {
        if let Some(place) = self.places.get(text) {
            return Ok(*place as usize);
        }
        let name = self.names.find(text);
        let name = name.ok_or("a name that COUNTERS admits, or none")?;
        if self.names.admit(&name) == Admitted::Full {
            return Err("no more names than MAX_COUNTERS, raise it".to_owned());
        }
        let place = self.moved.names.len();
        self.moved.names.push(NamedVisits { name, visits: 0 });
        self.places.insert(text.to_owned(), place as u64);
        Ok(place)
    }
}

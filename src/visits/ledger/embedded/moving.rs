//! Visits that move out of the file and in, for `visitas export` and `visitas import`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use redb::{Database, Error, ReadableDatabase, ReadableTable, TableDefinition};

use super::count::open_existing;
use super::file::{EmbeddedFile, FILE_NAME};
use super::history::{self, HISTORY};
use super::names::{self, NAME_OF, existing};
use super::{UNKNOWN, VISITS, begin, totals};
use crate::visits::history::Step;
use crate::visits::ledger::{Exported, Importer, Moved, Reached, TakeLines, Totals};
use crate::visits::moving::{HEADER, digest, give_pruned, write_line};

/// For each import, by the digest of its id: its lines, and one key further the digest of these.
pub(super) const IMPORTS: TableDefinition<'_, u64, i64> = TableDefinition::new("imports");

/// Gives all visits as lines, from a file that no process serves.
///
/// # Errors
/// A sentence.
pub fn export(folder: &Path, take: TakeLines<'_>) -> Result<Exported, String> {
    // Never accepted, so the file stays as it is.
    let (database, _) = open_existing(folder)?;
    let exported = export_visits(&database, take);
    exported.map_err(|error| format!("{}: {error}", folder.join(FILE_NAME).display()))
}

/// Ends early where `take` wants no more.
fn export_visits(database: &Database, take: TakeLines<'_>) -> Result<Exported, Error> {
    let transaction = database.begin_read()?;
    let mut exported = Exported::default();
    if !take(format!("{HEADER}\n").as_bytes(), 1) {
        return Ok(exported);
    }
    let Some(visits) = existing(transaction.open_table(VISITS))? else {
        return Ok(exported);
    };
    let Totals { total, pruned } = totals(&visits)?;
    exported.total = Some(total);
    let texts: BTreeMap<u64, String> = names::load(database)?
        .into_iter()
        .map(|(name, number)| (number, name))
        .collect();
    let name_of = existing(transaction.open_table(NAME_OF))?;
    let mut name_of = names::of_rows(name_of.as_ref());
    let mut line = Vec::new();
    for row in visits.iter()? {
        let (number, arrival) = row?;
        let name = name_of(number.value())?.and_then(|name| texts.get(&name));
        let moment = Some(arrival.value()).filter(|moment| *moment != UNKNOWN);
        line.clear();
        write_line(
            name.map_or("", String::as_str),
            moment.map(|moment| moment.max(0).cast_unsigned()),
            &mut line,
        );
        if !take(&line, 1) {
            return Ok(exported);
        }
        exported.rows += 1;
    }
    let kept = names::all(database, 0)?.into_values();
    let names = kept.map(|kept| (kept.name, kept.totals.pruned));
    exported.pruned = give_pruned(pruned, names, take);
    Ok(exported)
}

/// The import of that id. Creates the file where there is none.
///
/// # Errors
/// A sentence.
pub fn importer(folder: &Path, id: &str) -> Result<Box<dyn Importer>, String> {
    let file = EmbeddedFile::new(folder);
    let database = file.open().map_err(|error| error.to_string())?;
    Ok(Box::new(EmbeddedImport {
        file,
        database,
        key: digest(0, id) & !1,
    }))
}

struct EmbeddedImport {
    file: Arc<EmbeddedFile>,
    database: Arc<Database>,
    /// In [`IMPORTS`]; even.
    key: u64,
}

impl EmbeddedImport {
    fn try_reached(&self) -> Result<Reached, Error> {
        let transaction = self.database.begin_read()?;
        let Some(imports) = existing(transaction.open_table(IMPORTS))? else {
            return Ok(Reached::default());
        };
        let of = |key| -> Result<u64, Error> {
            let value = imports.get(key)?;
            Ok(value.map_or(0, |value| value.value().cast_unsigned()))
        };
        Ok(Reached {
            lines: of(self.key)?,
            digest: of(self.key + 1)?,
        })
    }

    fn try_add(&self, moved: &Moved, to: Reached) -> Result<(), Error> {
        let now = Step::Minute.start_of(SystemTime::now());
        let start = |moment: i64| history::bucket(moment.div_euclid(1_000_000), now);
        let starts = moved.moments.iter().map(|moment| moment.map(start));
        let starts: Vec<Option<i64>> = starts.collect();
        let transaction = begin(&self.database)?;
        let mut new = Vec::new();
        {
            let mut visits = transaction.open_table(VISITS)?;
            let mut last = totals(&visits)?.total;
            for moment in &moved.moments {
                last += 1;
                visits.insert(last, moment.unwrap_or(UNKNOWN))?;
            }
            history::add(&mut transaction.open_table(HISTORY)?, &starts)?;
            if !moved.names.is_empty() {
                let Moved { names, name_of, .. } = moved;
                let known = self.file.names();
                (_, new) = names::add(&transaction, names, name_of, &starts, last, &known)?;
            }
            let mut imports = transaction.open_table(IMPORTS)?;
            imports.insert(self.key, to.lines.cast_signed())?;
            imports.insert(self.key + 1, to.digest.cast_signed())?;
        }
        transaction.commit()?;
        self.file.names().extend(new);
        Ok(())
    }

    fn sentence(&self, error: &Error) -> String {
        format!("{}: {error}", self.file.path().display())
    }
}

impl Importer for EmbeddedImport {
    fn reached(&mut self) -> Result<Reached, String> {
        self.try_reached().map_err(|error| self.sentence(&error))
    }

    // No other process has the file open, so it is where it was.
    fn add(&mut self, moved: &Moved, _from: u64, to: Reached) -> Result<(), String> {
        self.try_add(moved, to)
            .map_err(|error| self.sentence(&error))
    }
}

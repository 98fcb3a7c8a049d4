//! `visitas export` and `visitas import`: visits move between stores, and in from other services,
//! as CSV of counter and time.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt as _};

use crate::config::{Config, LedgerPlace};
use crate::visits::ledger::{
    Exported, Importer, export_file, export_postgres, import_file, import_postgres,
};
use crate::visits::moving::{self, ImportError, Imported};

/// Time between two reports of how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of an import's id: it is a key in PostgreSQL.
const MAX_ID_BYTES: usize = 200;
/// What is read and written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// What to import.
#[derive(Debug, Default)]
pub struct Import {
    /// `None`: standard input.
    pub file: Option<PathBuf>,
    /// What the import is known by; `None`: by its first line.
    pub id: Option<String>,
}

impl Import {
    /// Reads what follows the command.
    ///
    /// # Errors
    /// When that is no import.
    pub fn from_arguments(arguments: &mut Parser) -> Result<Import, lexopt::Error> {
        let mut import = Import::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Long("id") if import.id.is_none() => {
                    let id = arguments.value()?.string()?;
                    if !(1..=MAX_ID_BYTES).contains(&id.len()) {
                        return Err(format!("--id: expected 1 to {MAX_ID_BYTES} bytes").into());
                    }
                    import.id = Some(id);
                }
                Arg::Value(file) if import.file.is_none() => import.file = Some(file.into()),
                other => return Err(other.unexpected()),
            }
        }
        Ok(import)
    }
}

/// Writes all visits to standard output; says whether it could.
#[cold]
pub fn export(config: &Config) -> bool {
    let (mut output, mut buffer) = (io::stdout().lock(), Vec::new());
    let mut written: io::Result<()> = Ok(());
    let (mut lines, mut progress) = (0, Progress::new("exporting"));
    let mut take = |text: &[u8], ended: u64| {
        lines += ended;
        progress.report(lines);
        buffer.extend_from_slice(text);
        if buffer.len() >= BUFFER_BYTES {
            written = output.write_all(&buffer);
            buffer.clear();
        }
        written.is_ok()
    };
    let exported = match &config.ledger {
        LedgerPlace::Embedded { folder } => export_file(folder, &mut take),
        LedgerPlace::Postgres(place) => export_postgres(place, &mut take),
    };
    let written = written.and_then(|()| output.write_all(&buffer));
    match (written.and_then(|()| output.flush()), exported) {
        // Who reads the first lines only closes the pipe.
        (Err(error), _) if error.kind() == ErrorKind::BrokenPipe => true,
        (Err(error), _) => fails(&format!("standard output cannot be written: {error}")),
        (Ok(()), Err(reason)) => fails(&format!("not exported: {reason}")),
        (Ok(()), Ok(exported)) => {
            eprintln!("visitas: {}", sentence(&exported));
            true
        }
    }
}

fn fails(sentence: &str) -> bool {
    eprintln!("visitas: {sentence}");
    false
}

fn sentence(exported: &Exported) -> String {
    let Exported {
        rows,
        pruned,
        total,
    } = *exported;
    let mut text = format!("exported {} visits", rows + pruned);
    if pruned > 0 {
        text += &format!(
            ", {pruned} of them without a time: KEEP_ROWS deleted their rows, and their part of \
             the history stays behind"
        );
    }
    match total {
        Some(total) if total != rows + pruned => {
            text += &format!("; the total says {total}, which visitas recount sets right");
        }
        _ => {}
    }
    text
}

/// Imports a file; says whether all of it is imported now.
#[cold]
pub fn import(config: &Config, import: Import) -> bool {
    let opened = match &import.file {
        // Read as a file: nothing else reads it.
        None => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        Some(path) => File::open(path),
    };
    let mut source = match opened {
        Ok(file) => BufReader::with_capacity(BUFFER_BYTES, file),
        Err(error) => {
            let path = import.file.unwrap_or_default();
            return fails(&format!("{}: {error}", path.display()));
        }
    };
    let mut open = |id: &str| -> Result<Box<dyn Importer>, String> {
        match &config.ledger {
            LedgerPlace::Embedded { folder } => import_file(folder, id),
            LedgerPlace::Postgres(place) => import_postgres(place, !config.names.is_empty(), id),
        }
    };
    let mut progress = Progress::new("importing");
    let done = moving::import(
        &mut source,
        import.id,
        &config.names,
        config.max_names,
        &mut open,
        &mut |lines| progress.report(lines),
    );
    match done {
        Ok(Imported { id, before, lines }) => {
            let text = match (before, lines) {
                (0, lines) => format!("imported {lines} lines, as import {id}"),
                (before, 0) => {
                    format!("nothing to import: import {id} has all {before} lines already")
                }
                (before, lines) => format!(
                    "imported {lines} lines; import {id} had the {before} before them already"
                ),
            };
            // A closed standard output is no reason to fail.
            let _ = writeln!(io::stdout().lock(), "{text}");
            true
        }
        Err(ImportError { reason, lines: 0 }) => fails(&format!("nothing is imported: {reason}")),
        Err(ImportError { reason, lines }) => fails(&format!(
            "{reason}; {lines} lines are imported: run it again, and it goes on after them"
        )),
    }
}

/// Reports on standard error how far a long command is.
struct Progress {
    doing: &'static str,
    last: Instant,
}

impl Progress {
    fn new(doing: &'static str) -> Progress {
        let last = Instant::now();
        Progress { doing, last }
    }

    fn report(&mut self, lines: u64) {
        if self.last.elapsed() >= PROGRESS_INTERVAL {
            self.last = Instant::now();
            eprintln!("{}: {lines} lines", self.doing);
        }
    }
}

//! `visitas check` for an embedded store. It changes nothing in the file.

use std::fs;
use std::path::Path;

use redb::{Database, DatabaseError};

use super::count::count;
use super::file::{FILE_NAME, open, why_not_ours};
use crate::visits::diagnose::Check;

#[cold]
pub fn diagnose(folder: &Path) -> Vec<Check> {
    let path = folder.join(FILE_NAME);
    let mut checks = vec![writable(folder)];
    if !path.exists() {
        checks.push(Check::fine(
            "its file",
            format!(
                "{} is not there yet: the first start makes it",
                path.display()
            ),
        ));
        return checks;
    }
    let bytes = fs::metadata(&path).map_or(0, |file| file.len());
    checks.push(match open(&path, true) {
        // Never accepted, so the file stays as it is.
        Ok((database, _)) => of_a_store(&database, &path, bytes),
        Err(DatabaseError::DatabaseAlreadyOpen) => Check::warns(
            "its file",
            format!("{} is in use by a running visitas", path.display()),
            "nothing, if that one is to serve; a second one needs a DATA_DIR of its own",
        ),
        Err(error) => Check::fails(
            "its file",
            format!("{}: {error}", path.display()),
            "restore a copy, or name another DATA_DIR",
        ),
    });
    checks
}

#[cold]
fn of_a_store(database: &Database, path: &Path, bytes: u64) -> Check {
    let at = path.display();
    if let Ok(Some(why)) = why_not_ours(database) {
        return Check::fails("its file", format!("{at} {why}"), "name another DATA_DIR");
    }
    match count(database, &mut |_, _| {}) {
        Ok((counted, _)) if !counted.agrees() => counted.check(),
        Ok((counted, _)) => Check::fine(
            "its file",
            format!("{at}, {} rows in {bytes} bytes", counted.rows),
        ),
        Err(error) => Check::fails("its file", format!("{at}: {error}"), "restore a copy of it"),
    }
}

/// Whether a file can be created in the folder, or in the nearest existing folder above it.
#[cold]
fn writable(folder: &Path) -> Check {
    let there = folder
        .ancestors()
        .find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let there = there
        .filter(|there| !there.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let probe = there.join(format!(".visitas-check-{}", std::process::id()));
    match fs::File::create_new(&probe) {
        Ok(file) => {
            drop(file);
            let _ = fs::remove_file(&probe);
            Check::fine(
                "embedded store",
                format!("the folder {} can be written to", there.display()),
            )
        }
        Err(error) => Check::fails(
            "embedded store",
            format!("{} cannot be written to: {error}", there.display()),
            "give this user the folder, or name another DATA_DIR",
        ),
    }
}

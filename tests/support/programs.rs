//! PostgreSQL's programs, and the user they run as.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of PostgreSQL, see [`find_program`].
///
/// # Panics
/// When it is not installed.
pub fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| {
        panic!(
            "no {name} in {:?}: install PostgreSQL or set PG_BIN",
            folders()
        )
    })
}

/// A program of PostgreSQL from the folder `PG_BIN`, or from `PATH`, or the newest one of Debian.
pub fn find_program(name: &str) -> Option<PathBuf> {
    folders()
        .iter()
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn folders() -> Vec<PathBuf> {
    if let Some(given) = std::env::var_os("PG_BIN") {
        return vec![PathBuf::from(given)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|majors| {
            majors
                .flatten()
                .map(|major| major.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    debian.sort_by_key(|bin| {
        let major = bin
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(major.unwrap_or(0))
    });
    std::env::split_paths(&path).chain(debian).collect()
}

/// A command that runs as the user `postgres` when the suite runs as root, since PostgreSQL refuses
/// root.
pub(super) fn as_postgres(wrapper: &[String], program: &Path) -> Command {
    let as_user = [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
    ]
    .map(str::to_owned);
    let mut words = wrapper.to_vec();
    if postgres_ids().is_some() {
        words.extend(as_user);
    }
    words.push(text(program).to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // That user may have no right to the current directory.
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// Runs a command as the owner of the servers' files.
pub(super) fn run_as_postgres(program: &str, args: &[&str]) {
    let output = as_postgres(&[], Path::new(program))
        .args(args)
        .output()
        .expect("a program of PostgreSQL starts");
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes the user that PostgreSQL runs as own a folder.
pub fn give_to_postgres(folder: &Path) {
    if let Some((uid, gid)) = postgres_ids() {
        chown(folder, Some(uid), Some(gid)).expect("the folder's owner");
    }
}

/// The user and group `postgres`, when the suite runs as root.
pub(super) fn postgres_ids() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line
        .expect("as root PostgreSQL needs the user postgres")
        .split(':')
        .skip(2);
    let mut number = || {
        fields
            .next()
            .and_then(|field| field.parse().ok())
            .expect("a number in /etc/passwd")
    };
    Some((number(), number()))
}

/// A path of this run as text.
pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

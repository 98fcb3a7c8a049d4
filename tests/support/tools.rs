//! Other people's programs that the slow suites use. Where one is missing, the test is skipped.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::skipped;

/// A program from `PATH` or from Debian's folders for servers. `None`, and a line about it, where
/// it is not installed.
///
/// # Panics
/// When it is not installed and `CI` is `true`.
#[track_caller]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skipped(name, "it is not installed");
    }
    found
}

/// Whether this process may have this many connections at once, and some files. Prints a line
/// where it may not.
///
/// # Panics
/// When it may not and `CI` is `true`.
#[track_caller]
pub fn may_open(connections: usize) -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let enough =
        hard > connections as u64 + 500 && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    if !enough {
        skipped(
            &format!("{connections} connections"),
            &format!("this process may open {hard} files"),
        );
    }
    enough
}

/// Runs a command and gives its standard output.
///
/// # Panics
/// When it fails; the message holds its output.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output: Output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}\n{errors}",
        output.status
    );
    text
}

//! Programs of others that the slow suites drive: found, or the test is skipped, which fails where
//! everything has to run.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::skipped;

/// The program of that name, from `PATH` or where Debian keeps servers. None, said so, where it is
/// not installed.
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

/// Whether this process may have so many connections at once, and some files; says so where it may
/// not.
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

/// Runs a command to its end; gives what it wrote on standard output.
///
/// # Panics
/// When it fails, with what it wrote.
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

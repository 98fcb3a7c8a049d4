//! What the program says of itself: its help and its version.

use std::env::consts::ARCH;

use crate::config;

/// What scripts/build-static says of its build; other builds know neither.
const COMMIT: Option<&str> = option_env!("VISITAS_COMMIT");
const TARGET: Option<&str> = option_env!("VISITAS_TARGET");

/// All commands and settings.
pub fn help() -> String {
    format!(
        "{}{}",
        include_str!("usage.txt"),
        config::describe_variables()
    )
}

pub fn version() -> String {
    let commit = COMMIT.filter(|commit| !commit.is_empty());
    format!(
        "visitas {} ({}, {})\n",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or("commit unknown"),
        TARGET.unwrap_or(ARCH)
    )
}

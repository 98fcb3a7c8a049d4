//! visitas, a visit counter: a 200 is one committed row, counted exactly once. This file is the map
//! of the crate.
//!
//! ```text
//! config       the environment, read and validated once
//! http         bytes <-> requests; knows nothing of visits
//! visits       one visit -> one row, one increment: lanes, group commit; knows nothing of HTTP
//!   ledger       where rows live: PostgreSQL, or one file
//!   counter      Redis, or this process
//! site         what a visitor gets; joins http and visits
//! server       puts the parts together, and stops them in order
//! check        tries the configuration and both stores, for the person who sets them up
//! moving       takes visits out of the ledger and into it, as CSV
//! healthcheck  asks a local server whether it is ready
//! workers      coroutine workers, and how to run something on one
//! clock        the coarse clock that enforces every deadline
//! capacity     how many connections the system allows
//! procfs       what the kernel says of this process
//! logging      log lines
//! fnv          a hash
//! ```
//!
//! docs/architecture.md has the whole picture, and the life of a visit.

pub mod capacity;
pub mod check;
pub mod clock;
pub mod config;
mod fnv;
pub mod healthcheck;
pub mod http;
pub mod logging;
pub mod moving;
pub mod procfs;
pub mod server;
pub mod site;
mod squeeze;
pub mod visits;
pub mod workers;

/// Number, commit and target of this build. scripts/build-static says the latter two; other builds
/// know neither.
pub fn version() -> String {
    let number = env!("CARGO_PKG_VERSION");
    let commit = option_env!("VISITAS_COMMIT").filter(|commit| !commit.is_empty());
    let target = option_env!("VISITAS_TARGET").unwrap_or(std::env::consts::ARCH);
    let commit = commit.unwrap_or("commit unknown");
    format!("visitas {number} ({commit}, {target})")
}

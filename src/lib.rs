//! visitas, a visit counter: a 200 is one committed row, counted exactly once. This file is the map
//! of the crate.
//!
//! ```text
//! config       the environment, read and validated once
//! http         bytes <-> requests; knows nothing of visits
//! visits       one visit -> one row, one increment: lanes, group commit; knows nothing of HTTP
//!   ledger       where rows live: PostgreSQL, or one file
//!   counter      the fast counter: Redis, or this process
//! site         what a visitor gets; joins http and visits
//! capacity     how many connections the system allows
//! server       puts the parts together, and stops them in good order
//! check        tries the configuration and both stores, for a person who sets them up
//! healthcheck  asks a local server whether it is ready
//! clock        the coarse clock that enforces every deadline
//! logging      log lines
//! ```
//!
//! docs/architecture.md has the whole picture, and the life of a visit from accept to answer.

pub mod capacity;
pub mod check;
pub mod clock;
pub mod config;
pub mod healthcheck;
pub mod http;
pub mod logging;
pub mod server;
pub mod site;
pub mod visits;

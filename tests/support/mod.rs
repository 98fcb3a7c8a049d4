//! What the suite needs: PostgreSQL, Redis, the visitas process, a client, a faulty network.

pub mod audit;
pub mod authority;
pub mod client;
pub mod clock;
pub mod database;
pub mod disk;
pub mod history;
pub mod html;
pub mod load;
pub mod markdown;
pub mod patroni;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod rows;
pub mod scratch;
pub mod server;
pub mod shell;
pub mod standby;
pub mod tools;
pub mod veth;
pub mod wait;

pub use authority::{Authority, Pair};
pub use client::{Client, NoAnswer, Response};
pub use database::Database;
pub use disk::SmallDisk;
pub use load::{Clients, Form, Load};
pub use patroni::Patroni;
pub use pgbouncer::PgBouncer;
pub use postgres::{Cluster, Stop};
pub use proxy::{Direction, Proxy};
pub use redis::Redis;
pub use server::{Settings, Visitas};
pub use standby::Standby;
pub use veth::VethPair;
pub use wait::{LIMIT, within};

use std::sync::{Mutex, MutexGuard, PoisonError};

static MACHINE: Mutex<()> = Mutex::new(());

/// Locks the machine for a test that loads it or measures time. Other tests do not ask for it and
/// run in parallel.
pub fn machine() -> MutexGuard<'static, ()> {
    // A test that failed while it held the lock left nothing behind.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports a check that cannot run here.
///
/// # Panics
/// In CI, where no check may be left out.
#[track_caller]
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED: {what}: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{line}"
    );
    eprintln!("{line}");
}

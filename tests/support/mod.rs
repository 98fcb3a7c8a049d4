//! Starts, drives and stops what the suite needs: PostgreSQL, Redis, the visitas process, a client,
//! a faulty network.

pub mod audit;
pub mod authority;
pub mod cable;
pub mod client;
pub mod clock;
pub mod disk;
pub mod html;
pub mod load;
pub mod markdown;
pub mod patroni;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod rows;
pub mod run;
pub mod server;
pub mod shell;
pub mod standby;
pub mod tools;
pub mod wait;

pub use authority::{Authority, Pair};
pub use cable::Cable;
pub use client::{Client, NoAnswer, Response};
pub use disk::SmallDisk;
pub use load::{Crowd, Load};
pub use patroni::Patroni;
pub use pgbouncer::PgBouncer;
pub use postgres::{Cluster, Database, Stop};
pub use proxy::{Proxy, Way};
pub use redis::Redis;
pub use server::{Settings, Visitas};
pub use standby::Standby;
pub use wait::within;

use std::sync::{Mutex, MutexGuard, PoisonError};

static MACHINE: Mutex<()> = Mutex::new(());

/// The machine for one test alone among those that ask for it: the ones that load it and the ones
/// that measure time. A test that does neither does not ask, and runs beside.
pub fn machine() -> MutexGuard<'static, ()> {
    // A test that failed while it held the machine left nothing behind in it.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A check that cannot run here: says so, and fails where nothing may be left out.
///
/// # Panics
/// In CI.
#[track_caller]
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED: {what}: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{line}"
    );
    eprintln!("{line}");
}

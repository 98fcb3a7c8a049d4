//! Starts, drives and stops what the suite needs: PostgreSQL, Redis, the visitas process, a client, a faulty network.

pub mod client;
pub mod html;
pub mod load;
pub mod markdown;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod run;
pub mod server;
pub mod tools;
pub mod wait;

pub use client::{Client, NoAnswer, Response};
pub use load::Load;
pub use postgres::{Cluster, Database, Stop};
pub use proxy::{Proxy, Way};
pub use redis::Redis;
pub use server::{Settings, Visitas};
pub use wait::within;

use std::sync::{Mutex, MutexGuard, PoisonError};

static MACHINE: Mutex<()> = Mutex::new(());

/// The machine for one test alone among those that ask for it: the ones that load it and the ones that measure time.
/// A test that does neither does not ask, and runs beside.
pub fn machine() -> MutexGuard<'static, ()> {
    // A test that failed while it held the machine left nothing behind in it.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

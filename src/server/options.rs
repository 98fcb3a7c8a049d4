//! What the configuration means for each part of the program.

use std::sync::Arc;
use std::time::Duration;

use crate::capacity::{self, Capacity};
use crate::config::{Config, CounterPlace, LedgerPlace};
use crate::site::StoreNames;
use crate::visits::Stores;
use crate::visits::counter::{Counter, Memory, Redis};
use crate::visits::ledger::{
    Embedded, EmbeddedFile, EmbeddedPruner, Ledger, Postgres, PostgresPruner, Pruner,
};
use crate::workers::STACK_BYTES;
use crate::{http, logging, site, visits};

/// The longest wait for an answer of the counter. After it a visit does without.
const COUNTER_TIMEOUT: Duration = Duration::from_millis(500);
/// The counter's share of a visit's deadline, since what queues in that time waits too: one in
/// four.
const COUNTER_SHARE: u32 = 4;
/// Workers that share a lane. One session of PostgreSQL takes the rows of several workers; two lanes
/// make smaller batches, each with its own flush. A quarter of the visits is lost by that where the
/// workers share two cores.
const WORKERS_PER_LANE: usize = 8;

fn lanes(config: &Config) -> usize {
    config.workers.div_ceil(WORKERS_PER_LANE)
}

/// Connections to the ledger: one per lane, and one that deletes old rows.
pub fn ledger_connections(config: &Config) -> usize {
    lanes(config) + usize::from(config.keep_rows.is_some())
}

/// How many client connections there can be.
pub fn capacity(config: &Config) -> Capacity {
    Capacity::find(config.max_connections, config.workers, STACK_BYTES)
}

pub(super) fn visits(config: &Config) -> visits::Options {
    visits::Options {
        lanes: lanes(config),
        max_queue: config.max_queue,
        deadline: config.request_timeout,
        connect_attempts: config.connect_attempts,
        connect_interval: config.connect_interval,
        keep_rows: config.keep_rows,
        names: config.names.clone(),
        max_names: config.max_names,
    }
}

pub(super) fn site(config: &Config, capacity: Capacity) -> site::Settings {
    site::Settings {
        workers: config.workers,
        base_path: config.base_path.clone(),
        visits_per_client: config.visits_per_client.map(|rate| (rate.count, rate.time)),
        ops_apart: config.ops.is_some(),
        max_connections: capacity.connections,
        max_queue: config.max_queue,
        max_held: capacity.held_bytes,
    }
}

pub(super) fn http(config: &Config, capacity: Capacity) -> http::Options {
    http::Options {
        workers: config.workers,
        max_connections: capacity.connections,
        max_refusals: capacity.refusals,
        max_held: capacity.held_bytes,
        has_stack: if capacity.scarce_addresses {
            has_stack
        } else {
            || true
        },
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        trusted_proxies: config.trusted_proxies.clone(),
        access_log: config.access_log.then_some(logging::access),
    }
}

/// Whether there are addresses for one more stack, and as many again for what its connection holds.
fn has_stack() -> bool {
    capacity::has_addresses(2 * STACK_BYTES)
}

pub(super) fn store_names(config: &Config) -> StoreNames {
    StoreNames {
        ledger: match config.ledger {
            LedgerPlace::Embedded { .. } => "embedded store",
            LedgerPlace::Postgres(_) => "PostgreSQL",
        },
        counter: match config.counter {
            CounterPlace::InProcess => None,
            CounterPlace::Redis(_) => Some("Redis"),
        },
    }
}

pub(super) fn stores(config: &Config) -> Stores {
    let deadline = config.request_timeout;
    let names = store_names(config);
    type Make<T> = Box<dyn Fn() -> Box<T>>;
    let (ledger, pruner): (Make<dyn Ledger>, Make<dyn Pruner>) = match &config.ledger {
        LedgerPlace::Embedded { folder } => {
            let file = EmbeddedFile::new(folder);
            let same = Arc::clone(&file);
            (
                Box::new(move || Box::new(Embedded::new(&file))),
                Box::new(move || Box::new(EmbeddedPruner::new(&same))),
            )
        }
        LedgerPlace::Postgres(place) => {
            let (place, same) = (place.clone(), place.clone());
            let names = !config.names.is_empty();
            (
                Box::new(move || Box::new(Postgres::new(&place, deadline, names))),
                Box::new(move || Box::new(PostgresPruner::new(&same))),
            )
        }
    };
    let counter: Make<dyn Counter> = match &config.counter {
        CounterPlace::InProcess => {
            let memory = Memory::default();
            Box::new(move || Box::new(memory.clone()))
        }
        CounterPlace::Redis(place) => {
            let (place, timeout) = (place.clone(), COUNTER_TIMEOUT.min(deadline / COUNTER_SHARE));
            Box::new(move || Box::new(Redis::new((*place).clone(), timeout)))
        }
    };
    let counter_name = names.counter.unwrap_or("in-process counter");
    Stores {
        ledger_name: names.ledger,
        counter_name,
        ledger,
        counter,
        pruner,
    }
}

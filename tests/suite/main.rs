//! visitas as its users meet it: the real binary, real PostgreSQL and Redis, a client that speaks
//! raw HTTP/1.1.
//!
//! One file a behaviour. `../support` starts and stops everything; nothing here waits for a fixed
//! time. `VISITAS_BIN` names another binary to test than the one Cargo built, `PG_BIN` the folder
//! of PostgreSQL's programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by a panic, and the support layer is a small library inside this program"
)]
#![cfg_attr(
    not(feature = "tls"),
    allow(
        dead_code,
        unused_imports,
        reason = "the tests of TLS use more of the support layer"
    )
)]

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod backups;
mod badge;
mod black_hole;
mod brake;
mod check;
mod clients;
mod configuration;
mod counting;
mod crowd;
mod descriptors;
mod differential;
mod drain;
mod embedded;
mod events;
mod exact;
mod exactly_once;
mod failover;
mod faults;
mod guests;
mod healthcheck;
mod history;
mod http_basics;
mod http_framing;
mod http_limits;
mod http_rules;
mod injection;
mod lanes;
mod limits;
mod logging;
mod memory;
mod metrics;
mod names;
mod ops;
mod outages;
mod page;
mod pooler;
mod postgres_total;
mod protocol;
mod proxies;
mod recount;
mod replication;
mod retention;
mod room;
mod routes;
mod selfcheck;
mod session_attrs;
mod slow_clients;
mod starting;
mod storm;
mod tidy;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
mod without_tls;

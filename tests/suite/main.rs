//! visitas as its users meet it: the real binary, real PostgreSQL and Redis, and a client that
//! speaks raw HTTP/1.1.
//!
//! Each file covers one behaviour. `../support` starts and stops servers. Tests wait for states,
//! not for time. `VISITAS_BIN` names another binary than Cargo's, `PG_BIN` the folder of
//! PostgreSQL's programs.

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
mod base_path;
mod black_hole;
mod burst;
mod check;
mod concurrent_visits;
mod configuration;
mod counting;
mod descriptors;
mod differential;
mod dns;
mod drain;
mod embedded;
mod events;
mod eviction;
mod exactly_once;
mod failover;
mod faults;
mod forms;
mod healthcheck;
mod history;
mod http_basics;
mod http_framing;
mod http_limits;
mod http_rules;
mod idle_connections;
mod injection;
mod lanes;
mod limits;
mod logging;
mod memory;
mod metrics;
mod moving;
mod names;
mod ops_port;
mod other_writers;
mod outage_page;
mod outages;
mod page;
mod pooler;
mod postgres_total;
mod protocol;
mod proxies;
mod rate_limit;
mod real_clients;
mod recount;
mod replication;
mod repository;
mod retention;
mod routes;
mod selfcheck;
mod slow_clients;
mod startup;
mod target_session_attrs;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
mod without_tls;

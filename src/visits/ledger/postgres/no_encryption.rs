//! Stands for `encryption` in a build without TLS: every connection is plain. The configuration
//! refuses what asks for more.

use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use super::address::Address;
use crate::visits::tls::Refusal;

pub(super) type Connector = NoTls;

pub(super) fn connectors(_: &Address, _: &str) -> Result<Vec<Connector>, Refusal> {
    Ok(vec![NoTls])
}

pub(super) fn plain() -> Connector {
    NoTls
}

pub(super) fn as_encrypted(_: &Connector) -> Result<Connector, Refusal> {
    Ok(NoTls)
}

pub(super) fn prepare(config: &mut Config) {
    config.ssl_mode(SslMode::Disable);
}

pub(super) fn found(_: &Connector) -> Option<&str> {
    None
}

pub(super) fn was_declined(_: &Connector) -> bool {
    true
}

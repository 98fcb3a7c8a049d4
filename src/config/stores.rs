//! Which ledger and which counter the environment names, and where they are.

use std::fmt;
use std::path::PathBuf;

use super::ConfigError;
use super::postgres;
use super::reader::{Reader, error, printable};
use crate::visits::counter::RedisAddress;
use crate::visits::ledger::{Host, PostgresAddress};

/// Where the rows live. Its `Display` is safe to print: it has no password.
#[derive(Debug, Clone)]
pub enum LedgerPlace {
    /// One file in this folder.
    Embedded {
        /// The folder; created when missing.
        folder: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(Box<PostgresAddress>),
}

/// Where the counter lives. Its `Display` is safe to print: it has no password.
#[derive(Debug, Clone)]
pub enum CounterPlace {
    /// In this process: it starts at 0, as a Redis without persistence does.
    InProcess,
    /// A Redis server.
    Redis(Box<RedisAddress>),
}

impl fmt::Display for LedgerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&match self {
            LedgerPlace::Embedded { folder } => format!("embedded in {}", folder.display()),
            LedgerPlace::Postgres(address) => {
                let hosts: Vec<String> = address.hosts.iter().map(Host::to_string).collect();
                let database = address.database.as_ref().unwrap_or(&address.user);
                format!("postgres at {}/{database}", hosts.join(","))
            }
        }))
    }
}

impl fmt::Display for CounterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CounterPlace::InProcess => f.write_str("in process"),
            CounterPlace::Redis(address) => f.write_str(&printable(&format!(
                "redis at {}/{}",
                address.place, address.database
            ))),
        }
    }
}

pub(super) fn ledger(env: &Reader<'_>) -> Result<LedgerPlace, ConfigError> {
    if let Some(url) = env.secret("DATABASE_URL", "DATABASE_URL_FILE")? {
        let address = postgres::from_url(env, &url)?;
        return Ok(LedgerPlace::Postgres(Box::new(address)));
    }
    let password = env.secret("DB_PASSWORD", "DB_PASSWORD_FILE")?;
    let Some(host) = env.own_text("DB_HOST")? else {
        let parts = [
            "DB_PORT",
            "DB_USER",
            "DB_PASSWORD",
            "DB_PASSWORD_FILE",
            "DB_NAME",
            "DB_SSLMODE",
            "DB_SSLROOTCERT",
            "DB_SSLCERT",
            "DB_SSLKEY",
        ];
        no_parts(
            env,
            "DB_HOST",
            &parts,
            "a PostgreSQL host; without one rows go to DATA_DIR, so unset the others",
        )?;
        return Ok(LedgerPlace::Embedded {
            folder: PathBuf::from(env.text("DATA_DIR")?),
        });
    };
    let address = postgres::from_variables(env, host, password)?;
    Ok(LedgerPlace::Postgres(Box::new(address)))
}

/// Parts of an address without a host: the host is most likely lost, and another store would be
/// used silently.
pub(super) fn no_parts(
    env: &Reader<'_>,
    host: &'static str,
    parts: &[&'static str],
    takes: &str,
) -> Result<(), ConfigError> {
    let mut set = Vec::new();
    for part in parts {
        if env.own_text(part)?.is_some() {
            set.push(*part);
        }
    }
    let verb = if set.len() == 1 { "is" } else { "are" };
    if set.is_empty() {
        Ok(())
    } else {
        Err(error(
            host,
            format!("\"\" (while {} {verb} set)", set.join(", ")),
            takes,
        ))
    }
}

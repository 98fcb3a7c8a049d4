//! Which ledger and which counter the environment names, and where they are.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use super::ConfigError;
use super::postgres;
use super::reader::{Reader, error, hidden, printable};
use super::tls::{self, RedisTls};
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
                address.info.addr(),
                address.info.redis_settings().db()
            ))),
        }
    }
}

/// What a Redis address looks like, said in every error about one.
const REDIS_ADDRESS: &str = "redis://user:password@host:port/number";

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

pub(super) fn counter(env: &Reader<'_>) -> Result<CounterPlace, ConfigError> {
    if let Some(url) = env.secret("REDIS_URL", "REDIS_URL_FILE")? {
        return redis_from_url(env, &url);
    }
    let password = env.secret("REDIS_PASSWORD", "REDIS_PASSWORD_FILE")?;
    let port = env.whole("REDIS_PORT", 1..=u16::MAX)?;
    let user = env.own_text("REDIS_USER")?;
    let Some(host) = env.own_text("REDIS_HOST")? else {
        let parts = [
            "REDIS_PORT",
            "REDIS_USER",
            "REDIS_PASSWORD",
            "REDIS_PASSWORD_FILE",
            "REDIS_TLS",
            "REDIS_CA_FILE",
            "REDIS_CERT_FILE",
            "REDIS_KEY_FILE",
        ];
        let takes = "a Redis host; without one the counter is in this process, so unset the others";
        no_parts(env, "REDIS_HOST", &parts, takes)?;
        return Ok(CounterPlace::InProcess);
    };
    let address = ConnectionAddr::Tcp(host, port).into_connection_info();
    let info = address.map_err(|_| {
        error(
            "REDIS_HOST",
            "an address Redis cannot have",
            "a host name or an IP address",
        )
    })?;
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    redis_place(env, info.set_redis_settings(login), RedisTls::Off)
}

fn redis_place(
    env: &Reader<'_>,
    info: redis::ConnectionInfo,
    of_url: RedisTls,
) -> Result<CounterPlace, ConfigError> {
    let tls = tls::redis(env, info.addr(), of_url)?;
    Ok(CounterPlace::Redis(Box::new(RedisAddress { info, tls })))
}

/// Parts of an address without a host: the host is most likely lost, and another store would be
/// used silently.
fn no_parts(
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

fn redis_from_url(env: &Reader<'_>, url: &str) -> Result<CounterPlace, ConfigError> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_one_of = |schemes: &[&str]| {
        schemes
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    };
    if scheme.to_ascii_lowercase().contains("sentinel") {
        return Err(error(
            "REDIS_URL",
            hidden(url),
            "the address of the Redis server itself (redis://): this binary asks no Sentinel; \
             put HAProxy before Redis, or a name that follows the primary",
        ));
    }
    // The library would parse any other scheme before it refuses it, and a host in http: or file:
    // by the rules for international names, which are not built in.
    let known = is_one_of(&[
        "redis",
        "rediss",
        "valkey",
        "valkeys",
        "redis+unix",
        "valkey+unix",
        "unix",
    ]);
    let (address, of_url) = tls::of_redis_url(url);
    let is_whole = of_url == RedisTls::Off || !address.contains('#');
    match (known && is_whole).then(|| address.into_connection_info()) {
        Some(Ok(info)) => redis_place(env, info, of_url),
        _ => Err(error(
            "REDIS_URL",
            format!("{} (not such an address)", hidden(url)),
            REDIS_ADDRESS,
        )),
    }
}

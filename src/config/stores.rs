//! Which ledger and which counter the environment names, and where they are.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use tokio_postgres::config::{Host, SslMode};

use super::ConfigError;
use super::reader::{Reader, error, printable};

/// Where the rows live. Its `Display` is safe to print: it has no password.
#[derive(Debug, Clone)]
pub enum LedgerPlace {
    /// One file in this folder.
    Embedded {
        /// The folder; created when missing.
        folder: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(Box<tokio_postgres::Config>),
}

/// Where the counter lives. Its `Display` is safe to print: it has no password.
#[derive(Debug, Clone)]
pub enum CounterPlace {
    /// In this process: it starts at 0, as a Redis without persistence does.
    InProcess,
    /// A Redis server.
    Redis(Box<redis::ConnectionInfo>),
}

impl fmt::Display for LedgerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&match self {
            LedgerPlace::Embedded { folder } => format!("embedded in {}", folder.display()),
            LedgerPlace::Postgres(config) => {
                format!(
                    "postgres at {}/{}",
                    hosts(config),
                    config
                        .get_dbname()
                        .or(config.get_user())
                        .unwrap_or_default()
                )
            }
        }))
    }
}

fn hosts(config: &tokio_postgres::Config) -> String {
    let host = |(index, host): (usize, &Host)| {
        let port = config
            .get_ports()
            .get(index)
            .or(config.get_ports().first())
            .copied()
            .unwrap_or(5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    };
    config
        .get_hosts()
        .iter()
        .enumerate()
        .map(host)
        .collect::<Vec<String>>()
        .join(",")
}

impl fmt::Display for CounterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CounterPlace::InProcess => f.write_str("in process"),
            CounterPlace::Redis(info) => f.write_str(&printable(&format!(
                "redis at {}/{}",
                info.addr(),
                info.redis_settings().db()
            ))),
        }
    }
}

/// What a PostgreSQL address looks like, said in every error about one.
const POSTGRES_ADDRESS: &str = "postgres://user:password@host:port/name, or key=value pairs";
/// What a Redis address looks like, said in every error about one.
const REDIS_ADDRESS: &str = "redis://user:password@host:port/number";

pub(super) fn ledger(env: &Reader<'_>) -> Result<LedgerPlace, ConfigError> {
    if let Some(url) = env.secret("DATABASE_URL", "DATABASE_URL_FILE")? {
        return postgres_from_url(&url);
    }
    let password = env.secret("DB_PASSWORD", "DB_PASSWORD_FILE")?;
    let port = env.whole("DB_PORT", 1..=u16::MAX)?;
    let (user, name) = (env.text("DB_USER")?, env.text("DB_NAME")?);
    let Some(host) = env.own_text("DB_HOST")? else {
        let parts = [
            "DB_PORT",
            "DB_USER",
            "DB_PASSWORD",
            "DB_PASSWORD_FILE",
            "DB_NAME",
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
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port).user(user).dbname(name);
    if let Some(password) = password {
        config.password(password);
    }
    Ok(LedgerPlace::Postgres(Box::new(config)))
}

fn postgres_from_url(url: &str) -> Result<LedgerPlace, ConfigError> {
    let refuse = |why: &str, takes: &str| {
        Err(error(
            "DATABASE_URL",
            format!("{} ({why})", hidden(url)),
            takes,
        ))
    };
    let url = match session_attrs(url) {
        Ok(url) => url,
        Err(word) => {
            let takes = "any, read-write or primary: visits need a server that takes writes";
            return refuse(&format!("target_session_attrs={word}"), takes);
        }
    };
    // The library's own reason may repeat a part of the value, so it is not shown.
    let Ok(config) = url.parse::<tokio_postgres::Config>() else {
        return refuse("not such an address", POSTGRES_ADDRESS);
    };
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return refuse("it names no host", POSTGRES_ADDRESS);
    }
    if config.get_ssl_mode() == SslMode::Require {
        return refuse(
            "sslmode=require",
            "an address without TLS: this binary has none built in",
        );
    }
    Ok(LedgerPlace::Postgres(Box::new(config)))
}

/// The address without `target_session_attrs`, of which the library knows three of libpq's six
/// words (PostgreSQL manual, "Connection Strings"). Whatever it says, visits go to a server that
/// takes writes.
///
/// # Errors
/// The word, where it asks for a server that takes none.
fn session_attrs(url: &str) -> Result<String, String> {
    const NAME: &str = "target_session_attrs";
    let Some(at) = url.find(NAME) else {
        return Ok(url.to_owned());
    };
    let after = url[at + NAME.len()..].trim_start();
    let Some(value) = after.strip_prefix('=') else {
        return Ok(url.to_owned());
    };
    let value = value.trim_start();
    let quoted = value.trim_start_matches('\'');
    let end = quoted
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .unwrap_or(quoted.len());
    let word = &quoted[..end];
    if !["any", "read-write", "primary"].contains(&word) {
        return Err(word.to_owned());
    }
    let rest = quoted[end..].trim_start_matches('\'');
    // `any` is the default, so the setting can stay in its place.
    Ok(format!("{}{NAME}=any{rest}", &url[..at]))
}

pub(super) fn counter(env: &Reader<'_>) -> Result<CounterPlace, ConfigError> {
    if let Some(url) = env.secret("REDIS_URL", "REDIS_URL_FILE")? {
        return redis_from_url(&url);
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
    Ok(CounterPlace::Redis(Box::new(
        info.set_redis_settings(login),
    )))
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

fn redis_from_url(url: &str) -> Result<CounterPlace, ConfigError> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_one_of = |schemes: &[&str]| {
        schemes
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    };
    if is_one_of(&["rediss", "valkeys"]) {
        return Err(error(
            "REDIS_URL",
            hidden(url),
            "an address without TLS (redis://): this binary has none built in",
        ));
    }
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
    let known = is_one_of(&["redis", "valkey", "redis+unix", "valkey+unix", "unix"]);
    match known.then(|| url.into_connection_info()) {
        Some(Ok(info)) => Ok(CounterPlace::Redis(Box::new(info))),
        _ => Err(error(
            "REDIS_URL",
            format!("{} (not such an address)", hidden(url)),
            REDIS_ADDRESS,
        )),
    }
}

/// The scheme and the length of an address that may hold a password.
fn hidden(url: &str) -> String {
    let length = url.chars().count();
    match url.split_once("://") {
        Some((scheme, _))
            if scheme.len() < 12 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            format!("\"{scheme}://…\", {length} characters")
        }
        _ => format!("{length} characters, hidden since they may hold a password"),
    }
}

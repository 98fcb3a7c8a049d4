//! The environment, read and validated once.

mod parameters;
mod postgres;
mod reader;
mod redis;
mod stores;
mod tls;

use std::ffi::OsString;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::time::Duration;

pub use reader::Rate;
use reader::Reader;
pub use stores::{CounterPlace, LedgerPlace};

use crate::http::Networks;
use crate::visits::NameRules;

/// One environment variable. `--help` prints this table, the reader takes defaults from it, and a
/// test holds docs/configuration.md to it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// What holds when it is unset or empty: a value, or a description.
    pub default: &'static str,
    /// The default is a value that the reader parses.
    has_default: bool,
    pub meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default,
        has_default: false,
        meaning,
    }
}

const fn with_default(
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable {
        has_default: true,
        ..variable(name, default, meaning)
    }
}

/// Every variable that visitas reads. No other one changes what it does.
pub const VARIABLES: &[Variable] = &[
    with_default("HOST", "0.0.0.0", "address or name to listen on"),
    with_default("PORT", "5000", "TCP port to listen on (0: any free one)"),
    variable(
        "BASE_PATH",
        "unset: the root",
        "path below which everything is, such as /visits, for a place behind a proxy",
    ),
    variable(
        "OPS_PORT",
        "unset: on PORT",
        "TCP port for /metrics, /livez and /readyz, instead of PORT",
    ),
    variable(
        "DB_HOST",
        "unset: embedded store",
        "PostgreSQL host, or the folder of its Unix socket",
    ),
    with_default("DB_PORT", "5432", "PostgreSQL port"),
    with_default("DB_USER", "user_app", "PostgreSQL role"),
    variable("DB_PASSWORD", "unset", "its password"),
    with_default("DB_NAME", "desafio3_db", "PostgreSQL database"),
    variable(
        "DATABASE_URL",
        "unset",
        "instead of the DB_* ones: postgres://user:password@host:port/name, or key=value",
    ),
    variable(
        "DB_SSLMODE",
        "prefer",
        "TLS to PostgreSQL: disable, allow, prefer, require, verify-ca, verify-full",
    ),
    variable(
        "DB_SSLROOTCERT",
        "unset",
        "file of the roots that vouch for PostgreSQL, or system for public ones",
    ),
    variable(
        "DB_SSLCERT",
        "unset",
        "file of the client certificate for PostgreSQL",
    ),
    variable("DB_SSLKEY", "unset", "file of its key"),
    variable("REDIS_HOST", "unset: in-process counter", "Redis host"),
    with_default("REDIS_PORT", "6379", "Redis port"),
    variable("REDIS_USER", "unset: Redis' own", "Redis user"),
    variable("REDIS_PASSWORD", "unset", "its password"),
    variable(
        "REDIS_URL",
        "unset",
        "instead of the REDIS_* ones: redis://user:password@host:port/number, rediss:// with TLS",
    ),
    variable(
        "REDIS_TLS",
        "off",
        "TLS to Redis: off, on, or insecure (nothing verified)",
    ),
    variable(
        "REDIS_CA_FILE",
        "unset: public roots",
        "file of the roots that vouch for Redis",
    ),
    variable(
        "REDIS_CERT_FILE",
        "unset",
        "file of the client certificate for Redis",
    ),
    variable("REDIS_KEY_FILE", "unset", "file of its key"),
    variable(
        "SSL_CERT_FILE",
        "unset: built in",
        "file of public roots, instead of those of Mozilla",
    ),
    variable("DB_PASSWORD_FILE", "unset", "file to read DB_PASSWORD from"),
    variable(
        "DATABASE_URL_FILE",
        "unset",
        "file to read DATABASE_URL from",
    ),
    variable(
        "REDIS_PASSWORD_FILE",
        "unset",
        "file to read REDIS_PASSWORD from",
    ),
    variable("REDIS_URL_FILE", "unset", "file to read REDIS_URL from"),
    with_default("DATA_DIR", "./data", "folder of the embedded store"),
    variable(
        "COUNTERS",
        "unset: none",
        "counters by name at /c/NAME: blog,docs,shop-*=0,photos=12345",
    ),
    with_default(
        "MAX_COUNTERS",
        "10000",
        "names that may be in use; a visit to one more: 404",
    ),
    variable(
        "KEEP_ROWS",
        "without end",
        "delete rows older than this (90d, 12h); the total still counts them",
    ),
    variable(
        "WORKERS",
        "cores the process may use",
        "coroutine workers; eight share a lane",
    ),
    with_default(
        "CONNECT_ATTEMPTS",
        "5",
        "attempts to reach the ledger at start, then exit 1 (0: without end)",
    ),
    with_default("CONNECT_INTERVAL", "5s", "time between two attempts"),
    with_default(
        "REQUEST_TIMEOUT",
        "5s",
        "a visit's deadline, from its arrival to its answer",
    ),
    with_default(
        "HEADER_TIMEOUT",
        "10s",
        "time for a request's head to arrive; again for its body; again to take the answer",
    ),
    with_default(
        "IDLE_TIMEOUT",
        "60s",
        "time a connection may stay open without a request",
    ),
    with_default(
        "MAX_CONNECTIONS",
        "16384",
        "open connections; above: the one that is idle for longest closes, or 503",
    ),
    with_default(
        "MAX_QUEUE",
        "65536",
        "visits that wait for a commit; above: 503",
    ),
    variable(
        "VISITS_PER_CLIENT",
        "unset: any number",
        "visits that one address may make, such as 60/1m; above: 429",
    ),
    variable(
        "TRUSTED_PROXIES",
        "unset: none",
        "addresses and networks whose Forwarded, X-Forwarded-For or PROXY header counts",
    ),
    with_default(
        "DRAIN_DELAY",
        "0",
        "time after SIGTERM in which connections are still accepted, and /readyz says 503",
    ),
    with_default(
        "DRAIN_TIMEOUT",
        "10s",
        "time to finish accepted requests after SIGTERM or SIGINT",
    ),
    with_default("LOG_FORMAT", "text", "text or json"),
    with_default("ACCESS_LOG", "off", "on: one log line per request"),
];

/// One line per variable: name, meaning and, in brackets, default.
pub fn describe_variables() -> String {
    let line = |v: &Variable| format!("  {:<18} {} [{}]\n", v.name, v.meaning, v.default);
    VARIABLES.iter().map(line).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `2026-01-31T12:00:00.000Z INFO what happened`
    Text,
    /// One JSON object per line.
    Json,
}

/// Every setting, valid. [`VARIABLES`] says what each means.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    /// What every path begins with; empty, or `/visits`.
    pub base_path: String,
    /// Where to serve `/metrics`, `/livez` and `/readyz`; `None`: on `listen`.
    pub ops: Option<SocketAddr>,
    pub ledger: LedgerPlace,
    pub counter: CounterPlace,
    pub workers: usize,
    /// `None`: without end.
    pub connect_attempts: Option<NonZeroUsize>,
    pub connect_interval: Duration,
    pub request_timeout: Duration,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_connections: usize,
    pub max_queue: usize,
    /// Counters by name; empty: none.
    pub names: NameRules,
    pub max_names: usize,
    /// `None`: without end.
    pub keep_rows: Option<Duration>,
    pub visits_per_client: Option<Rate>,
    pub trusted_proxies: Networks,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub log_format: LogFormat,
    pub access_log: bool,
}

/// A variable with an invalid value. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: &'static str,
    /// Its value, quoted, or a description where it may hold a password.
    pub got: String,
    pub takes: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: invalid value {}: expected {}",
            self.variable, self.got, self.takes
        )
    }
}

impl std::error::Error for ConfigError {}

/// Longer time-outs are typing errors (milliseconds for seconds).
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The clock that enforces deadlines ticks every 50 ms.
const SHORTEST: Duration = Duration::from_millis(50);
/// Rows must be visible for a moment.
const SHORTEST_KEPT: Duration = Duration::from_secs(1);
/// A thousand years: more is a typing error.
const LONGEST_KEPT: Duration = Duration::from_secs(365_000 * 24 * 60 * 60);
/// More is a typing error.
const MOST_WORKERS: usize = 1024;
/// Each connection takes a descriptor and two memory mappings, which Linux limits.
const MOST_CONNECTIONS: usize = 1_000_000;
/// A waiting visit takes less than 100 bytes, so this is about a gigabyte.
const MOST_QUEUED: usize = 10_000_000;
/// A lane keeps some 200 bytes for each name.
const MOST_NAMES: usize = 100_000;

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// The first variable with an invalid value.
    pub fn from_env() -> Result<Config, ConfigError> {
        Config::from_lookup(&|name| std::env::var_os(name))
    }

    /// Reads an environment given as a function from name to value.
    ///
    /// # Errors
    /// The first variable with an invalid value.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let env = Reader::new(lookup);
        let listen = listen_address(&env)?;
        let (names, max_names) = names(&env)?;
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Ok(Config {
            listen,
            base_path: env
                .if_set("BASE_PATH", |name| env.base_path(name))?
                .unwrap_or_default(),
            ops: ops_address(&env, listen)?,
            ledger: stores::ledger(&env)?,
            counter: redis::counter(&env)?,
            workers: env
                .if_set("WORKERS", |name| env.whole(name, 1..=MOST_WORKERS))?
                .unwrap_or_else(cores),
            connect_attempts: NonZeroUsize::new(env.whole("CONNECT_ATTEMPTS", 0..=1_000_000)?),
            connect_interval: env.duration("CONNECT_INTERVAL", Duration::ZERO..=LONGEST)?,
            request_timeout: env.duration("REQUEST_TIMEOUT", SHORTEST..=LONGEST)?,
            header_timeout: env.duration("HEADER_TIMEOUT", SHORTEST..=LONGEST)?,
            idle_timeout: env.duration("IDLE_TIMEOUT", SHORTEST..=LONGEST)?,
            max_connections: env.whole("MAX_CONNECTIONS", 1..=MOST_CONNECTIONS)?,
            max_queue: env.whole("MAX_QUEUE", 1..=MOST_QUEUED)?,
            names,
            max_names,
            keep_rows: env.if_set("KEEP_ROWS", |name| {
                env.duration(name, SHORTEST_KEPT..=LONGEST_KEPT)
            })?,
            visits_per_client: env.if_set("VISITS_PER_CLIENT", |name| env.rate(name))?,
            trusted_proxies: env
                .if_set("TRUSTED_PROXIES", |name| env.networks(name))?
                .unwrap_or_default(),
            drain_delay: env.duration("DRAIN_DELAY", Duration::ZERO..=LONGEST)?,
            drain_timeout: env.duration("DRAIN_TIMEOUT", Duration::ZERO..=LONGEST)?,
            log_format: env.choice("LOG_FORMAT", &formats)?,
            access_log: env.choice("ACCESS_LOG", &[("off", false), ("on", true)])?,
        })
    }
}

/// Counters by name, and how many may be in use.
fn names(env: &Reader<'_>) -> Result<(NameRules, usize), ConfigError> {
    let most = env.whole("MAX_COUNTERS", 1..=MOST_NAMES)?;
    let names = env
        .if_set("COUNTERS", |name| env.names(name))?
        .unwrap_or_default();
    let whole = names.whole_names();
    if whole > most {
        return Err(ConfigError {
            variable: "MAX_COUNTERS",
            got: reader::quoted(&most.to_string()),
            takes: format!("at least {whole}: COUNTERS has as many whole names"),
        });
    }
    Ok((names, most))
}

/// Where `/readyz` is, for a check of a server that runs in the same environment.
///
/// # Errors
/// Where `HOST`, `PORT` or `OPS_PORT` has an invalid value.
pub fn readyz_from_env() -> Result<SocketAddr, ConfigError> {
    let env = Reader::new(&|name| std::env::var_os(name));
    let listen = listen_address(&env)?;
    Ok(ops_address(&env, listen)?.unwrap_or(listen))
}

fn ops_address(env: &Reader<'_>, listen: SocketAddr) -> Result<Option<SocketAddr>, ConfigError> {
    let port = env.if_set("OPS_PORT", |name| env.whole(name, 0..=u16::MAX))?;
    Ok(port.map(|port| SocketAddr::new(listen.ip(), port)))
}

fn listen_address(env: &Reader<'_>) -> Result<SocketAddr, ConfigError> {
    let port = env.whole("PORT", 0..=u16::MAX)?;
    let host = env.text("HOST")?;
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(&host);
    let mut found = (bare, port).to_socket_addrs().into_iter().flatten();
    found.next().ok_or_else(|| ConfigError {
        variable: "HOST",
        got: reader::quoted(&host),
        takes: "an IP address, or a name that resolves to one".to_owned(),
    })
}

/// The cores this process may use: its affinity and its cgroup's quota, at least one.
fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(MOST_WORKERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(&|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn nothing_set_is_the_documented_default() {
        let config = with(&[]).unwrap_or_else(|error| unreachable!("{error}"));
        assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 5000)));
        assert!(matches!(config.ledger, LedgerPlace::Embedded { .. }));
        assert!(matches!(config.counter, CounterPlace::InProcess));
        assert_eq!(config.connect_attempts.map(NonZeroUsize::get), Some(5));
        assert_eq!(config.request_timeout, Duration::from_secs(5));
    }

    #[test]
    fn every_variable_is_refused_by_its_own_name() {
        for (name, value) in [
            ("PORT", "65536"),
            ("HOST", "no such host"),
            ("BASE_PATH", "visits"),
            ("DB_PORT", "0"),
            ("WORKERS", "0"),
            ("CONNECT_ATTEMPTS", "-1"),
            ("REQUEST_TIMEOUT", "5 minutes"),
            ("IDLE_TIMEOUT", "0"),
            ("MAX_QUEUE", "many"),
            ("LOG_FORMAT", "xml"),
            ("ACCESS_LOG", "yes"),
        ] {
            let vars = [("DB_HOST", "db"), (name, value)];
            let error = with(&vars)
                .err()
                .unwrap_or_else(|| unreachable!("{name}={value} was taken"));
            assert_eq!(error.variable, name);
            assert!(error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_in_an_error() {
        for (name, value) in [
            ("DATABASE_URL", "postgres://user:s3cret@host:notaport/db"),
            ("DATABASE_URL", "host=h password=s3cret nonsense=1"),
            (
                "DATABASE_URL",
                "postgres://user:s3cret@host/db?sslmode=nonsense",
            ),
            ("REDIS_URL", "redis://:s3cret@host:notaport"),
            ("REDIS_URL", "rediss://:s3cret@host#nonsense"),
            ("REDIS_URL", "s3cret"),
        ] {
            let error = with(&[(name, value)])
                .err()
                .unwrap_or_else(|| unreachable!("{name} was taken"));
            assert_eq!(error.variable, name);
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}

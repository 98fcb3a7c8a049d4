//! The environment, read and validated once: every setting of visitas, its default and what it
//! takes.

mod parameters;
mod reader;
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

/// One environment variable, as `--help` and the README show it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What holds when it is unset or empty.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default,
        meaning,
    }
}

/// Every variable that visitas reads. No other one changes what it does.
pub const VARIABLES: &[Variable] = &[
    variable("HOST", "0.0.0.0", "address or name to listen on"),
    variable("PORT", "5000", "TCP port to listen on (0: any free one)"),
    variable(
        "OPS_PORT",
        "unset: on PORT",
        "TCP port for /metrics, /livez and /readyz, which are then not on PORT",
    ),
    variable(
        "DB_HOST",
        "unset: embedded store",
        "PostgreSQL host, or the folder of its Unix socket",
    ),
    variable("DB_PORT", "5432", "PostgreSQL port"),
    variable("DB_USER", "user_app", "PostgreSQL role"),
    variable("DB_PASSWORD", "unset", "its password"),
    variable("DB_NAME", "desafio3_db", "PostgreSQL database"),
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
    variable("REDIS_PORT", "6379", "Redis port"),
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
    variable("DATA_DIR", "./data", "folder of the embedded store"),
    variable(
        "KEEP_ROWS",
        "for ever",
        "delete rows older than this (90d, 12h); the total still counts them",
    ),
    variable(
        "WORKERS",
        "cores the process may use",
        "coroutine workers; each four share a lane",
    ),
    variable(
        "CONNECT_ATTEMPTS",
        "5",
        "tries to reach the ledger at start, then exit 1 (0: for ever)",
    ),
    variable("CONNECT_INTERVAL", "5s", "time between two of them"),
    variable(
        "REQUEST_TIMEOUT",
        "5s",
        "a visit's deadline, from its arrival to its answer",
    ),
    variable(
        "HEADER_TIMEOUT",
        "10s",
        "time a request's head may take to arrive, and its body, and answers to be read",
    ),
    variable(
        "IDLE_TIMEOUT",
        "60s",
        "time a connection may stay without a request",
    ),
    variable(
        "MAX_CONNECTIONS",
        "16384",
        "open connections; above, the longest idle one is closed, or 503",
    ),
    variable(
        "MAX_QUEUE",
        "65536",
        "visits that wait for a commit; above: 503",
    ),
    variable(
        "VISITS_PER_CLIENT",
        "unset: any number",
        "visits that one address may make, as 60/1m; above: 429",
    ),
    variable(
        "TRUSTED_PROXIES",
        "unset: none",
        "addresses and networks whose Forwarded, X-Forwarded-For or PROXY header is believed",
    ),
    variable(
        "DRAIN_DELAY",
        "0",
        "time after SIGTERM in which connections are still accepted, with /readyz at 503",
    ),
    variable(
        "DRAIN_TIMEOUT",
        "10s",
        "time to finish what was accepted, after SIGTERM or SIGINT",
    ),
    variable("LOG_FORMAT", "text", "text or json"),
    variable("ACCESS_LOG", "off", "on: one log line a request"),
];

/// A line for each variable: its name, its meaning and, in brackets, its default.
pub fn describe_variables() -> String {
    let line = |v: &Variable| format!("  {:<18} {} [{}]\n", v.name, v.meaning, v.default);
    VARIABLES.iter().map(line).collect()
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `2026-01-31T12:00:00.000Z INFO what happened`
    Text,
    /// One JSON object a line.
    Json,
}

/// Every setting, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to listen for `/metrics`, `/livez` and `/readyz`, instead of there.
    pub ops: Option<SocketAddr>,
    /// Where the rows live.
    pub ledger: LedgerPlace,
    /// Where the fast counter lives.
    pub counter: CounterPlace,
    /// Coroutine workers, and so lanes.
    pub workers: usize,
    /// Tries to reach each store at start; none: for ever.
    pub connect_attempts: Option<NonZeroUsize>,
    /// Time between two of them.
    pub connect_interval: Duration,
    /// A visit's deadline, arrival to answer.
    pub request_timeout: Duration,
    /// Time a request's head may take to arrive, from its first byte; again its body; again answers
    /// to be taken.
    pub header_timeout: Duration,
    /// Time a connection may stay without a request.
    pub idle_timeout: Duration,
    /// Open connections at most.
    pub max_connections: usize,
    /// Visits that wait for a commit at most, over all lanes.
    pub max_queue: usize,
    /// How long rows are kept; `None`: for ever.
    pub keep_rows: Option<Duration>,
    /// Visits that one address may make.
    pub visits_per_client: Option<Rate>,
    /// Who is believed when it tells a client's address.
    pub trusted_proxies: Networks,
    /// Time to accept connections still, once told to stop.
    pub drain_delay: Duration,
    /// Time to finish what was accepted once told to stop.
    pub drain_timeout: Duration,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// A variable that cannot be used: which one, what it holds, what it takes. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable's name.
    pub variable: &'static str,
    /// What it holds, quoted, or a description of it where it may hold a password.
    pub got: String,
    /// What it takes.
    pub takes: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: got {}; it takes {}",
            self.variable, self.got, self.takes
        )
    }
}

impl std::error::Error for ConfigError {}

/// The longest time any timeout may be set to. Longer ones are typing errors (milliseconds for
/// seconds).
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest deadline: the clock that enforces them ticks every 50 ms, so less would mean
/// nothing.
const SHORTEST: Duration = Duration::from_millis(50);
/// Rows that are deleted sooner than they are seen are of no use.
const SHORTEST_KEPT: Duration = Duration::from_secs(1);
/// A thousand years: more is a typing error.
const LONGEST_KEPT: Duration = Duration::from_secs(365_000 * 24 * 60 * 60);
/// Lanes share two cores' worth of stores; more than this is a typing error.
const MOST_WORKERS: usize = 1024;
/// Each connection takes a descriptor and two memory mappings; Linux allows neither without bound.
const MOST_CONNECTIONS: usize = 1_000_000;
/// A waiting visit takes under 100 bytes, so this is about a gigabyte.
const MOST_QUEUED: usize = 10_000_000;

impl Config {
    /// Reads the process's own environment.
    ///
    /// # Errors
    /// The first variable that cannot be used.
    pub fn from_env() -> Result<Config, ConfigError> {
        Config::from_lookup(&|name| std::env::var_os(name))
    }

    /// Reads an environment given as a function from a variable's name to its value.
    ///
    /// # Errors
    /// The first variable that cannot be used.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let env = Reader::new(lookup);
        let listen = listen_address(&env)?;
        Ok(Config {
            listen,
            ops: ops_address(&env, listen)?,
            ledger: stores::ledger(&env)?,
            counter: stores::counter(&env)?,
            workers: env
                .whole("WORKERS", 1..=MOST_WORKERS)?
                .unwrap_or_else(cores),
            connect_attempts: NonZeroUsize::new(
                env.whole("CONNECT_ATTEMPTS", 0..=1_000_000)?.unwrap_or(5),
            ),
            connect_interval: env
                .duration("CONNECT_INTERVAL", Duration::ZERO..=LONGEST)?
                .unwrap_or(Duration::from_secs(5)),
            request_timeout: env
                .duration("REQUEST_TIMEOUT", SHORTEST..=LONGEST)?
                .unwrap_or(Duration::from_secs(5)),
            header_timeout: env
                .duration("HEADER_TIMEOUT", SHORTEST..=LONGEST)?
                .unwrap_or(Duration::from_secs(10)),
            idle_timeout: env
                .duration("IDLE_TIMEOUT", SHORTEST..=LONGEST)?
                .unwrap_or(Duration::from_secs(60)),
            max_connections: env
                .whole("MAX_CONNECTIONS", 1..=MOST_CONNECTIONS)?
                .unwrap_or(16_384),
            max_queue: env.whole("MAX_QUEUE", 1..=MOST_QUEUED)?.unwrap_or(65_536),
            keep_rows: env.duration("KEEP_ROWS", SHORTEST_KEPT..=LONGEST_KEPT)?,
            visits_per_client: env.rate("VISITS_PER_CLIENT")?,
            trusted_proxies: env.networks("TRUSTED_PROXIES")?,
            drain_delay: env
                .duration("DRAIN_DELAY", Duration::ZERO..=LONGEST)?
                .unwrap_or(Duration::ZERO),
            drain_timeout: env
                .duration("DRAIN_TIMEOUT", Duration::ZERO..=LONGEST)?
                .unwrap_or(Duration::from_secs(10)),
            log_format: env
                .choice(
                    "LOG_FORMAT",
                    &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                )?
                .unwrap_or(LogFormat::Text),
            access_log: env
                .choice("ACCESS_LOG", &[("off", false), ("on", true)])?
                .unwrap_or(false),
        })
    }
}

/// Only where `/readyz` is, for a check of a server that runs with the same environment.
///
/// # Errors
/// When `HOST`, `PORT` or `OPS_PORT` cannot be used.
pub fn readyz_from_env() -> Result<SocketAddr, ConfigError> {
    let env = Reader::new(&|name| std::env::var_os(name));
    let listen = listen_address(&env)?;
    Ok(ops_address(&env, listen)?.unwrap_or(listen))
}

fn ops_address(env: &Reader<'_>, listen: SocketAddr) -> Result<Option<SocketAddr>, ConfigError> {
    Ok(env
        .whole("OPS_PORT", 0..=u16::MAX)?
        .map(|port| SocketAddr::new(listen.ip(), port)))
}

fn listen_address(env: &Reader<'_>) -> Result<SocketAddr, ConfigError> {
    let port = env.whole("PORT", 0..=u16::MAX)?.unwrap_or(5000);
    let host = env.text("HOST")?.unwrap_or_else(|| "0.0.0.0".to_owned());
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

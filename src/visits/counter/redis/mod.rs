//! The counter in Redis: key `contador_cache`, one `INCRBY` per batch, and in the same round trip
//! one of `contador_cache:NAME` per name in it.

mod address;
mod connection;
mod protocol;

use std::time::{Duration, Instant};

use super::super::ledger::{NamedVisits, OpenError};
use super::super::name::Name;
use super::{CountError, Counted, Counter};
use crate::visits::diagnose::Check;
use crate::visits::store::{Resolver, Secret, Timed};
#[cfg(feature = "tls")]
use crate::visits::tls::Client;
use crate::visits::tls::Tls;
pub use address::{Address, Place};
use connection::Connection;
use protocol::{Error, Reply};

/// The key, as the exercise names it.
const KEY: &str = "contador_cache";

/// A client of one Redis server.
#[derive(Debug)]
pub struct Redis {
    address: Address,
    resolver: Resolver,
    /// For each call, with a reconnection where needed.
    timeout: Duration,
    connection: Option<Connection>,
    used: Instant,
    /// Names in the increments in flight.
    names_in_flight: usize,
    /// This connection's trouble with the key of a name was told in the log.
    warned: bool,
}

/// A connection unused for this long is checked before it carries an increment.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// Time for a connection that no visit waits for: looking the name up, connecting, logging in.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

impl Redis {
    /// A client, not yet connected. No call takes longer than `timeout`.
    pub fn new(address: Address, timeout: Duration) -> Self {
        Redis {
            address,
            resolver: Resolver::new(),
            timeout,
            connection: None,
            used: Instant::now(),
            names_in_flight: 0,
            warned: false,
        }
    }

    /// Connects, creates the key, and proves that an increment works.
    fn connect(&mut self, deadline: Instant) -> Result<Connection, Error> {
        let mut connection = self.log_in(deadline)?;
        connection.ask(&["SET", KEY, "0", "NX"], deadline)?;
        // A dry run: a full server, a read-only replica or a key without a number refuses it too.
        connection.ask(&["INCRBY", KEY, "0"], deadline)?.integer()?;
        Ok(connection)
    }

    /// An error in a sentence that says what to do.
    fn in_words(error: &Error) -> String {
        match error.code() {
            Some("MOVED" | "ASK" | "CLUSTERDOWN") => format!(
                "this is a node of a Redis Cluster, and {KEY} is on another one: \
                 name a server that is no cluster ({error})"
            ),
            Some("READONLY") => {
                format!("this is a replica, which takes no writes: name the primary ({error})")
            }
            Some("WRONGTYPE") => format!("{KEY} is no number there: delete or rename it ({error})"),
            _ if error.to_string().contains("not an integer") => {
                format!("{KEY} is no whole number there: delete or rename it ({error})")
            }
            _ => error.to_string(),
        }
    }

    fn log_in(&mut self, deadline: Instant) -> Result<Connection, Error> {
        let mut connection = self.connect_socket(deadline)?;
        if let Some(Secret(password)) = &self.address.password {
            match &self.address.user {
                Some(user) => connection.ask(&["AUTH", user, password], deadline)?,
                None => connection.ask(&["AUTH", password], deadline)?,
            };
        }
        if self.address.database != 0 {
            let number = self.address.database.to_string();
            connection.ask(&["SELECT", &number], deadline)?;
        }
        Ok(connection)
    }

    /// Connects to the first of the server's addresses that can be reached.
    fn connect_socket(&mut self, deadline: Instant) -> Result<Connection, Error> {
        let (host, port) = match &self.address.place {
            Place::Tcp(host, port) => (host, *port),
            Place::Unix(path) => {
                return Ok(Connection::plain(Timed::over_unix(path, deadline)?));
            }
        };
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut last = None;
        let addresses = self.resolver.resolve(host, limit)?;
        for (index, address) in addresses.iter().enumerate() {
            // Each address gets a share of the time: a silent one must not take all of it.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (addresses.len() - index) as u32;
            let connected = Timed::over_tcp((*address, port).into(), now + share);
            match connected.and_then(|socket| secure(socket, self.address.tls.as_ref(), host)) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .unwrap_or_else(|| std::io::ErrorKind::NotFound.into())
            .into())
    }

    /// The answer about a name's key. What the server refuses there, such as a key without a number,
    /// must not end the counting of all others.
    fn of_a_name(&mut self, answer: Result<Option<i64>, Error>) -> Result<Option<i64>, Error> {
        let Err(error) = &answer else { return answer };
        if error.code().is_none() {
            return answer;
        }
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("Redis does not count all names: {error}; the keys are {KEY}:NAME");
        }
        Ok(None)
    }

    /// Puts a connection back on which every reply was read.
    fn keep(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.used = Instant::now();
    }

    /// Takes the connection out. An unused one is checked, and replaced where the server has closed
    /// it: an increment sent into a closed connection would be in doubt.
    fn fresh(&mut self, deadline: Instant) -> Result<Connection, Error> {
        let rested = self.used.elapsed() > STALE_AFTER;
        match self.connection.take() {
            Some(kept) if !rested || kept.is_alive() => Ok(kept),
            _ => self.connect(deadline),
        }
    }
}

/// The connection, encrypted where the settings ask for it. Reads the files anew.
#[cfg(feature = "tls")]
fn secure(socket: Timed, tls: Option<&Tls>, host: &str) -> std::io::Result<Connection> {
    let Some(tls) = tls else {
        return Ok(Connection::plain(socket));
    };
    let client = Client::new(tls, host, &[]).map_err(std::io::Error::other)?;
    Connection::encrypted(socket, client)
}

/// Nothing is encrypted in a build without TLS; the configuration refuses to ask for it.
#[cfg(not(feature = "tls"))]
fn secure(socket: Timed, _: Option<&Tls>, _: &str) -> std::io::Result<Connection> {
    Ok(Connection::plain(socket))
}

/// The key of a name's counter.
fn key_of(name: &Name) -> String {
    format!("{KEY}:{name}")
}

fn not_sent(error: Error) -> CountError {
    CountError::NotSent(Redis::in_words(&error))
}

fn unknown(error: Error) -> CountError {
    CountError::Unknown(Redis::in_words(&error))
}

impl Counter for Redis {
    fn open(&mut self) -> Result<(), OpenError> {
        self.connection = None;
        let connection = self
            .connect(Instant::now() + OPEN_TIMEOUT)
            .map_err(|error| OpenError::Transient(Redis::in_words(&error)))?;
        self.keep(connection);
        self.warned = false;
        Ok(())
    }

    fn add(&mut self, visits: u64, names: &[NamedVisits]) -> Result<(), CountError> {
        let deadline = Instant::now() + self.timeout;
        let mut connection = self.fresh(deadline).map_err(not_sent)?;
        let mut commands = Vec::with_capacity(64 * (1 + names.len()));
        protocol::append(&mut commands, &["INCRBY", KEY, &visits.to_string()]);
        for NamedVisits { name, visits } in names {
            let words = ["INCRBY", &key_of(name), &visits.to_string()];
            protocol::append(&mut commands, &words);
        }
        connection.send(&commands, deadline).map_err(unknown)?;
        self.connection = Some(connection);
        self.names_in_flight = names.len();
        Ok(())
    }

    fn answer(&mut self) -> Result<Counted, CountError> {
        let connection = self.connection.take();
        let mut connection =
            connection.ok_or_else(|| CountError::Unknown("not connected".to_owned()))?;
        let mut next = || connection.receive().and_then(Reply::integer);
        let number = next().map_err(unknown)?;
        let names = std::mem::take(&mut self.names_in_flight);
        let names = (0..names).map(|_| self.of_a_name(next().map(Some)));
        let names = names.collect::<Result<_, _>>().map_err(unknown)?;
        self.keep(connection);
        Ok((number, names))
    }

    fn read(&mut self) -> Result<i64, CountError> {
        let deadline = Instant::now() + self.timeout;
        let mut connection = self.fresh(deadline).map_err(not_sent)?;
        let reply = connection.ask(&["GET", KEY], deadline);
        let number = reply.and_then(number).map_err(unknown)?;
        self.keep(connection);
        Ok(number)
    }

    fn read_names(&mut self, names: &[Name]) -> Result<Vec<Option<i64>>, CountError> {
        let deadline = Instant::now() + self.timeout;
        let mut connection = self.fresh(deadline).map_err(not_sent)?;
        let mut commands = Vec::new();
        for name in names {
            protocol::append(&mut commands, &["GET", &key_of(name)]);
        }
        connection.send(&commands, deadline).map_err(unknown)?;
        let numbers = names.iter().map(|_| {
            let reply = connection.receive();
            self.of_a_name(reply.map(|reply| number(reply).ok()))
        });
        let numbers = numbers.collect::<Result<_, _>>().map_err(unknown)?;
        self.keep(connection);
        Ok(numbers)
    }
}

/// What `GET` of a counter says. The next increment begins a missing key at 0.
fn number(reply: Reply) -> Result<i64, Error> {
    match reply.text()? {
        Some(text) => text.parse().map_err(|_| Error::NoNumber),
        None => Ok(0),
    }
}

/// `visitas check` for Redis. It changes nothing.
#[cold]
pub fn diagnose(address: &Address, timeout: Duration) -> Vec<Check> {
    let began = Instant::now();
    let deadline = began + timeout;
    let mut connection = match Redis::new(address.clone(), timeout).log_in(deadline) {
        Ok(connection) => connection,
        Err(error) => {
            let todo = "start Redis there, or correct REDIS_HOST, REDIS_PORT, REDIS_PASSWORD, \
                        REDIS_TLS or REDIS_URL";
            return vec![Check::fails("Redis", Redis::in_words(&error), todo)];
        }
    };
    let took = began.elapsed();
    // Without an answer the checks below say so.
    let server = connection.ask(&["INFO"], deadline).and_then(Reply::text);
    let server = server.ok().flatten().unwrap_or_default();
    let version = server
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap_or("of unknown version");
    let mut checks = vec![Check::fine(
        "Redis",
        format!("{version}, connected in {took:.1?}"),
    )];
    let encryption = connection.encryption();
    checks.push(Check::fine(
        "its encryption",
        encryption.unwrap_or_else(|| "none (REDIS_TLS)".to_owned()),
    ));
    let advice = "let this user SET, INCRBY and GET that key, and let it hold a whole number";
    let count = connection
        .ask(&["GET", KEY], deadline)
        .and_then(Reply::text);
    let count = match count {
        Ok(None) => Ok("not there yet: it begins at 0".to_owned()),
        // What refuses an increment refuses this one too, which changes nothing.
        Ok(Some(_)) => connection
            .ask(&["INCRBY", KEY, "0"], deadline)
            .and_then(Reply::integer)
            .map(|count| format!("{KEY} is {count}")),
        Err(error) => Err(error),
    };
    checks.push(match count {
        Ok(found) => Check::fine("its counter", found),
        Err(error) => Check::fails("its counter", Redis::in_words(&error), advice),
    });
    if server.contains("role:slave") {
        checks.push(Check::fails(
            "its role",
            "a replica, which takes no writes",
            "name the primary",
        ));
    }
    checks
}

//! The counter in Redis: key `contador_cache`, one `INCRBY` a batch.

use std::time::{Duration, Instant};

use redis::{Client, Connection, ConnectionInfo, RedisError};

use super::super::ledger::OpenError;
use super::Counter;
use crate::visits::survey::Finding;

/// The key, as the exercise names it.
const KEY: &str = "contador_cache";

/// A client of one Redis server.
pub struct Redis {
    info: ConnectionInfo,
    /// For connecting, and for each answer.
    timeout: Duration,
    connection: Option<Connection>,
    used: Instant,
}

/// A connection that rested this long is asked whether it still works before it carries an increment.
const STALE_AFTER: Duration = Duration::from_millis(500);

impl Redis {
    /// A client, not yet connected. No call takes much longer than `timeout`.
    pub fn new(info: ConnectionInfo, timeout: Duration) -> Self {
        Redis { info, timeout, connection: None, used: Instant::now() }
    }

    fn connect(&self) -> Result<Connection, RedisError> {
        let client = Client::open(self.info.clone())?;
        let mut connection = client.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        // A write, so that it also proves that the server takes any: a full one or a read-only replica refuses it.
        redis::cmd("SET").arg(KEY).arg(0).arg("NX").query::<()>(&mut connection)?;
        Ok(connection)
    }

    /// Runs a command whose answer is a number. Anything that leaves the connection in doubt ends it.
    fn number(&mut self, command: &redis::Cmd) -> Result<i64, String> {
        let result = self.fresh().and_then(|connection| command.query(connection));
        self.used = Instant::now();
        result.map_err(|error| {
            // The next answer on this connection might belong to this command.
            self.connection = None;
            error.to_string()
        })
    }

    /// The connection; after a rest it is asked whether it still works, and made anew if not. Nothing is lost by that,
    /// while an increment sent into a connection that the server has closed would have an unknown fate.
    fn fresh(&mut self) -> Result<&mut Connection, RedisError> {
        let rested = self.used.elapsed() > STALE_AFTER;
        let mut kept = self.connection.take();
        if rested {
            kept = kept.and_then(|mut connection| {
                redis::cmd("PING").query::<()>(&mut connection).is_ok().then_some(connection)
            });
        }
        let connection = kept.map_or_else(|| self.connect(), Ok)?;
        Ok(self.connection.insert(connection))
    }
}

impl Counter for Redis {
    fn open(&mut self) -> Result<(), OpenError> {
        self.connection = None;
        self.connection = Some(self.connect().map_err(|error| OpenError::Again(error.to_string()))?);
        self.used = Instant::now();
        Ok(())
    }

    fn add(&mut self, visits: u64) -> Result<i64, String> {
        self.number(redis::cmd("INCRBY").arg(KEY).arg(visits))
    }

    fn read(&mut self) -> Result<i64, String> {
        self.number(redis::cmd("GET").arg(KEY))
    }
}

/// What a person who sets the server up should know of it. Nothing is written.
#[cold]
pub fn survey(info: &ConnectionInfo, timeout: Duration) -> Vec<Finding> {
    let began = Instant::now();
    let connected = Client::open(info.clone()).and_then(|client| client.get_connection_with_timeout(timeout));
    let mut connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            let todo = "start Redis there, or correct REDIS_HOST, REDIS_PORT, REDIS_PASSWORD or REDIS_URL";
            return vec![Finding::fails("Redis", error.to_string(), todo)];
        }
    };
    let took = began.elapsed();
    // Without an answer the findings below say so, each for itself.
    let _ = connection.set_read_timeout(Some(timeout));
    let server: String = redis::cmd("INFO").query(&mut connection).unwrap_or_default();
    let version = server.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("of unknown version");
    let mut findings = vec![Finding::fine("Redis", format!("{version}, connected in {took:.1?}"))];
    findings.push(match redis::cmd("GET").arg(KEY).query::<Option<String>>(&mut connection) {
        Ok(Some(count)) => Finding::fine("its counter", format!("{KEY} is {count}")),
        Ok(None) => Finding::fine("its counter", "not there yet: it begins at 0"),
        Err(error) => {
            Finding::fails("its counter", error.to_string(), "let this user read and write that key, a number")
        }
    });
    if server.contains("role:slave") {
        findings.push(Finding::fails("its role", "a replica, which takes no writes", "name the primary"));
    }
    findings
}

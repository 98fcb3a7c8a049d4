//! The counter in Redis: key `contador_cache`, one `INCRBY` a batch.

use std::time::Duration;

use redis::{Client, Connection, ConnectionInfo, RedisError};

use super::super::ledger::OpenError;
use super::Counter;

/// The key, as the exercise names it.
const KEY: &str = "contador_cache";

/// A client of one Redis server.
pub struct Redis {
    info: ConnectionInfo,
    /// For connecting, and for each answer.
    timeout: Duration,
    connection: Option<Connection>,
}

impl Redis {
    /// A client, not yet connected. No call takes much longer than `timeout`.
    pub fn new(info: ConnectionInfo, timeout: Duration) -> Self {
        Redis { info, timeout, connection: None }
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

    fn number(&mut self, command: &redis::Cmd) -> Result<i64, String> {
        let Some(connection) = &mut self.connection else { return Err("not connected".to_owned()) };
        command.query(connection).map_err(|error| {
            // After an error the next answer on this connection might belong to this command.
            self.connection = None;
            error.to_string()
        })
    }
}

impl Counter for Redis {
    fn open(&mut self) -> Result<(), OpenError> {
        self.connection = None;
        self.connection = Some(self.connect().map_err(|error| OpenError::Again(error.to_string()))?);
        Ok(())
    }

    fn add(&mut self, visits: u64) -> Result<i64, String> {
        self.number(redis::cmd("INCRBY").arg(KEY).arg(visits))
    }

    fn read(&mut self) -> Result<i64, String> {
        self.number(redis::cmd("GET").arg(KEY))
    }
}

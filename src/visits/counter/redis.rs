//! The counter in Redis: key `contador_cache`, one `INCRBY` a batch.

mod link;

use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, RedisError, RedisResult};

use super::super::ledger::OpenError;
use super::super::resolver::Resolver;
use super::{CountError, Counter};
use crate::visits::survey::Finding;
use link::Link;

/// The key, as the exercise names it.
const KEY: &str = "contador_cache";

/// A client of one Redis server.
#[derive(Debug)]
pub struct Redis {
    info: ConnectionInfo,
    resolver: Resolver,
    /// For each call, connecting included where it must.
    timeout: Duration,
    link: Option<Link>,
    used: Instant,
}

/// A connection that rested this long is looked at before it carries an increment.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// Time for a connection that no visit waits for: looking the name up, connecting, logging in.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

impl Redis {
    /// A client, not yet connected. No call takes longer than `timeout`.
    pub fn new(info: ConnectionInfo, timeout: Duration) -> Self {
        Redis { info, resolver: Resolver::new(), timeout, link: None, used: Instant::now() }
    }

    /// Connects, makes the key, and proves that it could be increased.
    fn connect(&mut self, deadline: Instant) -> RedisResult<Link> {
        let mut link = self.log_in(deadline)?;
        link.ask::<()>(redis::cmd("SET").arg(KEY).arg(0).arg("NX"), deadline)?;
        // A rehearsal: what would refuse an increment (a full server, a read-only replica, a key that holds no number)
        // refuses this one too.
        link.ask::<i64>(&increment(0), deadline)?;
        Ok(link)
    }

    fn log_in(&mut self, deadline: Instant) -> RedisResult<Link> {
        let mut link = self.reach(deadline)?;
        let settings = self.info.redis_settings();
        if let Some(password) = settings.password() {
            let mut command = redis::cmd("AUTH");
            if let Some(user) = settings.username() {
                command.arg(user);
            }
            link.ask::<()>(command.arg(password), deadline)?;
        }
        if settings.db() != 0 {
            link.ask::<()>(redis::cmd("SELECT").arg(settings.db()), deadline)?;
        }
        Ok(link)
    }

    /// Connects to the first of the server's addresses that can be reached.
    fn reach(&mut self, deadline: Instant) -> RedisResult<Link> {
        let (host, port) = match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => (host, *port),
            ConnectionAddr::Unix(path) => return Ok(Link::over_unix(path, deadline)?),
            other => {
                return Err(RedisError::from((redis::ErrorKind::InvalidClientConfig, "no way to", other.to_string())));
            }
        };
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut last = None;
        let addresses = self.resolver.resolve(host, limit)?;
        for (index, address) in addresses.iter().enumerate() {
            // Each address gets its share of the time that is left, or one that is silent would take all of it.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (addresses.len() - index) as u32;
            match Link::over_tcp(*address, port, now + share) {
                Ok(link) => return Ok(link),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into()).into())
    }

    /// Runs a command. Anything that leaves the connection in doubt ends it.
    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, CountError> {
        let deadline = Instant::now() + self.timeout;
        let mut link = self.fresh(deadline).map_err(|error| CountError::NotSent(error.to_string()))?;
        let answer = link.ask(command, deadline).map_err(|error| CountError::Unknown(error.to_string()))?;
        self.link = Some(link);
        self.used = Instant::now();
        Ok(answer)
    }

    /// The connection, taken out; after a rest it is looked at, and made anew if the server has closed it. Nothing is
    /// lost by that, while an increment sent into a closed connection would have an unknown fate.
    fn fresh(&mut self, deadline: Instant) -> RedisResult<Link> {
        let rested = self.used.elapsed() > STALE_AFTER;
        let kept = self.link.take().filter(|link| !rested || link.is_alive());
        kept.map_or_else(|| self.connect(deadline), Ok)
    }
}

fn increment(visits: u64) -> Cmd {
    let mut command = redis::cmd("INCRBY");
    command.arg(KEY).arg(visits);
    command
}

impl Counter for Redis {
    fn open(&mut self) -> Result<(), OpenError> {
        self.link = None;
        let link = self.connect(Instant::now() + OPEN_TIMEOUT).map_err(|error| OpenError::Again(error.to_string()))?;
        self.link = Some(link);
        self.used = Instant::now();
        Ok(())
    }

    fn add(&mut self, visits: u64) -> Result<i64, CountError> {
        self.ask(&increment(visits))
    }

    fn read(&mut self) -> Result<i64, CountError> {
        // A key that is not there any more is one that the next increment begins at 0.
        self.ask::<Option<i64>>(redis::cmd("GET").arg(KEY)).map(Option::unwrap_or_default)
    }
}

/// What a person who sets the server up should know of it. Nothing is written.
#[cold]
pub fn survey(info: &ConnectionInfo, timeout: Duration) -> Vec<Finding> {
    let began = Instant::now();
    let deadline = began + timeout;
    let mut link = match Redis::new(info.clone(), timeout).log_in(deadline) {
        Ok(link) => link,
        Err(error) => {
            let todo = "start Redis there, or correct REDIS_HOST, REDIS_PORT, REDIS_PASSWORD or REDIS_URL";
            return vec![Finding::fails("Redis", error.to_string(), todo)];
        }
    };
    let took = began.elapsed();
    // Without an answer the findings below say so, each for itself.
    let server: String = link.ask(&redis::cmd("INFO"), deadline).unwrap_or_default();
    let version = server.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("of unknown version");
    let mut findings = vec![Finding::fine("Redis", format!("{version}, connected in {took:.1?}"))];
    findings.push(match link.ask::<Option<String>>(redis::cmd("GET").arg(KEY), deadline) {
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

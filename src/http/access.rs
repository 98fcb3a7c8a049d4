//! What the access log gets to know of a request.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::request::{MAX_LINE, Request};
use super::status::Status;

/// One answered request. Its strings are the client's: escape them.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The client's address; a proxy's, behind one that is not trusted.
    pub client: IpAddr,
    /// `-` where there was none.
    pub method: &'a str,
    /// As it was sent; `-` where there was none.
    pub target: &'a str,
    /// The User-Agent field.
    pub agent: Option<&'a str>,
    pub status: Status,
    /// Bytes of the answer, head and body.
    pub bytes: usize,
    /// From the request's first byte to its last.
    pub arrival: Duration,
    /// From the request's last byte to its answer.
    pub took: Duration,
}

/// Takes each answered request.
pub type AccessLog = fn(&Access<'_>);

/// What is kept of a request until it is answered.
pub(super) struct Logged {
    log: AccessLog,
    client: IpAddr,
    method: String,
    target: String,
    agent: Option<String>,
    arrival: Duration,
    arrived: Instant,
}

impl Logged {
    pub(super) fn new(log: AccessLog, client: IpAddr, request: &Request<'_>) -> Self {
        let agent = request
            .fields("user-agent")
            .next()
            .map(|agent| String::from_utf8_lossy(agent).into_owned());
        Logged {
            log,
            client,
            method: request.method.name().to_owned(),
            target: request.target.to_owned(),
            agent,
            arrival: Duration::ZERO,
            arrived: Instant::now(),
        }
    }

    /// What can be said of a rejected request: its first line, if that much came.
    pub(super) fn rejected(log: AccessLog, client: IpAddr, bytes: &[u8]) -> Self {
        let line = bytes
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        let line = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]);
        let mut words = line
            .splitn(3, ' ')
            .map(|word| if word.is_empty() { "-" } else { word });
        let mut next = || words.next().unwrap_or("-").to_owned();
        Logged {
            log,
            client,
            method: next(),
            target: next(),
            agent: None,
            arrival: Duration::ZERO,
            arrived: Instant::now(),
        }
    }

    /// The request's last byte is here, and its first one came `arrival` ago.
    pub(super) fn arrived(&mut self, arrival: Duration) {
        (self.arrival, self.arrived) = (arrival, Instant::now());
    }

    pub(super) fn report(&self, status: Status, bytes: usize) {
        (self.log)(&Access {
            client: self.client,
            method: &self.method,
            target: &self.target,
            agent: self.agent.as_deref(),
            status,
            bytes,
            arrival: self.arrival,
            took: self.arrived.elapsed(),
        });
    }
}

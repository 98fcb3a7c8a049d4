//! Bytes <-> requests: listener, connection, request, response. Knows nothing of what is served.
//!
//! Each connection has a coroutine, on the worker that watches its socket. A [`Service`] first
//! plans what a request asks for, from the request alone. Then it performs that, which may wait.

mod access;
mod address;
mod body;
mod budget;
mod buffers;
mod connection;
mod entry;
mod feed;
mod follow;
mod framing;
mod held;
mod listener;
mod method;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/oracles/http.rs"]
pub mod oracle;
mod phase;
mod proxied;
mod refuse;
mod registry;
mod reject;
mod request;
mod response;
mod socket;
mod stats;
mod status;
mod target;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use access::{Access, AccessLog};
pub use address::Networks;
pub use feed::Feed;
use held::HeldMemory;
pub use method::Method;
use phase::Shortage;
use registry::Registry;
pub use request::Request;
pub use response::{Answer, Answered};
pub use stats::Stats;
pub use status::Status;

/// What the server answers with.
pub trait Service: Send + Sync + 'static {
    /// What a connection keeps from one request to the next.
    type Session;
    /// What a request asks for.
    type Task;

    /// A session for the calling coroutine, on that worker.
    fn session(&self, worker: usize) -> Self::Session;

    /// What the request of the client at that address asks for. Must not wait: the request's bytes
    /// are the worker's, not the connection's.
    fn plan(&self, request: &Request<'_>, client: IpAddr) -> Plan<Self::Task>;

    /// Does the task and answers.
    fn perform(
        &self,
        session: &mut Self::Session,
        task: Self::Task,
        answer: Answer<'_>,
    ) -> Answered;
}

/// A task, and what the connection must know of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan<T> {
    pub task: T,
    /// What its answer is counted as.
    pub kind: Kind,
    /// [`Service::perform`] waits for others before it answers.
    pub waits: bool,
}

/// What an answer is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Visit = 0,
    /// Health and metrics.
    Probe = 1,
    /// A browser that fetches ahead of a visit.
    Prefetch = 2,
    Other = 3,
}

/// Limits and deadlines of the server.
#[derive(Debug, Clone)]
pub struct Options {
    pub workers: usize,
    /// Connections that are served at a time.
    pub max_connections: usize,
    /// Connections beyond these that get a 503; more are closed without an answer.
    pub max_refusals: usize,
    /// Bytes that unfinished requests and untaken answers may hold.
    pub max_held: usize,
    /// Whether there is memory for one more connection's stack.
    pub has_stack: fn() -> bool,
    /// For a request's head to arrive, from its first byte; again for its body; again for the
    /// client to take the answers.
    pub header_timeout: Duration,
    /// For the next request to begin.
    pub idle_timeout: Duration,
    /// Whose word on a client's address is believed.
    pub trusted_proxies: Networks,
    pub access_log: Option<AccessLog>,
}

/// The share of the connections that a tick evicts while memory is scarce: one in eight.
const EVICTED_SHARE: usize = 8;

/// What every connection shares.
struct Shared<S> {
    service: Arc<S>,
    options: Options,
    registry: Registry,
    stats: Arc<Stats>,
    memory: HeldMemory,
}

/// A running server. It goes on when this is dropped.
pub struct Server<S> {
    shared: Arc<Shared<S>>,
}

/// Binds the address, with room for as many pending connections as the system grants.
///
/// # Errors
/// When the address is not this machine's, or is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listener::bind(address)
}

impl<S: Service> Server<S> {
    /// Starts to accept on `listener`. The owner of the clock calls [`Server::tick`] from then on.
    ///
    /// # Errors
    /// When the listener's thread cannot be started.
    pub fn start(
        listener: TcpListener,
        options: Options,
        service: Arc<S>,
        stats: Arc<Stats>,
    ) -> io::Result<Server<S>> {
        let registry = Registry::new(options.workers, Arc::clone(&stats), options.header_timeout);
        let memory = HeldMemory::new(options.max_held);
        let shared = Arc::new(Shared {
            service,
            options,
            registry,
            stats,
            memory,
        });
        listener::start(listener, &shared)?;
        Ok(Server { shared })
    }

    /// Ends the connections that are overdue, and evicts some while memory is scarce.
    pub fn tick(&self) {
        let Shared {
            registry, memory, ..
        } = &*self.shared;
        if memory.take_scarce() {
            registry.evict((registry.open() / EVICTED_SHARE).max(1), Shortage::Memory);
        } else {
            registry.sweep();
        }
    }

    /// Sets how many bytes the kernel holds for connections out of this process's memory.
    pub fn set_kernel_bytes(&self, bytes: usize) {
        self.shared.memory.set_kernel(bytes);
    }

    /// Accepts no more connections and closes the idle ones; the others close after their current
    /// request.
    pub fn drain(&self) {
        self.shared.registry.drain();
    }

    /// Closes every connection that is not being served, whatever it waits for.
    pub fn drain_now(&self) {
        self.shared.registry.close_all_but_served();
    }

    /// Whether a draining server has no connection left, and none can come.
    pub fn is_done(&self) -> bool {
        self.shared.registry.is_done()
    }
}

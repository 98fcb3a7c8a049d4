//! Bytes <-> requests: listener, connection, request, response. Knows nothing of what is served.
//!
//! One coroutine a connection, on the worker that also watches its socket. A [`Service`] decides
//! from the request alone what it asks for ([`Service::plan`]), and then does it
//! ([`Service::perform`]), which may wait.

mod address;
mod body;
mod budget;
mod buffers;
mod connection;
mod feed;
mod framing;
mod listener;
mod proxied;
#[cfg(any(test, fuzzing))]
pub mod reference;
mod registry;
mod reject;
mod request;
mod response;
mod socket;
mod stats;
mod target;
mod turn;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use address::Networks;
use budget::Budget;
pub use feed::Feed;
use registry::{Registry, Shortage};
pub use request::{Method, Request};
pub use response::{Answer, Status};
pub use stats::Stats;

/// What the server answers with.
pub trait Service: Send + Sync + 'static {
    /// What a connection keeps from one request to the next.
    type Session;
    /// What a request asks for.
    type Task;

    /// A session for the calling coroutine, which only ever runs on worker `worker`.
    fn session(&self, worker: usize) -> Self::Session;

    /// What the request asks for, by the client at that address. Must not wait: the request's bytes
    /// are the worker's, not the connection's.
    fn plan(&self, request: &Request<'_>, client: IpAddr) -> Self::Task;

    /// What the answer is counted as.
    fn kind(&self, task: &Self::Task) -> Kind;

    /// Whether [`Service::perform`] will wait for others before it answers.
    fn waits(&self, task: &Self::Task) -> bool;

    /// Does it, and answers.
    fn perform(&self, session: &mut Self::Session, task: Self::Task, answer: Answer<'_>);
}

/// What an answer is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer to a visit.
    Visit = 0,
    /// The answer to who only asks whether the process is well.
    Probe = 1,
    /// The answer to a browser that fetches ahead of a visit.
    Prefetch = 2,
    /// Any other.
    Other = 3,
}

/// Limits and deadlines of the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Coroutine workers.
    pub workers: usize,
    /// Open connections that are served at most.
    pub max_connections: usize,
    /// Connections beyond these that are told so; any more are closed without a word.
    pub max_refusals: usize,
    /// Bytes that unfinished requests, and answers that are not taken, may hold.
    pub max_held: usize,
    /// Whether there is memory for one more connection's stack.
    pub has_stack: fn() -> bool,
    /// For a request's head to arrive, from its first byte; again for its body; and for answers to
    /// be taken.
    pub header_timeout: Duration,
    /// For the next request to begin.
    pub idle_timeout: Duration,
    /// Who is believed when it tells a client's address.
    pub trusted_proxies: Networks,
    /// What each request is reported to, when it is to be logged.
    pub access_log: Option<fn(&Access<'_>)>,
}

/// One request that was answered, for the access log.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The client's address; a proxy's, behind one that is not trusted.
    pub client: IpAddr,
    /// The request's method: escape it. `-` where there was none.
    pub method: &'a str,
    /// The request's target as it was sent: escape it. `-` where there was none.
    pub target: &'a str,
    /// What the client calls itself: escape it.
    pub agent: Option<&'a str>,
    /// The answer's status.
    pub status: Status,
    /// Bytes of the answer, head and body.
    pub bytes: usize,
    /// From the request's first byte to its last.
    pub arrival: Duration,
    /// From the request's last byte to its answer.
    pub took: Duration,
}

/// The part of the connections, one in so many, that a tick evicts while memory is scarce.
const RELIEF_SHARE: usize = 8;

/// What every connection shares.
struct Shared<S> {
    service: Arc<S>,
    options: Options,
    registry: Registry,
    stats: Arc<Stats>,
    budget: Budget,
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
    /// Starts to accept on `listener`. Whoever owns the clock calls [`Server::tick`] from then on.
    ///
    /// # Errors
    /// When the thread that accepts cannot be started.
    pub fn start(
        listener: TcpListener,
        options: Options,
        service: Arc<S>,
        stats: Arc<Stats>,
    ) -> io::Result<Server<S>> {
        let registry = Registry::new(options.workers, Arc::clone(&stats), options.header_timeout);
        let budget = Budget::new(options.max_held);
        let shared = Arc::new(Shared {
            service,
            options,
            registry,
            stats,
            budget,
        });
        listener::start(listener, &shared)?;
        Ok(Server { shared })
    }

    /// Ends what has passed its deadline, and who holds memory while that is scarce. To be called
    /// at each tick of the clock.
    pub fn tick(&self) {
        let Shared {
            registry, budget, ..
        } = &*self.shared;
        if budget.take_scarce() {
            registry.evict((registry.open() / RELIEF_SHARE).max(1), Shortage::Memory);
        } else {
            registry.sweep();
        }
    }

    /// Tells how many bytes the kernel holds for connections out of the memory that this process is
    /// given.
    pub fn set_kernel_bytes(&self, bytes: usize) {
        self.shared.budget.set_kernel(bytes);
    }

    /// Bytes that connections hold while they wait.
    pub fn held_bytes(&self) -> usize {
        self.shared.budget.held()
    }

    /// Accepts no more connections, closes the idle ones, and the others after the request under
    /// way.
    pub fn drain(&self) {
        self.shared.registry.drain();
    }

    /// Ends every connection that is not being served, whatever it is doing.
    pub fn hurry(&self) {
        self.shared.registry.end_all_but_served();
    }

    /// Whether, while draining, nobody can come any more and nobody is there.
    pub fn is_done(&self) -> bool {
        self.shared.registry.is_done()
    }
}

//! The listener: accepts on its own thread, and starts each connection's coroutine on the worker
//! that watches its socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::phase::Shortage;
use super::refuse::refuse;
use super::{Service, Shared, connection};
use crate::workers;

/// Pending connections to ask for; the system cuts this to `somaxconn` (listen(2)).
const BACKLOG: i32 = 65_535;
/// Bytes that the system buffers for a connection each way. They bound what a client takes that
/// does not read, or sends while nobody reads. Many answers fit, and any accepted body.
const SYSTEM_BUFFER: usize = 128 * 1024;
/// How often the thread checks whether it must stop.
const ACCEPT_TIMEOUT: Duration = Duration::from_millis(50);
/// The first and the longest pause after an error that would come again at once, such as being out
/// of descriptors.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// The most connections evicted at once, and their share of all that are open.
const MAX_EVICTED: usize = 128;
const EVICTED_SHARE: usize = 64;
/// How long the next connection waits for evicted ones to close, and how often that is checked.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(200);
const POLL_INTERVAL: Duration = Duration::from_micros(200);
/// How long the next connection waits for one that can be evicted, and for how long nobody waits
/// after a wait in vain.
const ROOM_TIMEOUT: Duration = Duration::from_millis(20);
const ROOM_RETRY: Duration = Duration::from_millis(100);
/// An accept error that comes within this time of the last one is the same trouble, and not logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections in TIME_WAIT. No two servers can share the port by
    // this.
    socket.set_reuse_address(true)?;
    // Connections inherit these. A buffer's size must be set before a connection is made (tcp(7)).
    socket.set_send_buffer_size(SYSTEM_BUFFER)?;
    socket.set_recv_buffer_size(SYSTEM_BUFFER)?;
    // Answers are written whole: waiting to fill a segment could only delay them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub(super) fn start<S: Service>(listener: TcpListener, shared: &Arc<Shared<S>>) -> io::Result<()> {
    let options = SockRef::from(&listener);
    // Bounds accept(2) as well (socket(7), SO_RCVTIMEO).
    options.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
    // Connections inherit it: it ends those whose peer takes nothing of what the kernel has queued
    // (tcp(7)).
    options.set_tcp_user_timeout(Some(shared.options.header_timeout))?;
    let acceptor = Acceptor {
        shared: Arc::clone(shared),
        evicted: 0,
        no_room_since: None,
        last_error: None,
        pause: PAUSES.0,
    };
    std::thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || acceptor.run(listener))?;
    Ok(())
}

/// The listener's thread: decides who is served.
struct Acceptor<S> {
    shared: Arc<Shared<S>>,
    /// Evicted connections whose room no other one has taken.
    evicted: usize,
    /// When no connection could be evicted.
    no_room_since: Option<Instant>,
    last_error: Option<Instant>,
    /// The pause after the next accept error.
    pause: Duration,
}

impl<S: Service> Acceptor<S> {
    fn run(mut self, listener: TcpListener) {
        while !self.shared.registry.is_draining() {
            match listener.accept() {
                Ok((socket, peer)) => {
                    self.admit(socket, peer.ip());
                    self.pause = PAUSES.0;
                }
                Err(error) => self.handle(&listener, &error),
            }
        }
        // Clients that connected before the listener stops are accepted.
        if listener.set_nonblocking(true).is_ok() {
            while let Ok((socket, peer)) = listener.accept() {
                self.admit(socket, peer.ip());
            }
        }
        drop(listener);
        self.shared.registry.stopped_listening();
    }

    /// Starts the connection's coroutine, which serves or refuses it.
    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let options = &self.shared.options;
        let most = options.max_connections + options.max_refusals;
        let has_stack = options.has_stack;
        let has_room = self.shared.registry.open() < options.max_connections && has_stack();
        let served = if has_room {
            self.evicted = 0;
            true
        } else {
            let served = self.make_room();
            if !self.waits_until_below(most) || !has_stack() {
                self.shared.stats.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            served
        };
        let shared = Arc::clone(&self.shared);
        let counter = if served {
            &shared.stats.accepted
        } else {
            &shared.stats.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let worker = workers::watching(&socket, shared.options.workers);
        let entry = shared.registry.enter(worker, peer.to_canonical(), !served);
        let started = workers::spawn(worker, move || {
            if served {
                connection::serve(shared, socket, entry);
            } else {
                refuse(&shared, socket, &entry);
            }
        });
        if let Err(error) = started {
            log::error!("cannot start a connection's coroutine: {error}");
        }
    }

    /// Takes the room of a connection that others need less; says whether there was one.
    fn make_room(&mut self) -> bool {
        if self.evicted == 0 {
            self.evicted = self.evict();
        }
        // All are being served, most of them for less than a millisecond. After a wait in vain
        // nobody waits again for a while.
        let may_wait = self
            .no_room_since
            .is_none_or(|at| at.elapsed() > ROOM_RETRY);
        let end = Instant::now() + ROOM_TIMEOUT;
        while self.evicted == 0 && may_wait && Instant::now() < end {
            std::thread::sleep(POLL_INTERVAL);
            if self.shared.registry.open() < self.shared.options.max_connections {
                return true;
            }
            self.evicted = self.evict();
        }
        if self.evicted == 0 {
            self.no_room_since = Some(Instant::now());
            return false;
        }
        self.evicted -= 1;
        true
    }

    /// Waits a moment for evicted connections to close; says whether fewer than `most` are left.
    fn waits_until_below(&self, most: usize) -> bool {
        let registry = &self.shared.registry;
        let end = Instant::now() + EVICTION_TIMEOUT;
        while registry.open() + registry.refusing() >= most {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        true
    }

    fn evict(&self) -> usize {
        let registry = &self.shared.registry;
        let most = (registry.open() / EVICTED_SHARE).clamp(1, MAX_EVICTED);
        registry.evict(most, Shortage::Connections)
    }

    fn handle(&mut self, listener: &TcpListener, error: &io::Error) {
        // Nobody came, or the client left before it was accepted.
        let is_harmless = matches!(
            error.kind(),
            ErrorKind::WouldBlock
                | ErrorKind::TimedOut
                | ErrorKind::Interrupted
                | ErrorKind::ConnectionAborted
        );
        // accept(2) takes a descriptor before it looks for a client: perhaps there is none.
        if is_harmless || !has_client(listener) {
            return;
        }
        let last_error = self.last_error.replace(Instant::now());
        if last_error.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
            log::error!(
                "connections cannot be accepted: {error}; idle ones are closed to make room"
            );
        }
        self.evict();
        std::thread::sleep(self.pause);
        self.pause = (2 * self.pause).min(PAUSES.1);
    }
}

/// Waits for a client as long as accept(2) would; says whether one came.
fn has_client(listener: &TcpListener) -> bool {
    let timeout = PollTimeout::try_from(ACCEPT_TIMEOUT).unwrap_or(PollTimeout::ZERO);
    let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, timeout).is_ok_and(|ready| ready > 0)
}

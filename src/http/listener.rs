//! The listener: accepts on a thread of its own, and starts each connection's coroutine on the
//! worker that watches it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use may::coroutine;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::address::canonical;
use super::registry::Shortage;
use super::{Service, Shared, connection, socket};

/// Pending connections to ask for; the system cuts it to its own limit (listen(2), `somaxconn`).
const BACKLOG: i32 = 65_535;
/// Bytes that the system keeps for a connection each way, so that a client that does not read, or
/// sends while it is not read from, takes no more of the system's memory than this. Many answers
/// fit in it, and any body that is taken.
const SYSTEM_BUFFER: usize = 128 * 1024;
/// How often the thread looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);
/// The first and the longest pause after an error that would come again at once, such as being out
/// of descriptors.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// The most connections that are evicted at once to make room, and their share of all that are
/// open.
const ROOM: usize = 128;
const ROOM_SHARE: usize = 64;
/// How long the next connection waits for evicted ones to be gone, and how often that is looked at.
const LEAVING: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_micros(200);
/// How long the next connection waits for one that can be evicted, and how long nobody waits so
/// after it was in vain.
const PATIENCE: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_millis(100);
/// An error of the same kind within this time is the same trouble still, and not logged again.
const QUIET: Duration = Duration::from_secs(10);

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for old connections in TIME_WAIT; no two servers can share the port
    // by this.
    socket.set_reuse_address(true)?;
    // Connections inherit these. The size of a buffer has to be known before a connection is made
    // (tcp(7)).
    socket.set_send_buffer_size(SYSTEM_BUFFER)?;
    socket.set_recv_buffer_size(SYSTEM_BUFFER)?;
    // Answers are written whole, so waiting to fill a segment could only delay them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub(super) fn start<S: Service>(listener: TcpListener, shared: &Arc<Shared<S>>) -> io::Result<()> {
    let options = SockRef::from(&listener);
    // Bounds accept(2) as well (socket(7), SO_RCVTIMEO).
    options.set_read_timeout(Some(WAIT))?;
    // Connections inherit it: what the kernel has queued for a peer that takes nothing ends them
    // (tcp(7)).
    options.set_tcp_user_timeout(Some(shared.options.header_timeout))?;
    let mut door = Door {
        shared: Arc::clone(shared),
        room: 0,
        refused: None,
    };
    std::thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || {
            let mut trouble = Trouble {
                last: None,
                pause: PAUSES.0,
            };
            while !door.shared.registry.is_draining() {
                match listener.accept() {
                    Ok((socket, peer)) => {
                        door.admit(socket, peer.ip());
                        trouble.pause = PAUSES.0;
                    }
                    Err(error) => trouble.handle(&door, &listener, &error),
                }
            }
            // Those who were already connected when the listener stops are accepted.
            if listener.set_nonblocking(true).is_ok() {
                while let Ok((socket, peer)) = listener.accept() {
                    door.admit(socket, peer.ip());
                }
            }
            drop(listener);
            door.shared.registry.stopped_listening();
        })?;
    Ok(())
}

/// Decides who is served.
struct Door<S> {
    shared: Arc<Shared<S>>,
    /// Connections that were ended to make room, and are on their way out.
    room: usize,
    /// When there was none to be ended.
    refused: Option<Instant>,
}

impl<S: Service> Door<S> {
    /// Starts the connection's coroutine.
    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let options = &self.shared.options;
        let most = options.max_connections + options.max_refusals;
        let served =
            if self.shared.registry.open() < options.max_connections && (options.has_stack)() {
                self.room = 0;
                true
            } else {
                let served = self.make_room();
                if !self.waits_until_below(most) || !(self.shared.options.has_stack)() {
                    // Nobody is left to tell it.
                    self.shared.stats.refused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                served
            };
        let shared = &self.shared;
        let counter = if served {
            &shared.stats.accepted
        } else {
            &shared.stats.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let worker = socket::worker_of(&socket, shared.options.workers);
        let place = shared.registry.enter(worker, canonical(peer), !served);
        let task = {
            let shared = Arc::clone(shared);
            move || {
                if served {
                    connection::serve(shared, socket, place, worker);
                } else {
                    connection::refuse(&shared, socket, &place);
                }
            }
        };
        // SAFETY: the coroutine only ever runs on worker `worker` (see socket.rs), so thread-local
        // values it uses are that worker's, and it holds none over a wait. Its stack is as large as
        // `server.rs` sets, with a guard page.
        if let Err(error) = unsafe { coroutine::Builder::new().id(worker).spawn(task) } {
            log::error!("a connection could not be started: {error}");
        }
    }

    /// Takes the place of a connection that others need less; not if there is none.
    fn make_room(&mut self) -> bool {
        if self.room == 0 {
            self.room = self.evict();
        }
        // All are being served. Most are so for less than a millisecond; where they are not, nobody
        // waits for it again.
        let is_calm = self.refused.is_none_or(|at| at.elapsed() > CALM);
        let end = Instant::now() + PATIENCE;
        while self.room == 0 && is_calm && Instant::now() < end {
            std::thread::sleep(LOOK);
            if self.shared.registry.open() < self.shared.options.max_connections {
                return true;
            }
            self.room = self.evict();
        }
        if self.room == 0 {
            self.refused = Some(Instant::now());
        }
        let found = self.room > 0;
        self.room = self.room.saturating_sub(1);
        found
    }

    /// Waits a moment for those that were evicted to be gone; says whether there are fewer than
    /// `most` then.
    fn waits_until_below(&self, most: usize) -> bool {
        let registry = &self.shared.registry;
        let all = || registry.open() + registry.refusing();
        let end = Instant::now() + LEAVING;
        while all() >= most {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn evict(&self) -> usize {
        let registry = &self.shared.registry;
        registry.evict(
            (registry.open() / ROOM_SHARE).clamp(1, ROOM),
            Shortage::Places,
        )
    }
}

/// What the thread does about errors of accept(2).
struct Trouble {
    last: Option<Instant>,
    pause: Duration,
}

impl Trouble {
    fn handle<S: Service>(&mut self, door: &Door<S>, listener: &TcpListener, error: &io::Error) {
        match error.kind() {
            // Nobody came; or the client was gone before it was accepted.
            ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted => {}
            // accept(2) looks for a descriptor before it looks for a client, so that nobody may be
            // there to make room for.
            _ if !is_awaited(listener) => {}
            _ => {
                if self
                    .last
                    .replace(Instant::now())
                    .is_none_or(|at| at.elapsed() > QUIET)
                {
                    log::error!(
                        "connections cannot be accepted: {error}; idle ones are closed to make room"
                    );
                }
                door.evict();
                std::thread::sleep(self.pause);
                self.pause = (2 * self.pause).min(PAUSES.1);
            }
        }
    }
}

/// Waits for a client, as long as accept(2) would.
fn is_awaited(listener: &TcpListener) -> bool {
    let wait = PollTimeout::try_from(WAIT).unwrap_or(PollTimeout::ZERO);
    poll(
        &mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)],
        wait,
    )
    .is_ok_and(|ready| ready > 0)
}

//! The listener: accepts on a thread of its own, and starts each connection's coroutine on the worker that watches it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use may::coroutine;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Service, Shared, connection, socket};

/// Pending connections to ask for; the system cuts it to its own limit (listen(2), `somaxconn`).
const BACKLOG: i32 = 65_535;
/// How often the thread looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);
/// Pause after an error that would come again at once, such as being out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections beyond the limit that may be answered 503 at once; those beyond are closed without a word.
const MAX_REFUSALS: usize = 256;
/// Idle connections ended at once to make room for new ones.
const ROOM: usize = 64;
/// At most one log line about errors in this time.
const QUIET: Duration = Duration::from_secs(10);

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections in TIME_WAIT; no two servers can share the port by this.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub(super) fn start<S: Service>(listener: TcpListener, shared: &Arc<Shared<S>>) -> io::Result<()> {
    // Bounds accept(2) as well (socket(7), SO_RCVTIMEO).
    SockRef::from(&listener).set_read_timeout(Some(WAIT))?;
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("listener".to_owned()).spawn(move || {
        let mut trouble = Trouble { logged: None };
        while !shared.registry.is_draining() {
            match listener.accept() {
                Ok((socket, peer)) => admit(&shared, socket, peer.ip()),
                Err(error) => trouble.handle(&shared, &error),
            }
        }
        // Those who were already connected when the listener stops are accepted.
        if listener.set_nonblocking(true).is_ok() {
            while let Ok((socket, peer)) = listener.accept() {
                admit(&shared, socket, peer.ip());
            }
        }
        drop(listener);
        shared.registry.stopped_listening();
    })?;
    Ok(())
}

/// Starts the connection's coroutine.
fn admit<S: Service>(shared: &Arc<Shared<S>>, socket: TcpStream, peer: IpAddr) {
    let most = shared.options.max_connections;
    let open = shared.registry.open();
    if open >= most {
        shared.stats.refused.fetch_add(1, Ordering::Relaxed);
        if open >= most + MAX_REFUSALS {
            return;
        }
    } else {
        shared.stats.accepted.fetch_add(1, Ordering::Relaxed);
    }
    // Answers are written whole, so waiting to fill a segment could only delay them.
    let _ = socket.set_nodelay(true);
    let worker = socket::worker_of(&socket, shared.options.workers);
    let place = shared.registry.enter(&socket, peer);
    let task = {
        let shared = Arc::clone(shared);
        move || {
            if open >= most {
                connection::refuse(&shared, socket, &place);
            } else {
                connection::serve(shared, socket, place, worker);
            }
        }
    };
    // SAFETY: the coroutine only ever runs on worker `worker` (see socket.rs), so thread-local values it uses are that
    // worker's, and it holds none over a wait. Its stack is as large as `server.rs` sets, with a guard page below.
    if let Err(error) = unsafe { coroutine::Builder::new().id(worker).spawn(task) } {
        log::error!("a connection could not be started: {error}");
    }
}

/// What the thread does about errors of accept(2).
struct Trouble {
    logged: Option<Instant>,
}

impl Trouble {
    fn handle<S: Service>(&mut self, shared: &Shared<S>, error: &io::Error) {
        match error.kind() {
            // Nobody came; or the client was gone before it was accepted.
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
            _ => {
                if self.logged.is_none_or(|at| at.elapsed() > QUIET) {
                    self.logged = Some(Instant::now());
                    log::error!("connections cannot be accepted: {error}; idle ones are closed to make room");
                }
                shared.registry.end_idle(ROOM);
                std::thread::sleep(PAUSE);
            }
        }
    }
}

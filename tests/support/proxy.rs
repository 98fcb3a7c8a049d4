//! A TCP proxy that acts as a bad network: it cuts connections after N bytes, swallows bytes,
//! refuses connections, or is slow.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::ports::free_port;
use super::wait::within;

/// Until enough bytes have passed for a cut.
const CUT_LIMIT: Duration = Duration::from_secs(20);

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// A proxy to one server on 127.0.0.1. Dropped, it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    cuts: usize,
    /// By their number; those that ended are removed.
    connections: BTreeMap<usize, Connection>,
    opened: usize,
    refusing: bool,
    swallowing: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Fault {
    #[default]
    None,
    /// The connection that carries the last of these bytes in this direction is cut after them. It
    /// happens once.
    CutAfter(Direction, usize),
    /// Delays each chunk.
    Slow(Duration),
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    swallows: bool,
    /// What it still has to pass concerns no later fault.
    is_cut: bool,
    /// Directions that have ended.
    ends: u8,
}

impl Connection {
    fn cut(&mut self) {
        self.is_cut = true;
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    /// A proxy to this port that passes everything on.
    pub fn to(server_port: u16) -> Proxy {
        // Another run of the suite may take the port in between.
        let mut listeners = (0..10).map(|_| TcpListener::bind(("127.0.0.1", free_port())));
        let listener = listeners.find_map(Result::ok);
        Proxy::on(listener.expect("a port for the proxy"), server_port)
    }

    /// The same where that listens.
    pub fn on(listener: TcpListener, server_port: u16) -> Proxy {
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&shared).closed {
                    return;
                }
                open(&shared, client, server_port);
            }
        });
        Proxy { address, state }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts a connection once `bytes` more have passed in this direction. Both sides see the end;
    /// neither knows what the other received.
    pub fn cut_after(&self, direction: Direction, bytes: usize) {
        lock(&self.state).fault = Fault::CutAfter(direction, bytes);
    }

    /// The number of cuts that [`Proxy::cut_after`] has made.
    pub fn cuts(&self) -> usize {
        lock(&self.state).cuts
    }

    /// Cuts a connection at byte `place` of an exchange with this many bytes in each direction, and
    /// waits for the cut. A `place` past the end wraps around.
    pub fn cut_exchange(&self, place: usize, to_server: usize, to_client: usize) {
        let place = place % (to_server + to_client);
        let (direction, bytes) = match place.checked_sub(to_server) {
            None => (Direction::ToServer, place),
            Some(bytes) => (Direction::ToClient, bytes),
        };
        let before = self.cuts();
        self.cut_after(direction, bytes);
        within(CUT_LIMIT, "the cut", || self.cuts() > before);
    }

    /// Cuts every connection.
    pub fn cut_all(&self) {
        lock(&self.state)
            .connections
            .values_mut()
            .for_each(Connection::cut);
    }

    /// Existing connections swallow all bytes from now on, in both directions, and the end too. New
    /// ones pass.
    pub fn swallow_connections(&self) {
        lock(&self.state)
            .connections
            .values_mut()
            .for_each(|connection| connection.swallows = true);
    }

    /// Whether every connection swallows all bytes, new ones included. One that did never passes
    /// anything again.
    pub fn swallow(&self, swallowing: bool) {
        lock(&self.state).swallowing = swallowing;
        if swallowing {
            self.swallow_connections();
        }
    }

    /// Whether new connections are closed immediately.
    pub fn refuse(&self, refusing: bool) {
        lock(&self.state).refusing = refusing;
    }

    /// Delays every chunk.
    pub fn slow(&self, wait: Duration) {
        lock(&self.state).fault = Fault::Slow(wait);
    }

    /// Ends every fault. Swallowed bytes stay lost.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        (state.fault, state.refusing, state.swallowing) = (Fault::None, false, false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.connections.values_mut().for_each(Connection::cut);
        drop(state);
        // Wakes the accepting thread, so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(state: &Arc<Mutex<State>>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(shared: &Arc<Mutex<State>>, client: TcpStream, server_port: u16) {
    let mut state = lock(shared);
    if state.refusing {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else {
        return;
    };
    let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor for the proxy");
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let number = state.opened;
    state.opened += 1;
    for (direction, from, to) in [
        (Direction::ToServer, &client, &server),
        (Direction::ToClient, &server, &client),
    ] {
        let (from, to, shared) = (copy(from), copy(to), Arc::clone(shared));
        thread::spawn(move || pump(&shared, number, direction, from, to));
    }
    let swallows = state.swallowing;
    state.connections.insert(
        number,
        Connection {
            client,
            server,
            swallows,
            is_cut: false,
            ends: 0,
        },
    );
}

/// Passes bytes in one direction until an end or a fault. Removes the connection once both
/// directions have ended.
fn pump(
    shared: &Arc<Mutex<State>>,
    number: usize,
    direction: Direction,
    from: TcpStream,
    to: TcpStream,
) {
    pass(shared, number, direction, from, to);
    let mut state = lock(shared);
    let connection = state
        .connections
        .get_mut(&number)
        .expect("a connection stays until both directions have ended");
    connection.ends += 1;
    if connection.ends == 2 {
        state.connections.remove(&number);
    }
}

fn pass(
    shared: &Arc<Mutex<State>>,
    number: usize,
    direction: Direction,
    mut from: TcpStream,
    mut to: TcpStream,
) {
    let mut chunk = [0; 16 * 1024];
    loop {
        let length = from.read(&mut chunk).unwrap_or(0);
        let mut guard = lock(shared);
        let state = &mut *guard;
        let connection = state.connections.get_mut(&number);
        let connection = connection.expect("a connection stays until both directions have ended");
        if connection.is_cut {
            return;
        }
        if connection.swallows {
            if length == 0 {
                return;
            }
            continue;
        }
        if length == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        let fault = state.fault;
        match fault {
            Fault::CutAfter(cut_direction, bytes)
                if cut_direction == direction && bytes <= length =>
            {
                let _ = to.write_all(&chunk[..bytes]);
                connection.cut();
                state.fault = Fault::None;
                state.cuts += 1;
                return;
            }
            Fault::CutAfter(cut_direction, bytes) if cut_direction == direction => {
                state.fault = Fault::CutAfter(direction, bytes - length);
                drop(guard);
            }
            Fault::Slow(wait) => {
                drop(guard);
                thread::sleep(wait);
            }
            _ => drop(guard),
        }
        if to.write_all(&chunk[..length]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

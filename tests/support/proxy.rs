//! A TCP proxy that plays a bad network: cuts a connection after N bytes, swallows everything, or
//! is slow.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::wait::within;

/// A cut comes when enough bytes have gone by.
const CUT_LIMIT: Duration = Duration::from_secs(20);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to the proxy.
    ToServer,
    /// Back to it.
    ToClient,
}

/// A proxy before one server of 127.0.0.1. Dropped, it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    cuts: usize,
    /// By the number of the link; those that ended are gone.
    links: BTreeMap<usize, Link>,
    opened: usize,
    refusing: bool,
    swallowing: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Fault {
    #[default]
    None,
    /// The link that carries the last of these bytes that way passes them on and is cut. Once; then
    /// all is well again.
    CutAfter(Way, usize),
    /// Each chunk waits so long.
    Slow(Duration),
}

#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
    swallows: bool,
    /// Ways on which nothing comes any more.
    ends: u8,
}

impl Link {
    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    /// A proxy to that port, passing everything on.
    pub fn to(server_port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", super::ports::free_port()))
            .expect("a port for the proxy");
        let port = listener.local_addr().expect("its address").port();
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
        Proxy { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts a link once `bytes` more have gone that way: both sides see the end, neither knows what
    /// the other got.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        lock(&self.state).fault = Fault::CutAfter(way, bytes);
    }

    /// How many cuts [`Proxy::cut_after`] has made.
    pub fn cuts(&self) -> usize {
        lock(&self.state).cuts
    }

    /// Cuts a link at the byte `place` of an exchange of so many bytes to the server and so many
    /// back, begun anew past its end; comes back once it is cut.
    pub fn cut_exchange(&self, place: usize, to_server: usize, to_client: usize) {
        let place = place % (to_server + to_client);
        let (way, bytes) = match place.checked_sub(to_server) {
            None => (Way::ToServer, place),
            Some(bytes) => (Way::ToClient, bytes),
        };
        let before = self.cuts();
        self.cut_after(way, bytes);
        within(CUT_LIMIT, "the cut", || self.cuts() > before);
    }

    /// Cuts every link there is.
    pub fn cut_all(&self) {
        lock(&self.state).links.values().for_each(Link::cut);
    }

    /// From now on every link there is swallows what it gets, both ways, the end included. New
    /// links pass.
    pub fn swallow_links(&self) {
        lock(&self.state)
            .links
            .values_mut()
            .for_each(|link| link.swallows = true);
    }

    /// Whether every link, new ones included, swallows what it gets. Those that did never pass
    /// anything again.
    pub fn swallow(&self, swallowing: bool) {
        lock(&self.state).swallowing = swallowing;
        if swallowing {
            self.swallow_links();
        }
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refusing: bool) {
        lock(&self.state).refusing = refusing;
    }

    /// Makes every chunk wait before it is passed on.
    pub fn slow(&self, wait: Duration) {
        lock(&self.state).fault = Fault::Slow(wait);
    }

    /// Passes everything on again, and at once. What was swallowed stays lost.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        (state.fault, state.refusing, state.swallowing) = (Fault::None, false, false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.links.values().for_each(Link::cut);
        drop(state);
        // Wakes the thread that accepts, so that it sees the end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
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
    for (way, from, to) in [
        (Way::ToServer, &client, &server),
        (Way::ToClient, &server, &client),
    ] {
        let (from, to, shared) = (copy(from), copy(to), Arc::clone(shared));
        thread::spawn(move || pump(&shared, number, way, from, to));
    }
    let swallows = state.swallowing;
    state.links.insert(
        number,
        Link {
            client,
            server,
            swallows,
            ends: 0,
        },
    );
}

/// Passes bytes one way until an end, or a fault makes one; forgets the link once both ways have
/// ended.
fn pump(shared: &Arc<Mutex<State>>, number: usize, way: Way, from: TcpStream, to: TcpStream) {
    pass(shared, number, way, from, to);
    let mut state = lock(shared);
    let link = state
        .links
        .get_mut(&number)
        .expect("links stay until both ways have ended");
    link.ends += 1;
    if link.ends == 2 {
        state.links.remove(&number);
    }
}

fn pass(
    shared: &Arc<Mutex<State>>,
    number: usize,
    way: Way,
    mut from: TcpStream,
    mut to: TcpStream,
) {
    let mut chunk = [0; 16 * 1024];
    loop {
        let length = from.read(&mut chunk).unwrap_or(0);
        let mut state = lock(shared);
        let link = &state.links[&number];
        if link.swallows {
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
            Fault::CutAfter(cut_way, bytes) if cut_way == way && bytes <= length => {
                let _ = to.write_all(&chunk[..bytes]);
                link.cut();
                state.fault = Fault::None;
                state.cuts += 1;
                return;
            }
            Fault::CutAfter(cut_way, bytes) if cut_way == way => {
                state.fault = Fault::CutAfter(way, bytes - length);
                drop(state);
            }
            Fault::Slow(wait) => {
                drop(state);
                thread::sleep(wait);
            }
            _ => drop(state),
        }
        if to.write_all(&chunk[..length]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

//! A TCP proxy that plays a bad network: cuts a connection after N bytes, swallows everything, or is slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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
    links: Vec<Link>,
    refusing: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Fault {
    #[default]
    None,
    /// The link that carries the last of these bytes that way passes them on and is cut. Once; then all is well again.
    CutAfter(Way, usize),
    /// Each chunk waits so long.
    Slow(Duration),
}

#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
    swallows: bool,
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
        let listener = TcpListener::bind(("127.0.0.1", super::ports::free_port())).expect("a port for the proxy");
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

    /// Cuts a link once `bytes` more have gone that way: both sides see the end, neither knows what the other got.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        lock(&self.state).fault = Fault::CutAfter(way, bytes);
    }

    /// How many cuts [`Proxy::cut_after`] has made.
    pub fn cuts(&self) -> usize {
        lock(&self.state).cuts
    }

    /// Cuts every link there is.
    pub fn cut_all(&self) {
        lock(&self.state).links.iter().for_each(Link::cut);
    }

    /// From now on every link there is swallows what it gets, both ways, the end included. New links pass.
    pub fn swallow_links(&self) {
        lock(&self.state).links.iter_mut().for_each(|link| link.swallows = true);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refusing: bool) {
        lock(&self.state).refusing = refusing;
    }

    /// Makes every chunk wait before it is passed on.
    pub fn slow(&self, wait: Duration) {
        lock(&self.state).fault = Fault::Slow(wait);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.links.iter().for_each(Link::cut);
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
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { return };
    let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor for the proxy");
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    for (way, from, to) in [(Way::ToServer, &client, &server), (Way::ToClient, &server, &client)] {
        let (from, to, shared, number) = (copy(from), copy(to), Arc::clone(shared), state.links.len());
        thread::spawn(move || pump(&shared, number, way, from, to));
    }
    state.links.push(Link { client, server, swallows: false });
}

/// Passes bytes one way until an end, or a fault makes one.
fn pump(shared: &Arc<Mutex<State>>, number: usize, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16 * 1024];
    loop {
        let length = from.read(&mut chunk).unwrap_or(0);
        let mut state = lock(shared);
        if state.links[number].swallows {
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
                state.links[number].cut();
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

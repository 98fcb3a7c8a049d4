//! The bytes to and from a store, plain or encrypted. No call waits longer than until the deadline
//! that was set last, however slowly bytes come.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
#[cfg(feature = "tls")]
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

#[cfg(feature = "tls")]
use crate::visits::tls::{Client, end_point};

// How soon a server that vanished while nothing is in flight is noticed (tcp(7)): a firewall that
// forgot the connection, a machine without power.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_COUNT: u32 = 3;

/// A socket with the deadline of the call in flight.
#[derive(Debug)]
pub(in crate::visits) struct Timed {
    socket: Socket,
    deadline: Instant,
}

/// A connection's bytes.
#[derive(Debug)]
pub(in crate::visits) enum Wire {
    Plain(Timed),
    #[cfg(feature = "tls")]
    Tls(Box<StreamOwned<ClientConnection, Timed>>, Client),
}

impl Timed {
    /// Connects over TCP.
    ///
    /// # Errors
    /// When it cannot by the deadline.
    pub(in crate::visits) fn over_tcp(address: SocketAddr, deadline: Instant) -> io::Result<Timed> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.connect_timeout(&address.into(), left(deadline)?)?;
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_COUNT))?;
        Timed::on(socket, deadline)
    }

    /// Connects over a Unix socket.
    ///
    /// # Errors
    /// When it cannot by the deadline.
    pub(in crate::visits) fn over_unix(path: &Path, deadline: Instant) -> io::Result<Timed> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect_timeout(&SockAddr::unix(path)?, left(deadline)?)?;
        Timed::on(socket, deadline)
    }

    fn on(socket: Socket, deadline: Instant) -> io::Result<Timed> {
        socket.set_nonblocking(true)?;
        Ok(Timed { socket, deadline })
    }

    /// Has the kernel give the connection up where what was sent is not acknowledged for that time
    /// (tcp(7), `TCP_USER_TIMEOUT`).
    pub(in crate::visits) fn give_up_after(&self, limit: Duration) -> io::Result<()> {
        self.socket.set_tcp_user_timeout(Some(limit))
    }

    #[cfg(feature = "tls")]
    pub(in crate::visits) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Whether nothing was received, and the other side has not closed the connection.
    fn is_silent(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = self.socket.peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for the socket. What is there after the deadline counts; nothing is waited for.
    fn wait(&self, events: PollFlags) -> io::Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent in a loop.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999))
                .unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
                Ok(0) if left.is_zero() => return Err(too_late()),
                // A process that was stopped and goes on, as a paused container does (signal(7)).
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::POLLIN)?;
            match self.socket.read(buffer) {
                Err(error) if is_passing(&error) => {}
                other => return other,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // Without MSG_NOSIGNAL a closed connection would be a signal; the runtime of std
            // ignores that one.
            match self.socket.write(bytes) {
                Err(error) if is_passing(&error) => self.wait(PollFlags::POLLOUT)?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl Wire {
    /// The same connection, encrypted from now on.
    ///
    /// # Errors
    /// A sentence about the handshake, or that it was not done by the deadline.
    #[cfg(feature = "tls")]
    pub(in crate::visits) fn encrypted(mut socket: Timed, client: Client) -> io::Result<Wire> {
        let connection = ClientConnection::new(client.config.clone(), client.name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        client.shake_hands(&mut connection, &mut socket)?;
        let stream = StreamOwned::new(connection, socket);
        Ok(Wire::Tls(Box::new(stream), client))
    }

    fn timed(&self) -> &Timed {
        match self {
            Wire::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Wire::Tls(stream, _) => &stream.sock,
        }
    }

    /// Has every read and write end by then.
    pub(in crate::visits) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Wire::Plain(socket) => socket.deadline = deadline,
            #[cfg(feature = "tls")]
            Wire::Tls(stream, _) => stream.sock.deadline = deadline,
        }
    }

    /// Whether nothing was received, and the other side has not closed the connection, as far as
    /// can be told without asking it.
    pub(in crate::visits) fn is_silent(&self) -> bool {
        self.timed().is_silent()
    }

    /// What the server said the connection is for, in ALPN.
    #[cfg(feature = "tls")]
    pub(in crate::visits) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Wire::Plain(_) => None,
            Wire::Tls(stream, _) => stream.conn.alpn_protocol(),
        }
    }

    /// What a login can be bound to (RFC 5929, section 4).
    pub(in crate::visits) fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Wire::Plain(_) => None,
            #[cfg(feature = "tls")]
            Wire::Tls(stream, _) => end_point(stream.conn.peer_certificates()?.first()?),
        }
    }

    /// Protocol, cipher and what was verified; `None` where nothing is encrypted.
    pub(in crate::visits) fn encryption(&self) -> Option<String> {
        match self {
            Wire::Plain(_) => None,
            #[cfg(feature = "tls")]
            Wire::Tls(stream, client) => Some(client.describe(&stream.conn)),
        }
    }
}

/// With TLS 1.3 a server refuses the client's certificate after the handshake.
#[cfg(feature = "tls")]
fn explained(client: &Client, error: io::Error) -> io::Error {
    match client.explain(&error) {
        Some(refusal) => io::Error::other(refusal),
        None => error,
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Wire::Tls(stream, client) => stream
                .read(buffer)
                .map_err(|error| explained(client, error)),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Wire::Tls(stream, client) => stream
                .write(bytes)
                .map_err(|error| explained(client, error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Wire::Tls(stream, client) => stream.flush().map_err(|error| explained(client, error)),
        }
    }
}

/// Time until the deadline, more than none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(too_late())
    } else {
        Ok(left)
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

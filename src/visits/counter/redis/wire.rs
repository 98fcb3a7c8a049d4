//! The bytes to and from Redis, plain or encrypted, whose reads and writes wait no longer than
//! until the deadline of the call they belong to.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use rustls::{ClientConnection, StreamOwned};
use socket2::Socket;

#[cfg(feature = "tls")]
use crate::visits::tls::Client;

/// A socket with the deadline of the call in flight. A wait with a limit is interrupted when the
/// process is stopped and carries on, as a paused container does (signal(7)).
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) socket: Socket,
    pub(super) deadline: Instant,
}

/// A connection's bytes.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(Timed),
    #[cfg(feature = "tls")]
    Tls(Box<StreamOwned<ClientConnection, Timed>>, Client),
}

impl Wire {
    /// The same connection, encrypted from now on.
    ///
    /// # Errors
    /// A sentence about the handshake, or that it was not done by the deadline.
    #[cfg(feature = "tls")]
    pub(super) fn encrypted(mut socket: Timed, client: Client) -> io::Result<Wire> {
        let connection = ClientConnection::new(client.config.clone(), client.name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        client.shake_hands(&mut connection, &mut socket)?;
        let stream = StreamOwned::new(connection, socket);
        Ok(Wire::Tls(Box::new(stream), client))
    }

    pub(super) fn socket(&self) -> &Socket {
        match self {
            Wire::Plain(socket) => &socket.socket,
            #[cfg(feature = "tls")]
            Wire::Tls(stream, _) => &stream.sock.socket,
        }
    }

    /// Has every read and write end by then.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Wire::Plain(socket) => socket.deadline = deadline,
            #[cfg(feature = "tls")]
            Wire::Tls(stream, _) => stream.sock.deadline = deadline,
        }
    }

    /// Protocol, cipher and what was verified; `None` where nothing is encrypted.
    pub(super) fn encryption(&self) -> Option<String> {
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

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(left(self.deadline)?))?;
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(in_words),
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(Some(left(self.deadline)?))?;
            match self.socket.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(in_words),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Time until the deadline, more than none.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
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

/// A time-out of a socket option is told as EAGAIN, whose own words would mislead whoever reads the
/// log.
fn in_words(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        too_late()
    } else {
        error
    }
}

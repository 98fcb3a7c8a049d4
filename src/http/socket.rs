//! A connection's socket: reads and writes that let the coroutine wait until its deadline, and
//! nothing else.
//!
//! `may` watches a socket on worker `descriptor % workers`, edge-triggered, for its whole life.
//! Connections are spawned on that worker ([`worker_of`]) and woken only from there, so that a
//! coroutine never runs on two threads at once.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use may::io::{CoIo, WaitIo};
use socket2::SockRef;

use super::registry::Entry;
use super::turn::Turn;

/// Bits of epoll(7) that mean there is something to read, be it the end of the stream or an error.
const READABLE: usize = 0x001 | 0x008 | 0x010 | 0x2000; // EPOLLIN, EPOLLERR, EPOLLHUP, EPOLLRDHUP
/// Of these, the ones after which a short read does not mean that all was read.
const ENDING: usize = 0x008 | 0x010 | 0x2000;

/// The worker that watches this socket.
pub(super) fn worker_of(socket: &TcpStream, workers: usize) -> usize {
    usize::try_from(socket.as_raw_fd()).unwrap_or(0) % workers
}

/// A non-blocking socket in a coroutine. Every wait ends with an error of kind
/// [`ErrorKind::TimedOut`] once the entry in the registry says that it is over.
#[derive(Debug)]
pub(super) struct Socket {
    io: CoIo<TcpStream>,
    entry: Arc<Entry>,
    /// What was done since the last wait.
    pub(super) turn: Turn,
    /// There may be something to read.
    readable: bool,
    /// The peer's side of the stream is at its end, or broken: reading goes on until it says so.
    ending: bool,
}

impl Socket {
    /// Has `may` watch the socket, and the registry wake whoever waits for it.
    pub(super) fn new(socket: TcpStream, entry: Arc<Entry>) -> io::Result<Socket> {
        let io = CoIo::new(socket)?;
        entry.wake_by(io.waker());
        Ok(Socket {
            io,
            entry,
            turn: Turn::default(),
            readable: true,
            ending: false,
        })
    }

    /// Waits until there may be something to read.
    pub(super) fn wait_readable(&mut self) -> io::Result<()> {
        while !self.readable {
            self.wait()?;
        }
        Ok(())
    }

    /// Waits for an event, or for somebody who wakes the entry; says whether there may be something
    /// to read.
    pub(super) fn wait_event(&mut self) -> io::Result<bool> {
        if !self.readable {
            self.wait()?;
        }
        Ok(self.readable)
    }

    /// Whether there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Reads what is there without waiting; `None` when nothing is. 0 is the end of the stream.
    pub(super) fn read_ready(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.turn.count();
        match self.io.inner().read(into) {
            Ok(length) => {
                // A read that did not fill its room took all there was (epoll(7), "Q9"), so the
                // next one may wait for an event instead of asking first.
                self.readable = length == into.len() || self.ending;
                Ok(Some(length))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what there is room for without waiting; gives how much that is.
    pub(super) fn write_ready(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.io.inner().write(&bytes[written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Writes all of it, waiting for room.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            bytes = &bytes[self.write_ready(bytes)?..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Tells the peer that nothing more will come.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.io.inner().shutdown(Shutdown::Write)
    }

    /// Has the system forget, when this is dropped, what the peer has not taken: it would else hold
    /// that for minutes for a peer that never reads.
    pub(super) fn give_up(&self) {
        // An error means that the peer was faster.
        let _ = SockRef::from(self.io.inner()).set_linger(Some(Duration::ZERO));
    }

    /// Waits for an event, which may be one for nothing.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        if self.entry.is_over() {
            return Err(ErrorKind::TimedOut.into());
        }
        let events = self.io.wait_io();
        self.turn.begin();
        self.readable |= events & READABLE != 0;
        self.ending |= events & ENDING != 0;
        Ok(())
    }
}

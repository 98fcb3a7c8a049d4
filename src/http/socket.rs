//! A connection's socket: reads and writes during which the coroutine waits until its deadline.
//!
//! The socket is watched, and the coroutine woken, on one worker only: see [`crate::workers`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use may::io::{CoIo, WaitIo};
use socket2::SockRef;

use super::budget::Budget;
use super::entry::Entry;

/// Events of epoll(7) after which a read makes sense, be it of the stream's end or of an error.
const READABLE: usize = 0x001 | ENDING; // EPOLLIN
/// Of these, the ones after which a short read does not mean that all was read.
const ENDING: usize = 0x008 | 0x010 | 0x2000; // EPOLLERR, EPOLLHUP, EPOLLRDHUP

/// A non-blocking socket in a coroutine. Every wait ends with [`ErrorKind::TimedOut`] once the
/// registry entry says that it is over.
#[derive(Debug)]
pub(super) struct Socket {
    io: CoIo<TcpStream>,
    entry: Arc<Entry>,
    pub(super) budget: Budget,
    /// There may be something to read.
    readable: bool,
    /// The peer's side has ended or broken: reading goes on until it says so.
    ending: bool,
}

impl Socket {
    /// Has `may` watch the socket, and the registry wake its coroutine.
    pub(super) fn new(socket: TcpStream, entry: Arc<Entry>) -> io::Result<Socket> {
        let io = CoIo::new(socket)?;
        entry.wake_by(io.waker());
        Ok(Socket {
            io,
            entry,
            budget: Budget::default(),
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

    /// Waits for an event, or for a wake-up by the entry; says whether there may be something to
    /// read.
    pub(super) fn wait_event(&mut self) -> io::Result<bool> {
        if !self.readable {
            self.wait()?;
        }
        Ok(self.readable)
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Reads without waiting; `None` when nothing is there. 0 is the end of the stream.
    pub(super) fn read_ready(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.budget.spend();
        match self.io.inner().read(into) {
            Ok(length) => {
                // A read that did not fill its room took all there was (epoll(7), "Q9"): the next
                // one waits for an event instead of asking first.
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

    /// Writes without waiting; returns how many bytes there was room for.
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

    /// Ends our side of the stream.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.io.inner().shutdown(Shutdown::Write)
    }

    /// Has the system drop what the peer has not taken when this closes. It would otherwise keep
    /// that for minutes for a peer that never reads.
    pub(super) fn discard_unsent(&self) {
        // An error means that the peer was faster.
        let _ = SockRef::from(self.io.inner()).set_linger(Some(Duration::ZERO));
    }

    /// Waits for an event; there may be none behind a wake-up.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        if self.entry.is_over() {
            return Err(ErrorKind::TimedOut.into());
        }
        let events = self.io.wait_io();
        self.budget.reset();
        self.readable |= events & READABLE != 0;
        self.ending |= events & ENDING != 0;
        Ok(())
    }
}

//! A connection that follows a feed, until the client ends it or the server drains.

use std::io::{self, ErrorKind};

use super::Service;
use super::buffers::Input;
use super::connection::Connection;
use super::entry::milliseconds;
use super::feed::Feed;
use super::phase::Phase;
use super::refuse::MAX_LINGER_BYTES;
use crate::clock;

/// The share of the connections that may follow a feed: one in four.
const FOLLOWING_SHARE: usize = 4;
/// Idle time-outs for which a connection may follow a feed: an hour by default.
const FOLLOWING_TIMES: u32 = 60;

impl<S: Service> Connection<S> {
    /// Sends every message of the feed after number `seen`.
    pub(super) fn follow(&mut self, feed: &Feed, seen: u64) -> io::Result<()> {
        self.input = Input::default();
        let (options, worker) = (&self.shared.options, self.entry.worker);
        let most = (options.max_connections / FOLLOWING_SHARE / options.workers).max(1);
        if feed.join(worker, &self.entry, most) {
            self.shared.stats.evicted(Phase::Following);
        }
        let ended = self.flush().and_then(|()| self.send_messages(feed, seen));
        feed.leave(worker, &self.entry);
        ended
    }

    fn send_messages(&mut self, feed: &Feed, mut seen: u64) -> io::Result<()> {
        let mut dropped = 0;
        let until_ms = clock::monotonic_ms()
            + milliseconds(self.shared.options.idle_timeout * FOLLOWING_TIMES);
        loop {
            let message = feed.latest();
            if message.number != seen {
                seen = message.number;
                self.entry
                    .enter(Phase::Writing, Some(self.shared.options.header_timeout));
                self.socket.write_all(&message.bytes)?;
            }
            self.entry.enter_until(Phase::Following, until_ms);
            if self.shared.registry.is_draining() {
                return Ok(());
            }
            let readable = match self.socket.wait_event() {
                // A drain, an eviction, or the hour is over.
                Err(over) if over.kind() == ErrorKind::TimedOut => return Ok(()),
                other => other?,
            };
            // The client has nothing to say but its end.
            if readable {
                let read = self.socket.read_ready(self.input.room(1)?)?;
                self.input.release();
                dropped += read.unwrap_or(0);
                if read == Some(0) || dropped > MAX_LINGER_BYTES {
                    return Ok(());
                }
            }
        }
    }
}

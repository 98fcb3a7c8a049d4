//! Buffers that a worker lends to its connections: a waiting connection holds none.
//!
//! The pool is a thread-local: a connection's coroutine runs on one worker only, and borrows the
//! pool over no wait.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

/// Bytes of a buffer. A browser's request fits, so one read nearly always takes all of it.
const SIZE: usize = 8 * 1024;
/// Buffers that a worker keeps: about as many as connections hold at any moment.
const KEPT: usize = 32;
/// A buffer that grew beyond this is not kept.
const LARGEST_KEPT: usize = 64 * 1024;

thread_local! {
    static INPUTS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Received bytes that are not parsed yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Empty while nothing is held.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Drops the first `length` unread bytes.
    pub(super) fn consume(&mut self, length: usize) {
        self.start += length.min(self.end - self.start);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Bytes of memory, whether read or not.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Room to receive into: at least one byte, unless `most` bytes are unread.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`].
    pub(super) fn room(&mut self, most: usize) -> io::Result<&mut [u8]> {
        if self.bytes.is_empty() {
            self.bytes = match INPUTS.with_borrow_mut(Vec::pop) {
                Some(bytes) => bytes,
                None => zeroed(SIZE)?,
            };
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() && self.end < most {
            let mut larger = zeroed((2 * self.bytes.len()).min(most))?;
            larger[..self.end].copy_from_slice(&self.bytes);
            self.bytes = larger;
        }
        Ok(&mut self.bytes[self.end..])
    }

    /// `length` bytes were received into the room.
    pub(super) fn received(&mut self, length: usize) {
        self.end += length;
    }

    /// Gives the buffer back to the worker if nothing in it is unread.
    pub(super) fn release(&mut self) {
        if self.start == self.end && !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            if bytes.len() == SIZE {
                INPUTS.with_borrow_mut(|pool| (pool.len() < KEPT).then(|| pool.push(bytes)));
            }
        }
    }
}

/// `size` zeros, or an error: a client's bytes must not end the process.
fn zeroed(size: usize) -> io::Result<Box<[u8]>> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(size)
        .map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
    bytes.resize(size, 0);
    Ok(bytes.into_boxed_slice())
}

/// Takes an empty output buffer from the worker.
pub(super) fn take_output() -> Vec<u8> {
    OUTPUTS
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Gives an output buffer back to the worker.
pub(super) fn give_output(mut bytes: Vec<u8>) {
    if bytes.capacity() > 0 && bytes.capacity() <= LARGEST_KEPT {
        bytes.clear();
        OUTPUTS.with_borrow_mut(|pool| (pool.len() < KEPT).then(|| pool.push(bytes)));
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        (self.start, self.end) = (0, 0);
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_consumed_stays_in_order_while_the_buffer_grows() {
        let mut input = Input::default();
        let sent: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
        let mut received = 0;
        while received < sent.len() {
            let room = input
                .room(48 * 1024)
                .unwrap_or_else(|error| unreachable!("{error}"));
            let length = room.len().min(sent.len() - received);
            room[..length].copy_from_slice(&sent[received..received + length]);
            input.received(length);
            received += length;
        }
        input.consume(10);
        assert_eq!(input.unread(), &sent[10..]);
        input.consume(usize::MAX);
        assert!(input.unread().is_empty());
        input.release();
        assert_eq!(input.bytes.len(), 0);
    }

    #[test]
    fn a_full_buffer_has_no_room() {
        let mut input = Input::default();
        loop {
            let room = input.room(20_000).map_or(0, |room| room.len()).min(1000);
            if room == 0 {
                break;
            }
            input.received(room);
        }
        assert_eq!(input.unread().len(), 20_000);
    }
}

//! Answers: status line, header fields, body, written into the connection's output (RFC 9112,
//! section 4; RFC 9110).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::buffers::take_output;
use super::feed::Feed;
use super::status::Status;
use crate::clock;

/// What the connection decides about an answer before the service does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    /// The request was HEAD: no body goes out.
    pub(super) head_only: bool,
    /// The connection closes after it.
    pub(super) close: bool,
    /// The request was HTTP/1.0, whose clients must be told that the connection stays open.
    pub(super) old_version: bool,
    /// Set once the server drains: the connection then closes after this answer too.
    pub(super) draining: &'a AtomicBool,
}

/// What was answered. Only an [`Answer`] makes one, so a service cannot forget to answer.
#[derive(Debug)]
#[must_use]
pub struct Answered {
    pub(super) status: Status,
    /// The client was told that the connection closes.
    pub(super) close: bool,
    /// The feed that the connection follows from now on, until either side ends it, and the number
    /// of the last message that it does not need.
    pub(super) follows: Option<(Arc<Feed>, u64)>,
}

/// The place for one answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// An output without capacity gets one of the worker's buffers when the answer is written, not
    /// while the connection waits for it.
    pub(super) out: &'a mut Vec<u8>,
    pub(super) envelope: Envelope<'a>,
}

impl Answer<'_> {
    /// Answers. `fields` are header lines with their line ends; Date, nosniff, Content-Length and
    /// Connection are added.
    pub fn send(mut self, status: Status, fields: &str, body: &[u8]) -> Answered {
        let answered = self.write_head(status, fields, Some(body.len()));
        if !self.envelope.head_only {
            self.out.extend_from_slice(body);
        }
        answered
    }

    /// As [`Answer::send`]; the parts make the body.
    pub fn send_parts(mut self, status: Status, fields: &str, parts: &[&[u8]]) -> Answered {
        let length = parts.iter().map(|part| part.len()).sum();
        let answered = self.write_head(status, fields, Some(length));
        if !self.envelope.head_only {
            self.out.reserve(length);
            parts
                .iter()
                .for_each(|part| self.out.extend_from_slice(part));
        }
        answered
    }

    /// Answers with `first` and then with every message of `feed` after number `seen`. Take that
    /// number before `first` is made, so that none between is missed. The end of the connection
    /// ends the body (RFC 9112, section 6.3).
    pub fn follow(
        mut self,
        fields: &str,
        first: &[u8],
        (feed, seen): (&Arc<Feed>, u64),
    ) -> Answered {
        self.envelope.close = true;
        let answered = self.write_head(Status::Ok, fields, None);
        if self.envelope.head_only {
            return answered;
        }
        self.out.extend_from_slice(first);
        Answered {
            follows: Some((Arc::clone(feed), seen)),
            ..answered
        }
    }

    /// Answers without a body: 204, 304, or a HEAD request whose body would have to be made to be
    /// measured. No Content-Length (RFC 9110, section 8.6).
    pub fn send_head(mut self, status: Status, fields: &str) -> Answered {
        self.write_head(status, fields, None)
    }

    fn write_head(&mut self, status: Status, fields: &str, length: Option<usize>) -> Answered {
        let Answer { out, envelope } = self;
        if out.capacity() == 0 {
            **out = take_output();
        }
        let close = envelope.close || envelope.draining.load(Ordering::Relaxed);
        out.extend_from_slice(status.line());
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(&date());
        out.extend_from_slice(b"\r\nX-Content-Type-Options: nosniff\r\n");
        out.extend_from_slice(fields.as_bytes());
        if let Some(length) = length {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if envelope.old_version {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Answered {
            status,
            close,
            follows: None,
        }
    }
}

/// Bytes of a date (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_LENGTH: usize = 29;

/// The Date field's value, made once a second on each worker.
fn date() -> [u8; DATE_LENGTH] {
    thread_local! {
        static MADE: Cell<(u64, [u8; DATE_LENGTH])> =
            const { Cell::new((u64::MAX, [0; DATE_LENGTH])) };
    }
    let now = clock::unix_s();
    let (second, text) = MADE.get();
    if second == now {
        return text;
    }
    let mut text = [b' '; DATE_LENGTH];
    let made = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
    text.iter_mut()
        .zip(made.bytes())
        .for_each(|(place, byte)| *place = byte);
    MADE.set((now, text));
    text
}

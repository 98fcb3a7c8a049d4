//! Answers: status line, header fields, body, written into the connection's output (RFC 9112,
//! section 4; RFC 9110).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::buffers::take_output;
use super::feed::Feed;
use crate::clock;

macro_rules! statuses {
    ($($name:ident $code:literal $reason:literal;)+) => {
        /// The status codes in use (RFC 9110, section 15).
        #[allow(missing_docs, reason = "each name is the code's own reason phrase")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Status { $($name),+ }

        impl Status {
            /// All of them.
            pub const ALL: [Status; [$($code),+].len()] = [$(Status::$name),+];

            /// The number.
            pub fn code(self) -> u16 {
                match self { $(Status::$name => $code),+ }
            }

            fn line(self) -> &'static [u8] {
                match self { $(Status::$name => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes()),+ }
            }
        }
    };
}

statuses! {
    Ok 200 "OK";
    NoContent 204 "No Content";
    NotModified 304 "Not Modified";
    BadRequest 400 "Bad Request";
    NotFound 404 "Not Found";
    MethodNotAllowed 405 "Method Not Allowed";
    RequestTimeout 408 "Request Timeout";
    PreconditionFailed 412 "Precondition Failed";
    ContentTooLarge 413 "Content Too Large";
    UriTooLong 414 "URI Too Long";
    ExpectationFailed 417 "Expectation Failed";
    TooManyRequests 429 "Too Many Requests";
    HeaderFieldsTooLarge 431 "Request Header Fields Too Large";
    NotImplemented 501 "Not Implemented";
    ServiceUnavailable 503 "Service Unavailable";
    VersionNotSupported 505 "HTTP Version Not Supported";
}

/// What the connection decided about the answer before it is known.
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

/// What was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: Status,
    /// The client was told that the connection closes.
    pub(super) close: bool,
    /// What the connection follows from now on: the answer goes on until either side ends it.
    pub(super) follows: Option<Arc<Feed>>,
}

/// The place for one answer. Exactly one of its methods is to be called.
#[derive(Debug)]
pub struct Answer<'a> {
    /// An output without capacity gets one of the worker's buffers when the answer is written, not
    /// while it is waited for.
    pub(super) out: &'a mut Vec<u8>,
    pub(super) envelope: Envelope<'a>,
    pub(super) answered: &'a mut Option<Answered>,
}

impl<'a> Answer<'a> {
    /// Answers. `fields` are header lines, each with its line end; Date, nosniff, Content-Length
    /// and Connection are added.
    pub fn send(self, status: Status, fields: &str, body: &[u8]) {
        let head_only = self.envelope.head_only;
        let out = self.write_head(status, fields, Some(body.len()));
        if !head_only {
            out.extend_from_slice(body);
        }
    }

    /// Answers with the message `first` and then with what comes on `feed`, until either side ends
    /// the connection: so the end of the body is that of the connection (RFC 9112, section 6.3).
    pub fn follow(mut self, fields: &str, first: &[u8], feed: &Arc<Feed>) {
        self.envelope.close = true;
        let head_only = self.envelope.head_only;
        let Answer {
            out,
            envelope,
            answered,
        } = self;
        let out = Answer {
            out,
            envelope,
            answered: &mut *answered,
        }
        .write_head(Status::Ok, fields, None);
        if !head_only {
            out.extend_from_slice(first);
            if let Some(answered) = answered {
                answered.follows = Some(Arc::clone(feed));
            }
        }
    }

    /// Answers without a body: 204, 304, or a HEAD request whose body would only be known by making
    /// it. No Content-Length (RFC 9110, section 8.6).
    pub fn send_head(self, status: Status, fields: &str) {
        self.write_head(status, fields, None);
    }

    fn write_head(self, status: Status, fields: &str, length: Option<usize>) -> &'a mut Vec<u8> {
        let Answer {
            out,
            envelope,
            answered,
        } = self;
        if out.capacity() == 0 {
            *out = take_output();
        }
        let close = envelope.close || envelope.draining.load(Ordering::Relaxed);
        *answered = Some(Answered {
            status,
            close,
            follows: None,
        });
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
        out
    }
}

/// Bytes of a date as RFC 9110, section 5.6.7 has it: `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_LENGTH: usize = 29;

/// The Date field's value, made once a second on each worker.
fn date() -> [u8; DATE_LENGTH] {
    thread_local! {
        static MADE: Cell<(u64, [u8; DATE_LENGTH])> = const { Cell::new((u64::MAX, [0; DATE_LENGTH])) };
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

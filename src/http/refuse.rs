//! Connections beyond the limit: a 503 and an orderly close, without a session or a parser.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::access::Logged;
use super::buffers::{Input, give_output};
use super::entry::Entry;
use super::phase::Phase;
use super::response::{Answer, Envelope};
use super::socket::Socket;
use super::status::Status;
use super::{Service, Shared, request};

/// Time that a client has to end its side after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// The same while the server drains: it must not wait for clients that never will.
const LINGER_DRAINING: Duration = Duration::from_millis(200);
/// Bytes read and dropped in that time. A client that still sends would lose the answer to a reset.
pub(super) const MAX_LINGER_BYTES: usize = 256 * 1024;

/// The header fields of a refusal that may pass.
pub(super) const RETRY_FIELDS: &str =
    "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nRetry-After: 1\r\n";

/// Refuses a connection that is one too many.
pub(super) fn refuse<S: Service>(shared: &Arc<Shared<S>>, socket: TcpStream, entry: &Arc<Entry>) {
    let mut socket = match Socket::new(socket, Arc::clone(entry)) {
        Ok(socket) => socket,
        Err(error) => return unwatched(shared, entry, &error),
    };
    // Most clients have sent their request by now. Nobody waits for the others.
    let mut input = Input::default();
    if let Ok(Some(length)) = input.room(1).and_then(|room| socket.read_ready(room)) {
        input.received(length);
    }
    let mut output = Vec::new();
    let envelope = Envelope {
        head_only: request::is_head(input.unread()),
        close: true,
        old_version: false,
        draining: shared.registry.draining(),
    };
    let answer = Answer {
        out: &mut output,
        envelope,
    };
    let body = b"Too many connections are open. Please try again.\n";
    let _ = answer.send(Status::ServiceUnavailable, RETRY_FIELDS, body);
    if let Some(log) = shared.options.access_log {
        Logged::rejected(log, entry.peer, input.unread())
            .report(Status::ServiceUnavailable, output.len());
    }
    drop(input);
    entry.enter(Phase::Writing, Some(linger_time(shared)));
    if socket.write_all(&output).is_ok() {
        linger(&mut socket);
    }
    drop(socket);
    shared.registry.leave(entry);
    give_output(output);
}

/// The system cannot watch one more socket; this one is closed by now.
#[cold]
pub(super) fn unwatched<S>(shared: &Shared<S>, entry: &Entry, error: &io::Error) {
    shared.registry.leave(entry);
    log::error!("closed a connection that cannot be watched: {error}");
}

pub(super) fn linger_time<S>(shared: &Shared<S>) -> Duration {
    if shared.registry.is_draining() {
        LINGER_DRAINING
    } else {
        LINGER
    }
}

/// Ends our side of the stream and waits for the client to end its own. The sweep bounds the time.
pub(super) fn linger(socket: &mut Socket) {
    if socket.finish().is_err() {
        return;
    }
    let mut dropped = 0;
    let mut input = Input::default();
    while dropped < MAX_LINGER_BYTES {
        // As everywhere, no buffer is held over a wait.
        if socket.wait_readable().is_err() {
            return;
        }
        match input.room(1).and_then(|room| socket.read_ready(room)) {
            Ok(Some(0)) | Err(_) => return,
            Ok(length) => dropped += length.unwrap_or(0),
        }
        input.release();
    }
}

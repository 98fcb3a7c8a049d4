//! One connection from accept to close: requests in order, each answered before the next is read.
//!
//! ```text
//!            ┌──────────────── more is needed ───────────────┐
//!            ▼                                               │
//!   receive (Idle, Reading) ──▶ parse ──▶ drain the body ──▶ perform (Serving) ──▶ next request
//!            │                    │              │                  │
//!            └─────── rejected ───┴──────────────┘                  ├──▶ follow a feed
//!                        ▼                                          ▼
//!                   answer, then close ◀──────────── the answer says close
//! ```
//!
//! Answers to pipelined requests are collected and written before the connection waits.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access::Logged;
use super::body::BodyDrain;
use super::buffers::{Input, give_output};
use super::entry::Entry;
use super::framing::{Framing, Persistence};
use super::method::Method;
use super::phase::Phase;
use super::proxied::{self, Preface};
use super::refuse::{RETRY_FIELDS, linger, linger_time, unwatched};
use super::reject::Reject;
use super::request::{self, FieldRoom, MAX_HEAD, Request};
use super::response::{Answer, Answered, Envelope};
use super::socket::Socket;
use super::{Kind, Plan, Service, Shared};
use crate::workers;

/// Answers to pipelined requests are written together up to this many bytes.
const MAX_OUTPUT: usize = 16 * 1024;

/// What happens after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Step,
    /// Write the answers, then close in order.
    Close,
    /// Close: the client gets no answer, and nothing of it is unread.
    Drop,
}

/// Why a request could not be read to its end.
enum ReadError {
    /// The client gets an answer that says so.
    Rejected(Reject),
    /// The connection is lost, or must close.
    Lost(io::Error),
}

impl From<Reject> for ReadError {
    fn from(reject: Reject) -> Self {
        ReadError::Rejected(reject)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Lost(error)
    }
}

/// A parsed request, without its bytes.
struct Parsed<T> {
    plan: Plan<T>,
    framing: Framing,
    head_only: bool,
    /// Boxed: without an access log nothing is kept, and a request is moved three times.
    logged: Option<Box<Logged>>,
}

pub(super) struct Connection<S: Service> {
    pub(super) shared: Arc<Shared<S>>,
    session: S::Session,
    pub(super) entry: Arc<Entry>,
    pub(super) socket: Socket,
    pub(super) input: Input,
    output: Vec<u8>,
    /// The peer's address, or the one that a trusted proxy told before the first request.
    client: IpAddr,
    /// A trusted proxy may still tell the client's address.
    may_be_proxied: bool,
    /// When the incomplete request began to arrive.
    began: Option<Instant>,
    /// The input holds no complete head, and nothing has come since to change that.
    incomplete: bool,
}

/// Serves a connection until it ends, in a coroutine on the entry's worker.
pub(super) fn serve<S: Service>(shared: Arc<Shared<S>>, socket: TcpStream, entry: Arc<Entry>) {
    let socket = match Socket::new(socket, Arc::clone(&entry)) {
        Ok(socket) => socket,
        Err(error) => return unwatched(&shared, &entry, &error),
    };
    let (client, trusted) = (entry.peer, &shared.options.trusted_proxies);
    let mut connection = Connection {
        session: shared.service.session(entry.worker),
        may_be_proxied: trusted.contain(client),
        shared: Arc::clone(&shared),
        entry: Arc::clone(&entry),
        socket,
        input: Input::default(),
        output: Vec::new(),
        client,
        began: None,
        incomplete: true,
    };
    connection.run();
    drop(connection);
    shared.registry.leave(&entry);
}

impl<S: Service> Connection<S> {
    fn run(&mut self) {
        loop {
            match self.step() {
                Ok(Next::Step) if self.socket.budget.is_spent() => {
                    workers::yield_now(self.entry.worker);
                    self.socket.budget.reset();
                }
                Ok(Next::Step) => {}
                Ok(Next::Close) => return self.close(),
                Ok(Next::Drop) => return,
                // The client is gone, or takes nothing: nobody would get an answer.
                Err(_) => return give_output(std::mem::take(&mut self.output)),
            }
        }
    }

    /// Reads more, or serves one request.
    fn step(&mut self) -> io::Result<Next> {
        if self.incomplete {
            return self.receive();
        }
        let mut parsed = match self.parse() {
            Ok(Some(parsed)) => parsed,
            Ok(None) => {
                self.incomplete = true;
                return Ok(Next::Step);
            }
            Err(reject) => return Ok(self.reject_unread(reject)),
        };
        let drained = self.drain_body(parsed.framing);
        if let Some(logged) = &mut parsed.logged {
            logged.arrived(self.arrival());
        }
        match drained {
            Ok(()) => self.perform(parsed),
            Err(ReadError::Rejected(reject)) => {
                Ok(self.reject(reject, parsed.head_only, parsed.logged))
            }
            Err(ReadError::Lost(error)) => Err(error),
        }
    }

    /// Takes a head from the input; `None` while it is incomplete. The request borrows the input,
    /// so the service plans it before anything waits.
    fn parse(&mut self) -> Result<Option<Parsed<S::Task>>, Reject> {
        if self.may_be_proxied && !self.take_preface()? {
            return Ok(None);
        }
        let (parsed, length) = {
            let mut room = FieldRoom::take();
            match request::parse(self.input.unread(), &mut room)? {
                Some((request, length)) => (self.plan(&request), length),
                None => return Ok(None),
            }
        };
        self.input.consume(length);
        Ok(Some(parsed))
    }

    /// Takes what a trusted proxy may say first; says whether a request may follow it.
    fn take_preface(&mut self) -> Result<bool, Reject> {
        match proxied::preface(self.input.unread())? {
            Preface::Incomplete => return Ok(false),
            Preface::None => {}
            Preface::Header(length, client) => {
                self.client = client.unwrap_or(self.client);
                self.input.consume(length);
            }
        }
        self.may_be_proxied = false;
        Ok(!self.input.unread().is_empty())
    }

    fn plan(&self, request: &Request<'_>) -> Parsed<S::Task> {
        let options = &self.shared.options;
        let client = proxied::client(&options.trusted_proxies, self.client, request);
        Parsed {
            plan: self.shared.service.plan(request, client),
            framing: request.framing,
            head_only: request.method == Method::Head,
            logged: options
                .access_log
                .map(|log| Box::new(Logged::new(log, client, request))),
        }
    }

    /// How long the request has taken to arrive so far.
    fn arrival(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Does what the request asks for, and answers it.
    fn perform(&mut self, parsed: Parsed<S::Task>) -> io::Result<Next> {
        let Parsed {
            plan: Plan { task, kind, waits },
            framing,
            head_only,
            logged,
        } = parsed;
        self.began = None;
        if waits {
            self.flush()?;
            self.input.release();
            self.socket.budget.reset();
        }
        self.socket.budget.spend();
        self.entry.enter(Phase::Serving, None);
        // Pipelined bytes wait with the request.
        let waiting = if waits { self.input.size() } else { 0 };
        let Some(hold) = self.shared.memory.hold(waiting) else {
            return Ok(self.reject(Reject::OutOfMemory, head_only, logged));
        };
        let before = self.output.len();
        let answer = Answer {
            out: &mut self.output,
            envelope: Envelope {
                head_only,
                close: framing.persistence == Persistence::Close || self.entry.must_close(),
                old_version: framing.old_version,
                draining: self.shared.registry.draining(),
            },
        };
        let Answered {
            status,
            close,
            follows,
        } = self.shared.service.perform(&mut self.session, task, answer);
        drop(hold);
        self.shared.stats.answered(self.entry.worker, kind, status);
        if let Some(logged) = logged {
            logged.report(status, self.output.len() - before);
        }
        if let Some((feed, seen)) = follows {
            self.follow(&feed, seen)?;
        }
        if close {
            return Ok(Next::Close);
        }
        self.incomplete = self.input.unread().is_empty();
        if self.output.len() > MAX_OUTPUT {
            self.flush()?;
        }
        Ok(Next::Step)
    }

    /// Writes all answers, then waits for more bytes of a request.
    fn receive(&mut self) -> io::Result<Next> {
        self.flush()?;
        let options = &self.shared.options;
        if self.input.unread().is_empty() {
            self.input.release();
            self.began = None;
            self.entry.enter(Phase::Idle, Some(options.idle_timeout));
            if self.shared.registry.is_draining() {
                return Ok(Next::Close);
            }
        } else if self.entry.phase() != Phase::Reading {
            self.entry
                .enter(Phase::Reading, Some(options.header_timeout));
            self.began = Some(Instant::now());
        }
        let length = match self.read_some() {
            Ok(length) => length,
            // The client left, was idle for too long, or is lost: there is no request to answer.
            Err(_) if !request::has_begun(self.input.unread()) => return Ok(Next::Drop),
            Err(ReadError::Rejected(reject)) => return Ok(self.reject_unread(reject)),
            Err(ReadError::Lost(error)) => return Err(error),
        };
        self.incomplete = !self.may_be_proxied && !request::may_go_on(self.input.unread(), length);
        Ok(Next::Step)
    }

    /// Reads and drops the request's body.
    fn drain_body(&mut self, framing: Framing) -> Result<(), ReadError> {
        match BodyDrain::new(framing.body)? {
            BodyDrain::Done => Ok(()),
            body => self.drain(body, framing.expects_continue),
        }
    }

    #[inline(never)]
    fn drain(&mut self, mut body: BodyDrain, expects_continue: bool) -> Result<(), ReadError> {
        if expects_continue && self.input.unread().is_empty() {
            self.output
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.flush()?;
        self.entry
            .enter(Phase::Reading, Some(self.shared.options.header_timeout));
        self.began.get_or_insert_with(Instant::now);
        loop {
            let length = body.drain(self.input.unread())?;
            self.input.consume(length);
            if body.is_done() {
                return Ok(());
            }
            self.read_some()?;
        }
    }

    /// Receives at least one byte. A wait that ends because the client is slow, because the stream
    /// has ended, or because memory is scarce rejects the request.
    fn read_some(&mut self) -> Result<usize, ReadError> {
        match self.read_or_wait() {
            Ok(0) => Err(ReadError::Rejected(Reject::Incomplete)),
            Err(error) => Err(match error.kind() {
                ErrorKind::TimedOut if self.entry.is_overdue() || self.entry.is_evicted() => {
                    ReadError::Rejected(Reject::Slow)
                }
                ErrorKind::OutOfMemory => ReadError::Rejected(Reject::OutOfMemory),
                _ => ReadError::Lost(error),
            }),
            Ok(length) => Ok(length),
        }
    }

    /// Receives into the input. While it waits, it holds nothing but what was received before.
    fn read_or_wait(&mut self) -> io::Result<usize> {
        loop {
            if self.socket.is_readable() {
                match self.socket.read_ready(self.input.room(MAX_HEAD + 1)?)? {
                    Some(length) => {
                        self.input.received(length);
                        return Ok(length);
                    }
                    None => self.input.release(),
                }
            } else {
                self.input.release();
                let hold = self.shared.memory.hold(self.input.size());
                let _hold = hold.ok_or(ErrorKind::OutOfMemory)?;
                self.socket.wait()?;
            }
        }
    }

    /// Answers a request whose head cannot be read to its end.
    fn reject_unread(&mut self, reject: Reject) -> Next {
        let head_only = request::is_head(self.input.unread());
        self.reject(reject, head_only, None)
    }

    /// Answers a request that cannot be served. What follows it is dropped.
    #[cold]
    fn reject(&mut self, reject: Reject, head_only: bool, logged: Option<Box<Logged>>) -> Next {
        let (status, sentence) = reject.answer();
        let fields = match reject {
            Reject::OutOfMemory => RETRY_FIELDS,
            _ => "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
        };
        let body = [sentence.as_bytes(), b"\n"].concat();
        let before = self.output.len();
        let envelope = Envelope {
            head_only,
            close: true,
            old_version: false,
            draining: self.shared.registry.draining(),
        };
        let answer = Answer {
            out: &mut self.output,
            envelope,
        };
        let _ = answer.send(status, fields, &body);
        self.shared
            .stats
            .answered(self.entry.worker, Kind::Other, status);
        if let Some(log) = self.shared.options.access_log {
            let rejected = || {
                let mut logged = Logged::rejected(log, self.client, self.input.unread());
                logged.arrived(self.arrival());
                Box::new(logged)
            };
            logged
                .unwrap_or_else(rejected)
                .report(status, self.output.len() - before);
        }
        Next::Close
    }

    /// Writes the answers so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.entry
            .enter(Phase::Writing, Some(self.shared.options.header_timeout));
        let written = self.write_output();
        give_output(std::mem::take(&mut self.output));
        if written.is_err() {
            self.socket.discard_unsent();
        }
        written
    }

    fn write_output(&mut self) -> io::Result<()> {
        let written = self.socket.write_ready(&self.output)?;
        if written == self.output.len() {
            return Ok(());
        }
        let held = self.output.capacity() + self.input.size();
        let hold = self.shared.memory.hold(held);
        let _hold = hold.ok_or(ErrorKind::OutOfMemory)?;
        self.socket.wait()?;
        self.socket.write_all(&self.output[written..])
    }

    /// An orderly close (RFC 9112, section 9.6): write all, end our side, and read for a while what
    /// the client still sends, since a reset would take the answer from it.
    fn close(&mut self) {
        if self.flush().is_err() {
            return;
        }
        // Others need the room now.
        if !self.entry.is_evicted() {
            self.entry
                .enter(Phase::Writing, Some(linger_time(&self.shared)));
            linger(&mut self.socket);
        }
    }
}

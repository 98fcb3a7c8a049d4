//! One connection from accept to close: requests in order, each answered before the next is read.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::Skipper;
use super::buffers::{Input, give_output};
use super::feed::Feed;
use super::registry::{Phase, Place};
use super::request::{self, Framing, MAX_HEAD, Method, Persistence, Reject, Request};
use super::response::{Answer, Answered, Envelope, Status};
use super::socket::Socket;
use super::{Access, Service, Shared};

/// Answers to pipelined requests are written together up to this many bytes.
const MAX_OUTPUT: usize = 64 * 1024;
/// Time a client has to end its side after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// The same while the process stops, which must not wait for clients that never will.
const LINGER_DRAINING: Duration = Duration::from_millis(200);
/// The most bytes read and dropped meanwhile: a client that still sends would else lose the answer to a reset.
const MAX_LINGER_BYTES: usize = 256 * 1024;

/// What happens after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another step.
    Step,
    /// Write what is there, then an orderly close.
    Close,
}

/// What a request comes to, without its bytes.
struct Plan<T> {
    task: T,
    framing: Framing,
    head_only: bool,
    logged: Option<Logged>,
}

/// What the access log needs to keep of a request until it is answered.
struct Logged {
    report: fn(&Access<'_>),
    method: String,
    target: String,
    began: Instant,
}

impl Logged {
    fn new(report: fn(&Access<'_>), request: &Request<'_>) -> Self {
        let (method, target) = (request.method.name().to_owned(), request.target.to_owned());
        Logged { report, method, target, began: Instant::now() }
    }

    fn report(&self, peer: IpAddr, status: Status, bytes: usize) {
        let Logged { report, method, target, began } = self;
        report(&Access { peer, method, target, status, bytes, took: began.elapsed() });
    }
}

struct Connection<S: Service> {
    shared: Arc<Shared<S>>,
    session: S::Session,
    worker: usize,
    place: Place,
    socket: Socket,
    input: Input,
    output: Vec<u8>,
    /// Nothing new came since the head was found incomplete, so there is no use in parsing it again.
    incomplete: bool,
}

/// Serves a connection until it ends. To be called in a coroutine on worker `worker`, which watches the socket.
pub(super) fn serve<S: Service>(shared: Arc<Shared<S>>, socket: TcpStream, place: Place, worker: usize) {
    match Socket::new(socket) {
        Ok(socket) => {
            let session = shared.service.session(worker);
            let (input, output) = (Input::default(), Vec::new());
            let mut connection = Connection { shared, session, worker, place, socket, input, output, incomplete: true };
            connection.run();
            let Connection { shared, place, socket, .. } = connection;
            shared.registry.leave(&place);
            drop(socket);
        }
        Err(error) => {
            log::error!("a connection could not be watched: {error}");
            shared.registry.leave(&place);
        }
    }
}

/// Answers a connection that is one too many, and closes it.
pub(super) fn refuse<S: Service>(shared: &Arc<Shared<S>>, socket: TcpStream, place: &Place) {
    let mut output = Vec::new();
    let envelope = Envelope { head_only: false, close: true, old_version: false, draining: shared.registry.draining() };
    let answer = Answer { out: &mut output, envelope, answered: &mut None };
    let fields = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nRetry-After: 1\r\n";
    answer.send(Status::ServiceUnavailable, fields, b"Too many connections are open. Please try again.\n");
    if let Ok(mut socket) = Socket::new(socket) {
        place.entry.enter(Phase::Writing, Some(LINGER));
        if socket.write_all(&output).is_ok() {
            linger(&mut socket);
        }
        shared.registry.leave(place);
        drop(socket);
    } else {
        shared.registry.leave(place);
    }
    give_output(output);
}

impl<S: Service> Connection<S> {
    fn run(&mut self) {
        loop {
            match self.step() {
                Ok(Next::Step) => {}
                Ok(Next::Close) => return self.close(),
                // The client is gone: nobody to tell.
                Err(_) => return give_output(std::mem::take(&mut self.output)),
            }
        }
    }

    /// Reads more, or serves one request.
    fn step(&mut self) -> io::Result<Next> {
        if self.incomplete {
            return self.receive();
        }
        // The request borrows the input, so what it asks for is found out before anything waits.
        let parsed = request::parse(self.input.unread(), |parsed| {
            parsed.map(|whole| whole.map(|(request, length)| (self.plan(&request), length)))
        });
        let (plan, length) = match parsed {
            Ok(Some(planned)) => planned,
            Ok(None) => {
                self.incomplete = true;
                return Ok(Next::Step);
            }
            Err(reject) => return Ok(self.reject(reject)),
        };
        self.input.consume(length);
        if let Err(reject) = self.skip_body(plan.framing)? {
            return Ok(self.reject(reject));
        }
        self.perform(plan)
    }

    fn plan(&self, request: &Request<'_>) -> Plan<S::Task> {
        Plan {
            task: self.shared.service.plan(request),
            framing: request.framing,
            head_only: request.method == Method::Head,
            logged: self.shared.options.access_log.map(|report| Logged::new(report, request)),
        }
    }

    /// Does what the request asks for, and answers it.
    fn perform(&mut self, plan: Plan<S::Task>) -> io::Result<Next> {
        let Plan { task, framing, head_only, logged } = plan;
        if self.shared.service.waits(&task) {
            self.flush()?;
        }
        self.place.entry.enter(Phase::Serving, None);
        let Connection { shared, session, output, .. } = self;
        let close = framing.persistence == Persistence::Close;
        let draining = shared.registry.draining();
        let envelope = Envelope { head_only, close, old_version: framing.old_version, draining };
        let (before, mut answered) = (output.len(), None);
        shared.service.perform(session, task, Answer { out: output, envelope, answered: &mut answered });
        let length = output.len() - before;
        // A service that answered nothing has a defect, which must not become a connection that hangs.
        let Some(Answered { status, close, follows }) = answered else { return Ok(Next::Close) };
        self.shared.stats.answered(self.worker, status);
        if let Some(logged) = logged {
            logged.report(self.place.peer, status, length);
        }
        if let Some(feed) = follows {
            self.follow(&feed)?;
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

    /// Sends what comes on the feed until the client ends the connection or the server drains.
    fn follow(&mut self, feed: &Feed) -> io::Result<()> {
        self.input = Input::default();
        let mut seen = feed.latest().number;
        feed.join(self.worker, self.place.index(), self.socket.waker());
        let ended = self.flush().and_then(|()| self.send_messages(feed, &mut seen));
        feed.leave(self.worker, self.place.index());
        ended
    }

    fn send_messages(&mut self, feed: &Feed, seen: &mut u64) -> io::Result<()> {
        let mut dropped = 0;
        loop {
            let message = feed.latest();
            if message.number != *seen {
                *seen = message.number;
                self.place.entry.enter(Phase::Writing, Some(self.shared.options.header_timeout));
                self.socket.write_all(&message.bytes)?;
            }
            self.place.entry.enter(Phase::Idle, None);
            if self.shared.registry.is_draining() {
                return Ok(());
            }
            // Nothing is expected from the client but its end.
            if self.socket.wait_event() {
                let read = self.socket.read_ready(self.input.room(1))?;
                self.input.rest();
                dropped += read.unwrap_or(0);
                if read == Some(0) || dropped > MAX_LINGER_BYTES {
                    return Ok(());
                }
            }
        }
    }

    /// Waits for more bytes of a request, once all answers so far are written.
    fn receive(&mut self) -> io::Result<Next> {
        self.flush()?;
        let waiting = self.input.unread().len();
        let options = &self.shared.options;
        if waiting == 0 {
            self.input.rest();
            self.place.entry.enter(Phase::Idle, Some(options.idle_timeout));
            if self.shared.registry.is_draining() {
                return Ok(Next::Close);
            }
        } else if self.place.entry.phase() != Phase::Reading {
            self.place.entry.enter(Phase::Reading, Some(options.header_timeout));
        }
        if self.read_some(MAX_HEAD + 1)? == 0 {
            return Ok(match waiting {
                0 => Next::Close,
                _ if self.place.entry.is_overdue() => self.reject(Reject::Slow),
                _ => self.reject(Reject::Incomplete),
            });
        }
        // A head is parsed when its first bytes come, so that what is no HTTP is refused at once, and then only when
        // its end may be there: else each byte of a slow one would have it parsed anew.
        self.incomplete = waiting > 0 && self.input.unread().len() <= MAX_HEAD && !self.has_head_end(waiting);
        Ok(Next::Step)
    }

    /// Whether an empty line ends in the bytes from `from` on.
    fn has_head_end(&self, from: usize) -> bool {
        let unread = self.input.unread();
        let tail = &unread[from.saturating_sub(3)..];
        tail.windows(2).any(|pair| pair == b"\n\n") || tail.windows(4).any(|four| four == b"\r\n\r\n")
    }

    /// Reads and drops the request's body.
    fn skip_body(&mut self, framing: Framing) -> io::Result<Result<(), Reject>> {
        let mut body = match Skipper::new(framing.body) {
            Ok(Skipper::Done) => return Ok(Ok(())),
            Ok(body) => body,
            Err(reject) => return Ok(Err(reject)),
        };
        if framing.expects_continue && self.input.unread().is_empty() {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.flush()?;
        self.place.entry.enter(Phase::Reading, Some(self.shared.options.header_timeout));
        loop {
            match body.skip(self.input.unread()) {
                Ok(length) => self.input.consume(length),
                Err(reject) => return Ok(Err(reject)),
            }
            if body.is_done() {
                return Ok(Ok(()));
            }
            if self.read_some(MAX_HEAD + 1)? == 0 {
                let reject = if self.place.entry.is_overdue() { Reject::Slow } else { Reject::Incomplete };
                return Ok(Err(reject));
            }
        }
    }

    /// Receives what is there into the input, of which at most `most` bytes are kept.
    fn read_some(&mut self, most: usize) -> io::Result<usize> {
        // The wait comes before the buffer is taken, so that a connection that waits holds none.
        self.socket.wait_readable();
        let length = self.socket.read(self.input.room(most))?;
        self.input.received(length);
        Ok(length)
    }

    fn reject(&mut self, reject: Reject) -> Next {
        let (status, sentence) = reject.answer();
        let draining = self.shared.registry.draining();
        let envelope = Envelope { head_only: false, close: true, old_version: false, draining };
        let fields = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n";
        let body = [sentence.as_bytes(), b"\n"].concat();
        Answer { out: &mut self.output, envelope, answered: &mut None }.send(status, fields, &body);
        self.shared.stats.answered(self.worker, status);
        Next::Close
    }

    /// Writes the answers so far.
    fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.place.entry.enter(Phase::Writing, Some(self.shared.options.header_timeout));
        let written = self.socket.write_all(&self.output);
        give_output(std::mem::take(&mut self.output));
        written
    }

    /// An orderly close (RFC 9112, section 9.6): all is written, our side ends, and what the client still sends is read
    /// for a while, since a reset would take the answer from it.
    fn close(&mut self) {
        if self.flush().is_ok() {
            let linger_time = if self.shared.registry.is_draining() { LINGER_DRAINING } else { LINGER };
            self.place.entry.enter(Phase::Writing, Some(linger_time));
            linger(&mut self.socket);
        }
    }
}

/// Ends our side of the stream and waits for the client to end its own, bounded in bytes here and in time by the sweep.
fn linger(socket: &mut Socket) {
    if socket.finish().is_err() {
        return;
    }
    let mut dropped = 0;
    let mut input = Input::default();
    while dropped < MAX_LINGER_BYTES {
        socket.wait_readable();
        match socket.read(input.room(1)) {
            Ok(0) | Err(_) => return,
            Ok(length) => dropped += length,
        }
        input.rest();
    }
}

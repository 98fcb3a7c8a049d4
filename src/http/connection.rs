//! One connection from accept to close: requests in order, each answered before the next is read.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::Skipper;
use super::buffers::{Input, give_output};
use super::feed::Feed;
use super::framing::{Framing, Persistence};
use super::proxied::{self, Preface};
use super::registry::{Phase, Place, milliseconds};
use super::reject::Reject;
use super::request::{self, MAX_HEAD, MAX_LINE, Method, Request};
use super::response::{Answer, Answered, Envelope, Status};
use super::socket::Socket;
use super::turn::give_way;
use super::{Access, Kind, Service, Shared};
use crate::clock;

/// Answers to pipelined requests are written together up to this many bytes.
const MAX_OUTPUT: usize = 16 * 1024;
/// Time a client has to end its side after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// The same while the process stops, which must not wait for clients that never will.
const LINGER_DRAINING: Duration = Duration::from_millis(200);
/// The most bytes read and dropped meanwhile: a client that still sends would else lose the answer
/// to a reset.
const MAX_LINGER_BYTES: usize = 256 * 1024;

/// Of the connections that may be open, the part that may follow a feed: one in so many.
const FOLLOWING_SHARE: usize = 4;
/// A connection may follow a feed for so many idle time-outs: an hour by default.
const FOLLOWING_TIMES: u32 = 60;

/// The header fields of an answer to whom there is no room for now.
const REFUSAL_FIELDS: &str =
    "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nRetry-After: 1\r\n";

/// What happens after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another step.
    Step,
    /// Write what is there, then an orderly close.
    Close,
    /// Close: the client is owed nothing, and nothing of it is unread.
    Drop,
}

/// What a request comes to, without its bytes.
struct Plan<T> {
    task: T,
    framing: Framing,
    head_only: bool,
    kind: Kind,
    logged: Option<Logged>,
}

/// What the access log needs to keep of a request until it is answered.
struct Logged {
    report: fn(&Access<'_>),
    client: IpAddr,
    method: String,
    target: String,
    agent: Option<String>,
    arrival: Duration,
    arrived: Instant,
}

impl Logged {
    fn new(
        report: fn(&Access<'_>),
        client: IpAddr,
        request: &Request<'_>,
        arrival: Duration,
    ) -> Self {
        let (method, target) = (request.method.name().to_owned(), request.target.to_owned());
        let agent = request
            .fields("user-agent")
            .next()
            .map(|agent| String::from_utf8_lossy(agent).into_owned());
        Logged {
            report,
            client,
            method,
            target,
            agent,
            arrival,
            arrived: Instant::now(),
        }
    }

    /// What can be said of a request that was refused: its first line, if that much came.
    fn refused(report: fn(&Access<'_>), client: IpAddr, bytes: &[u8], arrival: Duration) -> Self {
        let line = bytes
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .find(|line| !line.is_empty());
        let line = String::from_utf8_lossy(
            &line.unwrap_or_default()[..line.map_or(0, |line| line.len().min(MAX_LINE))],
        );
        let mut words = line
            .splitn(3, ' ')
            .map(|word| if word.is_empty() { "-" } else { word }.to_owned());
        let mut next = || words.next().unwrap_or_else(|| "-".to_owned());
        let (method, target) = (next(), next());
        Logged {
            report,
            client,
            method,
            target,
            agent: None,
            arrival,
            arrived: Instant::now(),
        }
    }

    fn report(&self, status: Status, bytes: usize) {
        let Logged {
            report,
            client,
            method,
            target,
            agent,
            arrival,
            arrived,
        } = self;
        let took = arrived.elapsed();
        let agent = agent.as_deref();
        report(&Access {
            client: *client,
            method,
            target,
            agent,
            status,
            bytes,
            arrival: *arrival,
            took,
        });
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
    /// The peer's address, or the one that a trusted proxy told before the first request.
    client: IpAddr,
    /// A trusted proxy may tell the client's address before the first request.
    may_be_proxied: bool,
    /// When the request that is not complete began to arrive.
    began: Option<Instant>,
    /// A head that is not complete was parsed, and nothing came since that could change that.
    incomplete: bool,
}

/// Serves a connection until it ends. To be called in a coroutine on worker `worker`, which watches
/// the socket.
pub(super) fn serve<S: Service>(
    shared: Arc<Shared<S>>,
    socket: TcpStream,
    place: Place,
    worker: usize,
) {
    match Socket::new(socket, Arc::clone(&place.entry)) {
        Ok(socket) => {
            let session = shared.service.session(worker);
            let (client, trusted) = (place.peer, &shared.options.trusted_proxies);
            let mut connection = Connection {
                may_be_proxied: !trusted.is_empty() && trusted.contain(client),
                shared,
                session,
                worker,
                place,
                socket,
                input: Input::default(),
                output: Vec::new(),
                client,
                began: None,
                incomplete: true,
            };
            connection.run();
            let Connection {
                shared,
                place,
                socket,
                ..
            } = connection;
            drop(socket);
            shared.registry.leave(&place);
        }
        Err(error) => unwatched(&shared, &place, &error),
    }
}

/// Answers a connection that is one too many, and closes it.
pub(super) fn refuse<S: Service>(shared: &Arc<Shared<S>>, socket: TcpStream, place: &Place) {
    let mut socket = match Socket::new(socket, Arc::clone(&place.entry)) {
        Ok(socket) => socket,
        Err(error) => return unwatched(shared, place, &error),
    };
    // Most have sent their request by now. Nobody waits for the others.
    let mut input = Input::default();
    if let Ok(Some(length)) = input.room(1).and_then(|room| socket.read_ready(room)) {
        input.received(length);
    }
    let mut output = Vec::new();
    let (head_only, draining) = (request::is_head(input.unread()), shared.registry.draining());
    let envelope = Envelope {
        head_only,
        close: true,
        old_version: false,
        draining,
    };
    let answer = Answer {
        out: &mut output,
        envelope,
        answered: &mut None,
    };
    answer.send(
        Status::ServiceUnavailable,
        REFUSAL_FIELDS,
        b"Too many connections are open. Please try again.\n",
    );
    if let Some(report) = shared.options.access_log {
        let logged = Logged::refused(report, place.peer, input.unread(), Duration::ZERO);
        logged.report(Status::ServiceUnavailable, output.len());
    }
    drop(input);
    place.entry.enter(Phase::Writing, Some(linger_time(shared)));
    if socket.write_all(&output).is_ok() {
        linger(&mut socket);
    }
    drop(socket);
    shared.registry.leave(place);
    give_output(output);
}

/// The system has no room to watch one more socket, which is closed by now.
#[cold]
fn unwatched<S>(shared: &Shared<S>, place: &Place, error: &io::Error) {
    shared.registry.leave(place);
    log::error!("a connection could not be watched, and was closed: {error}");
}

impl<S: Service> Connection<S> {
    fn run(&mut self) {
        loop {
            match self.step() {
                Ok(Next::Step) if self.socket.turn.is_over() => {
                    give_way(self.worker);
                    self.socket.turn.begin();
                }
                Ok(Next::Step) => {}
                Ok(Next::Close) => return self.close(),
                Ok(Next::Drop) => return,
                // The client is gone, or takes nothing: there is nobody to tell.
                Err(_) => return give_output(std::mem::take(&mut self.output)),
            }
        }
    }

    /// Reads more, or serves one request.
    fn step(&mut self) -> io::Result<Next> {
        if self.incomplete {
            return self.receive();
        }
        let mut planned = match self.parse() {
            Ok(Some(planned)) => planned,
            Ok(None) => {
                self.incomplete = true;
                return Ok(Next::Step);
            }
            Err(reject) => return Ok(self.reject_unread(reject)),
        };
        let skipped = self.skip_body(planned.framing)?;
        if let (Some(logged), Some(_)) = (&mut planned.logged, self.began) {
            (logged.arrival, logged.arrived) = (self.arrival(), Instant::now());
        }
        if let Err(reject) = skipped {
            return Ok(self.reject(reject, planned.head_only, planned.logged));
        }
        self.perform(planned)
    }

    /// Takes a head from the input; none while it is not complete. The request borrows the input,
    /// so what it asks for is found out before anything waits.
    fn parse(&mut self) -> Result<Option<Plan<S::Task>>, Reject> {
        if self.may_be_proxied && !self.take_preface()? {
            return Ok(None);
        }
        let parsed = request::parse(self.input.unread(), |parsed| {
            parsed.map(|whole| whole.map(|(request, length)| (self.plan(&request), length)))
        });
        Ok(parsed?.map(|(plan, length)| {
            self.input.consume(length);
            plan
        }))
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

    fn plan(&self, request: &Request<'_>) -> Plan<S::Task> {
        let Shared {
            options, service, ..
        } = &*self.shared;
        let client = proxied::client(&options.trusted_proxies, self.client, request);
        let task = service.plan(request, client);
        Plan {
            kind: service.kind(&task),
            task,
            framing: request.framing,
            head_only: request.method == Method::Head,
            logged: options
                .access_log
                .map(|report| Logged::new(report, client, request, self.arrival())),
        }
    }

    /// How long the request took to arrive, so far.
    fn arrival(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Does what the request asks for, and answers it.
    fn perform(&mut self, plan: Plan<S::Task>) -> io::Result<Next> {
        let Plan {
            task,
            framing,
            head_only,
            kind,
            logged,
        } = plan;
        self.began = None;
        let waits = self.shared.service.waits(&task);
        if waits {
            self.flush()?;
            self.input.rest();
            self.socket.turn.begin();
        }
        self.socket.turn.count();
        self.place.entry.enter(Phase::Serving, None);
        let Connection {
            shared,
            session,
            output,
            place,
            input,
            ..
        } = self;
        // What came behind the request waits with it.
        let Some(held) = shared.budget.hold(if waits { input.size() } else { 0 }) else {
            return Ok(self.reject(Reject::Crowded, head_only, logged));
        };
        let close = framing.persistence == Persistence::Close || place.entry.is_asked();
        let draining = shared.registry.draining();
        let envelope = Envelope {
            head_only,
            close,
            old_version: framing.old_version,
            draining,
        };
        let (before, mut answered) = (output.len(), None);
        shared.service.perform(
            session,
            task,
            Answer {
                out: output,
                envelope,
                answered: &mut answered,
            },
        );
        drop(held);
        let length = output.len() - before;
        // A service that answered nothing has a defect, which must not become a connection that
        // hangs.
        let Some(Answered {
            status,
            close,
            follows,
        }) = answered
        else {
            return Ok(Next::Close);
        };
        self.shared.stats.answered(self.worker, kind, status);
        if let Some(logged) = logged {
            logged.report(status, length);
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
        let options = &self.shared.options;
        let most = (options.max_connections / FOLLOWING_SHARE / options.workers).max(1);
        if feed.join(self.worker, &self.place.entry, most) {
            self.shared.stats.evicted(Phase::Following);
        }
        let ended = self
            .flush()
            .and_then(|()| self.send_messages(feed, &mut seen));
        feed.leave(self.worker, &self.place.entry);
        ended
    }

    fn send_messages(&mut self, feed: &Feed, seen: &mut u64) -> io::Result<()> {
        let mut dropped = 0;
        let until_ms = clock::monotonic_ms()
            + milliseconds(self.shared.options.idle_timeout * FOLLOWING_TIMES);
        loop {
            let message = feed.latest();
            if message.number != *seen {
                *seen = message.number;
                self.place
                    .entry
                    .enter(Phase::Writing, Some(self.shared.options.header_timeout));
                self.socket.write_all(&message.bytes)?;
            }
            self.place.entry.enter_until(Phase::Following, until_ms);
            if self.shared.registry.is_draining() {
                return Ok(());
            }
            // Nothing is expected from the client but its end.
            let readable = match self.socket.wait_event() {
                // It was asked to end, by a drain or to make room, or is there for long enough.
                Err(over) if over.kind() == ErrorKind::TimedOut => return Ok(()),
                other => other?,
            };
            if readable {
                let read = self.socket.read_ready(self.input.room(1)?)?;
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
            self.began = None;
            self.place
                .entry
                .enter(Phase::Idle, Some(options.idle_timeout));
            if self.shared.registry.is_draining() {
                return Ok(Next::Close);
            }
        } else if self.place.entry.phase() != Phase::Reading {
            self.place
                .entry
                .enter(Phase::Reading, Some(options.header_timeout));
            self.began = Some(Instant::now());
        }
        let read = self.read_some();
        if !matches!(read, Ok(1..)) && !request::has_begun(self.input.unread()) {
            // The client went away, or was idle for too long, or the connection is lost: there is
            // no request to answer.
            return Ok(Next::Drop);
        }
        let length = match self.unless_refused(read)? {
            Ok(0) => return Ok(self.reject_unread(Reject::Incomplete)),
            Ok(length) => length,
            Err(reject) => return Ok(self.reject_unread(reject)),
        };
        self.incomplete = !self.may_be_proxied && !request::may_go_on(self.input.unread(), length);
        Ok(Next::Step)
    }

    /// Reads and drops the request's body.
    fn skip_body(&mut self, framing: Framing) -> io::Result<Result<(), Reject>> {
        match Skipper::new(framing.body) {
            Ok(Skipper::Done) => Ok(Ok(())),
            Ok(body) => self.skip(body, framing.expects_continue),
            Err(reject) => Ok(Err(reject)),
        }
    }

    #[inline(never)]
    fn skip(
        &mut self,
        mut body: Skipper,
        expects_continue: bool,
    ) -> io::Result<Result<(), Reject>> {
        if expects_continue && self.input.unread().is_empty() {
            self.output
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.flush()?;
        self.place
            .entry
            .enter(Phase::Reading, Some(self.shared.options.header_timeout));
        self.began.get_or_insert_with(Instant::now);
        loop {
            match body.skip(self.input.unread()) {
                Ok(length) => self.input.consume(length),
                Err(reject) => return Ok(Err(reject)),
            }
            if body.is_done() {
                return Ok(Ok(()));
            }
            let read = self.read_some();
            match self.unless_refused(read)? {
                Ok(0) => return Ok(Err(Reject::Incomplete)),
                Ok(_) => {}
                Err(reject) => return Ok(Err(reject)),
            }
        }
    }

    /// Receives what is there into the input, waiting for it with nothing but what was received
    /// before.
    fn read_some(&mut self) -> io::Result<usize> {
        loop {
            if self.socket.is_readable() {
                match self.socket.read_ready(self.input.room(MAX_HEAD + 1)?)? {
                    Some(length) => {
                        self.input.received(length);
                        return Ok(length);
                    }
                    None => self.input.rest(),
                }
            } else {
                self.input.rest();
                let held = self.shared.budget.hold(self.input.size());
                let _held = held.ok_or(ErrorKind::OutOfMemory)?;
                self.socket.wait()?;
            }
        }
    }

    /// A read that ended because the client's time was up, or because others need the memory, is a
    /// reason to refuse the request.
    fn unless_refused(&self, read: io::Result<usize>) -> io::Result<Result<usize, Reject>> {
        let entry = &self.place.entry;
        match read.as_ref().map_err(io::Error::kind) {
            Err(ErrorKind::TimedOut) if entry.is_overdue() || entry.is_evicted() => {
                Ok(Err(Reject::Slow))
            }
            Err(ErrorKind::OutOfMemory) => Ok(Err(Reject::Crowded)),
            _ => read.map(Ok),
        }
    }

    /// Answers a request whose head cannot be read to its end.
    fn reject_unread(&mut self, reject: Reject) -> Next {
        let head_only = request::is_head(self.input.unread());
        self.reject(reject, head_only, None)
    }

    /// Answers a request that cannot be served. Nothing after it is looked at.
    #[cold]
    fn reject(&mut self, reject: Reject, head_only: bool, logged: Option<Logged>) -> Next {
        let (status, sentence) = reject.answer();
        let draining = self.shared.registry.draining();
        let envelope = Envelope {
            head_only,
            close: true,
            old_version: false,
            draining,
        };
        let fields = match reject {
            Reject::Crowded => REFUSAL_FIELDS,
            _ => "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
        };
        let body = [sentence.as_bytes(), b"\n"].concat();
        let before = self.output.len();
        Answer {
            out: &mut self.output,
            envelope,
            answered: &mut None,
        }
        .send(status, fields, &body);
        self.shared.stats.answered(self.worker, Kind::Other, status);
        if let Some(report) = self.shared.options.access_log {
            let refused =
                || Logged::refused(report, self.client, self.input.unread(), self.arrival());
            logged
                .unwrap_or_else(refused)
                .report(status, self.output.len() - before);
        }
        Next::Close
    }

    /// Writes the answers so far.
    fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.place
            .entry
            .enter(Phase::Writing, Some(self.shared.options.header_timeout));
        let written = self.write_output();
        give_output(std::mem::take(&mut self.output));
        if written.is_err() {
            self.socket.give_up();
        }
        written
    }

    fn write_output(&mut self) -> io::Result<()> {
        let written = self.socket.write_ready(&self.output)?;
        if written == self.output.len() {
            return Ok(());
        }
        let held = self
            .shared
            .budget
            .hold(self.output.capacity() + self.input.size());
        let _held = held.ok_or(ErrorKind::OutOfMemory)?;
        self.socket.wait()?;
        self.socket.write_all(&self.output[written..])
    }

    /// An orderly close (RFC 9112, section 9.6): all is written, our side ends, and what the client
    /// still sends is read for a while, since a reset would take the answer from it.
    fn close(&mut self) {
        if self.flush().is_err() {
            return;
        }
        // Others need the room now.
        if !self.place.entry.is_evicted() {
            self.place
                .entry
                .enter(Phase::Writing, Some(linger_time(&self.shared)));
            linger(&mut self.socket);
        }
    }
}

fn linger_time<S>(shared: &Shared<S>) -> Duration {
    if shared.registry.is_draining() {
        LINGER_DRAINING
    } else {
        LINGER
    }
}

/// Ends our side of the stream and waits for the client to end its own, bounded in bytes here and
/// in time by the sweep.
fn linger(socket: &mut Socket) {
    if socket.finish().is_err() {
        return;
    }
    let mut dropped = 0;
    let mut input = Input::default();
    while dropped < MAX_LINGER_BYTES {
        // As everywhere, nothing is held while waiting.
        if socket.wait_readable().is_err() {
            return;
        }
        match input.room(1).and_then(|room| socket.read_ready(room)) {
            Ok(Some(0)) | Err(_) => return,
            Ok(length) => dropped += length.unwrap_or(0),
        }
        input.rest();
    }
}

//! A server's protocol, one statement at a time, over a connection on which every wait has a
//! deadline (PostgreSQL manual, "Frontend/Backend Protocol").

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{
    DataRowBody, Message, NoticeResponseBody, RowDescriptionBody,
};
use postgres_protocol::message::frontend;
use postgres_types::{FromSql, IsNull, ToSql, Type};

use super::failure::{Failure, ServerError};
use crate::visits::ledger::Meanwhile;
use crate::visits::store::Wire;

/// A value of a statement, with its type.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection unused for this long is checked before the next statement.
const STALE_AFTER: Duration = Duration::from_millis(500);
/// No answer is larger: the longest has some hundred rows of numbers.
const BYTES_AT_MOST: usize = 16 << 20;
/// Numbers, times and text travel in the types' own formats, both ways.
const BINARY: i16 = 1;

/// A session of a server, or of a pooler.
pub(super) struct Client {
    wire: Wire,
    /// What came and was not read yet.
    received: BytesMut,
    /// What is sent next.
    message: BytesMut,
    /// Time for the call in flight, for its error.
    limit: Duration,
    /// The server's process, and the key to cancel its statement.
    pub(super) process: (i32, i32),
    /// The last warning of class 01 since it was taken.
    warning: Option<String>,
    /// No statement is in flight, and the connection works.
    idle: bool,
    /// When the last answer was read to its end.
    used: Instant,
}

/// A statement that the server has parsed.
pub(super) struct Statement {
    name: &'static str,
    types: &'static [Type],
    columns: Columns,
}

type Columns = Arc<[Type]>;

/// One row of an answer.
pub(super) struct Row {
    columns: Columns,
    body: DataRowBody,
}

impl Row {
    /// The value of that column.
    ///
    /// # Errors
    /// When it has another type, or is null where it must not be.
    pub(super) fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, Failure> {
        const OTHER: Failure = Failure::Protocol("a column of another type");
        let kind = self.columns.get(column).ok_or(Failure::NoRow)?;
        if !T::accepts(kind) {
            return Err(OTHER);
        }
        let range = self.body.ranges().nth(column);
        let range = range.ok().flatten().ok_or(Failure::NoRow)?;
        let value = range.and_then(|range| self.body.buffer().get(range));
        T::from_sql_nullable(kind, value).map_err(|_| OTHER)
    }
}

impl Client {
    /// A client that has not logged in.
    pub(super) fn new(wire: Wire) -> Client {
        Client {
            wire,
            received: BytesMut::new(),
            message: BytesMut::new(),
            limit: Duration::ZERO,
            process: (0, 0),
            warning: None,
            idle: false,
            used: Instant::now(),
        }
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Gives what follows that time together.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.set_deadline(Instant::now(), limit);
    }

    /// Gives what follows that time since `began`.
    pub(super) fn set_deadline(&mut self, began: Instant, limit: Duration) {
        self.limit = limit;
        self.wire.set_deadline(began + limit);
    }

    /// The last warning of class 01. PostgreSQL gives one when the wait for a standby was
    /// cancelled: the transaction is committed here and perhaps nowhere else.
    pub(super) fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Whether the server still has this connection, as far as can be told without asking it. Where
    /// it was unused for a while, what the server said unasked (a setting that changed, that it
    /// shuts down) is read.
    pub(super) fn is_alive(&mut self) -> bool {
        if self.used.elapsed() < STALE_AFTER {
            return true;
        }
        if self.idle && !self.wire.is_silent() {
            self.wire.set_deadline(Instant::now());
            let heard = self.next_message();
            self.idle = matches!(heard, Err(Failure::Slow(_)));
        }
        self.idle
    }

    /// Runs the statements of a script.
    pub(super) fn batch_execute(&mut self, script: &str) -> Result<(), Failure> {
        self.begin()?;
        self.write(|to| frontend::query(script, to))?;
        self.answer(None).map(|_| ())
    }

    /// Runs a `COPY ... TO STDOUT`. Gives each piece, which comes within `limit`, to `take`; where
    /// that wants no more, the session is closed.
    pub(super) fn copy_out(
        &mut self,
        text: &str,
        limit: Duration,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        self.begin()?;
        self.write(|to| frontend::query(text, to))?;
        loop {
            // The time that `take` needs does not count.
            self.set_limit(limit);
            match self.next_message()? {
                Message::CopyData(body) if take(body.data()) => {}
                Message::CopyData(_) => return Err(Failure::Closed),
                Message::ErrorResponse(body) => {
                    return Err(server_error(ServerError::read(body.fields())));
                }
                Message::ReadyForQuery(_) => break,
                Message::CopyOutResponse(_) | Message::CopyDone | Message::CommandComplete(_) => {}
                _ => return Err(Failure::Protocol("a message that is not of a copy")),
            }
        }
        self.end();
        Ok(())
    }

    /// Runs one statement that is parsed for it alone.
    pub(super) fn query(&mut self, text: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        self.send_text(text, params)?;
        self.answer(None)
    }

    /// Sends what [`Client::query`] would; [`Client::receive`] is the next call.
    pub(super) fn send_text(&mut self, text: &str, params: &[Param<'_>]) -> Result<(), Failure> {
        self.begin()?;
        let types = params.iter().map(|(_, kind)| kind.oid());
        frontend::parse("", text, types, &mut self.message).map_err(|_| UNSENDABLE)?;
        self.bind("", params.iter().map(|(value, kind)| (*value, kind)))?;
        frontend::describe(b'P', "", &mut self.message).map_err(|_| UNSENDABLE)?;
        self.execute()
    }

    /// As [`Client::query`], for a statement that gives a row.
    pub(super) fn query_one(&mut self, text: &str, params: &[Param<'_>]) -> Result<Row, Failure> {
        self.query(text, params)?.pop().ok_or(Failure::NoRow)
    }

    /// Has the server parse a statement once, for [`Client::send`].
    pub(super) fn prepare(
        &mut self,
        name: &'static str,
        text: &str,
        types: &'static [Type],
    ) -> Result<Statement, Failure> {
        self.begin()?;
        self.write(|to| {
            frontend::parse(name, text, types.iter().map(Type::oid), to)?;
            frontend::describe(b'S', name, to)?;
            frontend::sync(to);
            Ok(())
        })?;
        let mut columns = Columns::from([]);
        self.read_answer(&mut columns, &mut |_| {})?;
        Ok(Statement {
            name,
            types,
            columns,
        })
    }

    /// Sends a statement; [`Client::receive`] is the next call.
    pub(super) fn send(
        &mut self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Failure> {
        self.begin()?;
        let params = params.iter().copied().zip(statement.types);
        self.bind(statement.name, params)?;
        self.execute()
    }

    /// Calls `meanwhile`, then waits for the row that the statement gives.
    pub(super) fn receive(
        &mut self,
        statement: Option<&Statement>,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Row, Failure> {
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let rows = self.answer(statement.map(|statement| Arc::clone(&statement.columns)));
        rows?.pop().ok_or(Failure::NoRow)
    }

    fn bind<'a>(
        &mut self,
        statement: &str,
        params: impl Iterator<Item = (&'a (dyn ToSql + Sync), &'a Type)>,
    ) -> Result<(), Failure> {
        let value = |(value, kind): (&(dyn ToSql + Sync), &Type), to: &mut BytesMut| {
            Ok(match value.to_sql_checked(kind, to)? {
                IsNull::Yes => postgres_protocol::IsNull::Yes,
                IsNull::No => postgres_protocol::IsNull::No,
            })
        };
        frontend::bind(
            "",
            statement,
            [BINARY],
            params,
            value,
            [BINARY],
            &mut self.message,
        )
        .map_err(|_| UNSENDABLE)
    }

    fn execute(&mut self) -> Result<(), Failure> {
        frontend::execute("", 0, &mut self.message).map_err(|_| UNSENDABLE)?;
        frontend::sync(&mut self.message);
        self.flush()
    }

    /// A statement is the next: nothing may be left of the one before.
    fn begin(&mut self) -> Result<(), Failure> {
        self.message.clear();
        match std::mem::take(&mut self.idle) {
            true => Ok(()),
            false => Err(Failure::Closed),
        }
    }

    /// The answer was read to its end.
    fn end(&mut self) {
        self.idle = true;
        self.used = Instant::now();
    }

    /// Writes what `build` makes.
    pub(super) fn write(
        &mut self,
        build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        self.message.clear();
        build(&mut self.message).map_err(|_| UNSENDABLE)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = self.wire.write_all(&self.message);
        written
            .and_then(|()| self.wire.flush())
            .map_err(|error| Failure::of_io(error, self.limit))
    }

    fn answer(&mut self, columns: Option<Columns>) -> Result<Vec<Row>, Failure> {
        let mut columns = columns.unwrap_or_else(|| Columns::from([]));
        let mut rows = Vec::new();
        self.read_answer(&mut columns, &mut |row| rows.push(row))?;
        Ok(rows)
    }

    /// Reads up to the end of the answer, or to an error that ends the session.
    fn read_answer(
        &mut self,
        columns: &mut Columns,
        each: &mut dyn FnMut(Row),
    ) -> Result<(), Failure> {
        let mut error: Option<Failure> = None;
        loop {
            let message = match (self.next_message(), error.take()) {
                (Ok(message), before) => {
                    error = before;
                    message
                }
                // The server's words say more than that it then closed the connection.
                (Err(Failure::Closed | Failure::Broken(_)), Some(before)) => return Err(before),
                (Err(failure), _) => return Err(failure),
            };
            match message {
                Message::RowDescription(body) => *columns = types(&body)?,
                Message::DataRow(body) => each(Row {
                    columns: Arc::clone(columns),
                    body,
                }),
                Message::ErrorResponse(body) => {
                    let told = server_error(ServerError::read(body.fields()));
                    if matches!(&told, Failure::Server(told) if told.is_fatal()) {
                        return Err(told);
                    }
                    error.get_or_insert(told);
                }
                Message::ReadyForQuery(_) => {
                    self.end();
                    return error.map_or(Ok(()), Err);
                }
                Message::ParseComplete
                | Message::BindComplete
                | Message::CommandComplete(_)
                | Message::EmptyQueryResponse
                | Message::NoData
                | Message::ParameterDescription(_) => {}
                _ => return Err(Failure::Protocol("a message that nobody asked for")),
            }
        }
    }

    /// The next message that belongs to the call in flight.
    pub(super) fn next_message(&mut self) -> Result<Message, Failure> {
        loop {
            match Message::parse(&mut self.received).map_err(|_| GARBLED)? {
                Some(Message::NoticeResponse(notice)) => self.note(&notice),
                Some(Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                Some(message) => return Ok(message),
                None => self.read()?,
            }
        }
    }

    /// What a trigger says by RAISE is no warning of the server's own.
    fn note(&mut self, notice: &NoticeResponseBody) {
        if let Ok(notice) = ServerError::read(notice.fields())
            && notice.code.starts_with("01")
            && notice.routine.as_deref() != Some("exec_stmt_raise")
        {
            self.warning = Some(notice.message);
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut chunk = [0; 4096];
        match self.wire.read(&mut chunk) {
            Ok(0) => Err(Failure::Closed),
            Ok(_) if self.received.len() > BYTES_AT_MOST => Err(GARBLED),
            Ok(bytes) => {
                self.received.extend_from_slice(&chunk[..bytes]);
                Ok(())
            }
            Err(error) => Err(Failure::of_io(error, self.limit)),
        }
    }

    /// The login is done.
    pub(super) fn logged_in(&mut self, process: (i32, i32)) {
        self.process = process;
        self.end();
    }
}

const UNSENDABLE: Failure = Failure::Protocol("a statement that cannot be sent");
const GARBLED: Failure = Failure::Protocol("a message that cannot be read");

pub(super) fn server_error(told: std::io::Result<ServerError>) -> Failure {
    told.map_or(GARBLED, |error| Failure::Server(Box::new(error)))
}

fn types(body: &RowDescriptionBody) -> Result<Columns, Failure> {
    // A type that is not built in is not read here: its place stays.
    let kind = |oid| Ok(Type::from_oid(oid).unwrap_or(Type::UNKNOWN));
    let types: Result<Vec<Type>, _> = body.fields().map(|field| kind(field.type_oid())).collect();
    types.map(Columns::from).map_err(|_| GARBLED)
}

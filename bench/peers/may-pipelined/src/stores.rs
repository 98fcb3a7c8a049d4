//! What both stores are asked, and how their answers read.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::{backend::Message, frontend};

use crate::pipeline::{Answers, Client};
use crate::setting;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS acessos
        (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 256) PRIMARY KEY,
         momento timestamptz NOT NULL DEFAULT now());
    DROP TABLE IF EXISTS total;
    CREATE TABLE total (part integer PRIMARY KEY, visits bigint NOT NULL) WITH (fillfactor = 10);
    CREATE OR REPLACE FUNCTION emptied() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN UPDATE total SET visits = 0; RETURN NULL; END';
    CREATE OR REPLACE TRIGGER emptied AFTER TRUNCATE ON acessos EXECUTE FUNCTION emptied();
    INSERT INTO total SELECT 0, count(*) FROM acessos";

/// A visit, on the connection that has this part of the total for itself.
fn visit(part: usize) -> String {
    format!(
        "WITH visit AS (INSERT INTO acessos DEFAULT VALUES),
              mine AS (UPDATE total SET visits = visits + 1 WHERE part = {part} RETURNING visits)
         SELECT visits + (SELECT coalesce(sum(visits), 0) FROM total WHERE part <> {part})::bigint
           FROM mine"
    )
}

pub fn postgres(connections: usize) -> io::Result<Vec<Client>> {
    run(&mut login()?, TABLES)?;
    let one = |part| {
        let mut stream = login()?;
        run(
            &mut stream,
            &format!("INSERT INTO total VALUES ({part}, 0)"),
        )?;
        let mut messages = BytesMut::new();
        frontend::parse("visit", &visit(part), [], &mut messages)?;
        frontend::sync(&mut messages);
        finish(&mut stream, &messages)?;
        messages.clear();
        let none = |(), _: &mut BytesMut| Ok(IsNull::Yes);
        frontend::bind("", "visit", [], [(); 0], none, [1], &mut messages)
            .map_err(|_| io::Error::other("no parameters can fail"))?;
        frontend::execute("", 0, &mut messages)?;
        frontend::sync(&mut messages);
        Client::new(stream, messages.freeze(), Rows(None))
    };
    (1..=connections).map(one).collect()
}

pub fn redis() -> io::Result<Client> {
    let stream = TcpStream::connect(address("REDIS", "6379"))?;
    Client::new(
        stream,
        Bytes::from_static(b"INCR contador_cache\r\n"),
        Integers,
    )
}

fn address(store: &str, port: &str) -> String {
    let host = setting(&format!("{store}_HOST"), "127.0.0.1");
    format!("{host}:{}", setting(&format!("{store}_PORT"), port))
}

/// A session, by SCRAM-SHA-256.
fn login() -> io::Result<TcpStream> {
    let missing = |_| io::Error::other("DB_USER, DB_PASSWORD and DB_NAME are needed");
    let [user, password, name] = ["DB_USER", "DB_PASSWORD", "DB_NAME"].map(env::var);
    let (user, name) = (user.map_err(missing)?, name.map_err(missing)?);
    let mut stream = TcpStream::connect(address("DB", "5432"))?;
    let (mut out, mut received) = (BytesMut::new(), BytesMut::new());
    let unbound = ChannelBinding::unsupported();
    let mut scram = ScramSha256::new(password.map_err(missing)?.as_bytes(), unbound);
    frontend::startup_message([("user", &*user), ("database", &name)], &mut out)?;
    stream.write_all(&out)?;
    loop {
        out.clear();
        match read(&mut stream, &mut received)? {
            Message::AuthenticationSasl(_) => {
                frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
            }
            Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data())?;
                frontend::sasl_response(scram.message(), &mut out)?;
            }
            Message::ReadyForQuery(_) => return Ok(stream),
            Message::ErrorResponse(_) => return Err(io::Error::other("the login was refused")),
            _ => {}
        }
        stream.write_all(&out)?;
    }
}

fn run(stream: &mut TcpStream, statement: &str) -> io::Result<()> {
    let mut message = BytesMut::new();
    frontend::query(statement, &mut message)?;
    finish(stream, &message)
}

fn finish(stream: &mut TcpStream, messages: &[u8]) -> io::Result<()> {
    stream.write_all(messages)?;
    let mut received = BytesMut::new();
    loop {
        match read(stream, &mut received)? {
            Message::ReadyForQuery(_) => return Ok(()),
            Message::ErrorResponse(_) => return Err(io::Error::other("a statement failed")),
            _ => {}
        }
    }
}

fn read(stream: &mut TcpStream, received: &mut BytesMut) -> io::Result<Message> {
    let mut part = [0; 4096];
    loop {
        if let Some(message) = Message::parse(received)? {
            return Ok(message);
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&part[..length]),
        }
    }
}

/// The one number of a row, which is out with the end of its transaction.
struct Rows(Option<i64>);

impl Answers for Rows {
    fn next(&mut self, received: &mut BytesMut) -> io::Result<Option<i64>> {
        while let Some(message) = Message::parse(received)? {
            match message {
                // The length of the number comes first.
                Message::DataRow(row) => self.0 = Some((&row.buffer()[4..]).get_i64()),
                Message::ReadyForQuery(_) => return Ok(self.0.take()),
                Message::ErrorResponse(_) => return Err(io::Error::other("a visit failed")),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// `:NUMBER\r\n`
struct Integers;

impl Answers for Integers {
    fn next(&mut self, received: &mut BytesMut) -> io::Result<Option<i64>> {
        let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = received.split_to(end + 1);
        let digits = line.strip_prefix(b":").map(|line| line.trim_ascii_end());
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        number
            .map(Some)
            .ok_or_else(|| io::Error::other("Redis refused"))
    }
}

//! One connection to Redis, on which every call ends by its deadline, however slowly bytes come.

#[cfg(feature = "tls")]
use std::io;
use std::io::{BufReader, Write};
use std::time::Instant;

use super::protocol::{self, Error, Reply};
use crate::visits::store::{Timed, Wire};
#[cfg(feature = "tls")]
use crate::visits::tls::Client;

/// An answer to a count fits into it.
const BUFFER_BYTES: usize = 512;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    wire: BufReader<Wire>,
}

impl Connection {
    pub(super) fn plain(socket: Timed) -> Connection {
        Connection::over(Wire::Plain(socket))
    }

    /// Encrypts the connection.
    ///
    /// # Errors
    /// A sentence about the handshake, or that it was not done by the deadline of the connection.
    #[cfg(feature = "tls")]
    pub(super) fn encrypted(socket: Timed, client: Client) -> io::Result<Connection> {
        Ok(Connection::over(Wire::encrypted(socket, client)?))
    }

    fn over(wire: Wire) -> Connection {
        Connection {
            wire: BufReader::with_capacity(BUFFER_BYTES, wire),
        }
    }

    /// Protocol, cipher and what was verified; `None` where nothing is encrypted.
    pub(super) fn encryption(&self) -> Option<String> {
        self.wire.get_ref().encryption()
    }

    /// Sends a command and reads its reply. After an error the connection is of no more use: the
    /// next reply on it might belong to this command.
    ///
    /// # Errors
    /// When there is no reply by the deadline, or the reply is an error.
    pub(super) fn ask(&mut self, words: &[&str], deadline: Instant) -> Result<Reply, Error> {
        let mut command = Vec::with_capacity(64);
        protocol::append(&mut command, words);
        self.send(&command, deadline)?;
        self.receive()
    }

    /// Sends commands at once; [`Connection::receive`] gives the reply to each, in their order.
    pub(super) fn send(&mut self, commands: &[u8], deadline: Instant) -> Result<(), Error> {
        let wire = self.wire.get_mut();
        wire.set_deadline(deadline);
        wire.write_all(commands)?;
        Ok(wire.flush()?)
    }

    /// Reads the next reply, by the deadline of what was sent last.
    pub(super) fn receive(&mut self) -> Result<Reply, Error> {
        protocol::read(&mut self.wire)
    }

    /// Whether the server has not closed it, as far as can be told without asking it. Bytes that
    /// nobody asked for are no good sign either.
    pub(super) fn is_alive(&self) -> bool {
        self.wire.get_ref().is_silent()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    /// A connection to a server that sends these bytes one at a time, with that pause before each,
    /// whatever it is asked.
    fn to_server(answer: &'static [u8], pause: Duration) -> Connection {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            for byte in answer {
                thread::sleep(pause);
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        });
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let socket = Timed::over_tcp(address, Instant::now() + LIMIT * 10);
        Connection::plain(socket.expect("a connection"))
    }

    fn increment(connection: &mut Connection) -> (Result<i64, Error>, Duration) {
        let began = Instant::now();
        let answer = connection.ask(&["INCRBY", "key", "1"], began + LIMIT);
        (answer.and_then(Reply::integer), began.elapsed())
    }

    fn is_timeout(error: &Error) -> bool {
        matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    #[test]
    fn an_answer_in_pieces_is_read() {
        let (answer, _) = increment(&mut to_server(b":1234\r\n", Duration::from_millis(5)));
        assert_eq!(answer.ok(), Some(1234));
    }

    /// Scenario: a server sends a byte just before each read's own limit. Bug: the limit began anew
    /// with every byte, so the call, and the visit, waited for as long as the server went on. Fix:
    /// one deadline for the whole call.
    #[test]
    fn an_answer_that_trickles_does_not_stretch_the_deadline() {
        let (answer, took) = increment(&mut to_server(&[b'1'; 100], LIMIT / 4));
        assert!(
            answer.is_err_and(|error| is_timeout(&error)),
            "no answer is no success"
        );
        assert!((LIMIT..LIMIT * 2).contains(&took), "it took {took:?}");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (answer, took) = increment(&mut to_server(b":1\r\n", LIMIT * 5));
        let error = answer.expect_err("no answer is no success");
        assert!(
            is_timeout(&error) && error.to_string().contains("no answer in time"),
            "{error}"
        );
        assert!((LIMIT..LIMIT * 2).contains(&took), "it took {took:?}");
    }

    #[test]
    fn an_error_is_told_in_the_servers_words() {
        let words = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let (answer, _) = increment(&mut to_server(words, Duration::ZERO));
        assert!(
            answer.is_err_and(|error| error.to_string().contains("OOM")
                && error.to_string().contains("maxmemory"))
        );
    }

    #[test]
    fn a_connection_that_was_closed_is_known_without_asking() {
        let mut connection = to_server(b":1\r\n", Duration::ZERO);
        assert!(connection.is_alive());
        assert_eq!(increment(&mut connection).0.ok(), Some(1));
        let end = Instant::now() + LIMIT * 10;
        while connection.is_alive() {
            assert!(Instant::now() < end, "the server has closed it");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

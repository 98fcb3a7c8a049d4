//! Commands to Redis and its replies (RESP2, "Redis serialization protocol specification"). Nothing
//! that is asked here has an array for its reply.

use std::fmt;
use std::io::{self, BufRead, Read};

/// No reply is longer. What `INFO` tells has some 10 kB.
const BYTES_AT_MOST: u64 = 1 << 20;

/// Why there is no reply to a command.
#[derive(Debug)]
pub(super) enum Error {
    /// The connection could not be made, was lost, or was too slow.
    Io(io::Error),
    /// What the server says instead; its first word is a code.
    Refused(String),
    /// Not this protocol, or not the kind of reply that the command has.
    NoReply,
    /// A key has a text that is no number.
    NoNumber,
}

impl Error {
    /// The code of the server's refusal.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Error::Refused(words) => words.split(' ').next(),
            Error::Io(_) | Error::NoReply | Error::NoNumber => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            Error::Refused(words) => f.write_str(words),
            Error::NoReply => f.write_str("this is no reply of Redis"),
            Error::NoNumber => f.write_str("the value is not an integer"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

/// Appends a command to those that are sent at once.
pub(super) fn append(commands: &mut Vec<u8>, words: &[&str]) {
    commands.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        commands.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// One reply; an error of the server is one of [`read`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The null bulk string: there is no such key.
    Null,
    Integer(i64),
    /// A simple or a bulk string.
    Text(String),
}

impl Reply {
    /// # Errors
    /// When it is none.
    pub(super) fn integer(self) -> Result<i64, Error> {
        match self {
            Reply::Integer(number) => Ok(number),
            Reply::Null | Reply::Text(_) => Err(Error::NoReply),
        }
    }

    /// The text, or `None` where there is no such key.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn text(self) -> Result<Option<String>, Error> {
        match self {
            Reply::Null => Ok(None),
            Reply::Text(text) => Ok(Some(text)),
            Reply::Integer(_) => Err(Error::NoReply),
        }
    }
}

/// Reads one reply.
pub(super) fn read(from: &mut impl BufRead) -> Result<Reply, Error> {
    let line = line(from)?;
    let (kind, text) = line.split_at_checked(1).ok_or(Error::NoReply)?;
    match kind {
        "+" => Ok(Reply::Text(text.to_owned())),
        ":" => Ok(Reply::Integer(text.parse().map_err(|_| Error::NoReply)?)),
        "-" => Err(Error::Refused(text.to_owned())),
        "$" if text == "-1" => Ok(Reply::Null),
        "$" => match text.parse() {
            Ok(length @ 0..=BYTES_AT_MOST) => Ok(Reply::Text(string(from, length)?)),
            _ => Err(Error::NoReply),
        },
        _ => Err(Error::NoReply),
    }
}

/// A line without its end.
fn line(from: &mut impl BufRead) -> Result<String, Error> {
    let mut line = Vec::new();
    from.take(BYTES_AT_MOST).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => text(line),
        None if line.ends_with(b"\n") => Err(Error::NoReply),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// A string of `length` bytes, and the end of the line behind it.
fn string(from: &mut impl BufRead, length: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    from.take(length + 2).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length + 2 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    text(bytes.strip_suffix(b"\r\n").ok_or(Error::NoReply)?)
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::NoReply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_words_with_their_lengths() {
        let mut commands = Vec::new();
        append(&mut commands, &["SET", "contador_cache", "0"]);
        append(&mut commands, &["AUTH", "é \r\n"]);
        let expected = "*3\r\n$3\r\nSET\r\n$14\r\ncontador_cache\r\n$1\r\n0\r\n\
                        *2\r\n$4\r\nAUTH\r\n$5\r\né \r\n\r\n";
        assert_eq!(String::from_utf8(commands).as_deref(), Ok(expected));
    }

    #[test]
    fn every_kind_of_reply_is_read_and_the_next_one_left() {
        for (bytes, expected) in [
            (&b"+OK\r\n"[..], Reply::Text("OK".to_owned())),
            (b":-12\r\n", Reply::Integer(-12)),
            (b"$-1\r\n", Reply::Null),
            (b"$0\r\n\r\n", Reply::Text(String::new())),
            (b"$4\r\na\r\nb\r\n", Reply::Text("a\r\nb".to_owned())),
        ] {
            let both = [bytes, b"+next\r\n"].concat();
            let mut from = &both[..];
            assert_eq!(read(&mut from).ok(), Some(expected));
            assert_eq!(from, b"+next\r\n");
        }
        let error = read(&mut &b"-MOVED 3999 127.0.0.1:6381\r\n"[..]).expect_err("an error");
        assert_eq!(error.code(), Some("MOVED"));
        assert!(error.to_string().contains("3999"), "{error}");
    }

    #[test]
    fn what_is_no_reply_or_not_whole_is_an_error() {
        let whole = b"$12\r\nredis_version\r\n";
        for bytes in [
            &b""[..],
            b"\r\n",
            b"+OK\n",
            b":1.5\r\n",
            b":\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$2\r\nabc\r\n",
            b"*1\r\n:1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"+\xff\r\n",
            whole,
        ] {
            assert!(read(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
        let whole = b"$5\r\nredis\r\n";
        for end in 0..whole.len() {
            let error = read(&mut &whole[..end]).expect_err("an end");
            assert!(matches!(error, Error::Io(_)), "{end}: {error}");
        }
    }
}

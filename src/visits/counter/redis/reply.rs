//! An answer of Redis, read from its protocol (RESP2, "Redis serialization protocol
//! specification"): one line, or a string of a length that is told. Nothing that is asked here has
//! an array for its answer.

use std::io::{self, BufRead, Read};

use redis::{ErrorKind, RedisError, RedisResult, Value, make_extension_error};

/// No answer is longer. What `INFO` tells has some 10 kB.
const BYTES_AT_MOST: u64 = 1 << 20;

/// Reads one answer; an error of the server is one here.
pub(super) fn read(from: &mut impl BufRead) -> RedisResult<Value> {
    let line = line(from)?;
    let (kind, text) = line.split_at_checked(1).ok_or_else(unknown)?;
    match kind {
        "+" => Ok(Value::SimpleString(text.to_owned())),
        ":" => Ok(Value::Int(text.parse().map_err(|_| unknown())?)),
        "-" => {
            let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
            let detail = (!detail.is_empty()).then(|| detail.to_owned());
            Err(make_extension_error(code.to_owned(), detail))
        }
        "$" if text == "-1" => Ok(Value::Nil),
        "$" => match text.parse() {
            Ok(length @ 0..=BYTES_AT_MOST) => Ok(Value::BulkString(string(from, length)?)),
            _ => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

/// A line without its end.
fn line(from: &mut impl BufRead) -> RedisResult<String> {
    let mut line = Vec::new();
    from.take(BYTES_AT_MOST).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => String::from_utf8(line.to_vec()).map_err(|_| unknown()),
        None if line.ends_with(b"\n") => Err(unknown()),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// So many bytes, and the end of the line behind them.
fn string(from: &mut impl BufRead, length: u64) -> RedisResult<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length + 2).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length + 2 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match bytes.strip_suffix(b"\r\n") {
        Some(string) => Ok(string.to_vec()),
        None => Err(unknown()),
    }
}

fn unknown() -> RedisError {
    (ErrorKind::Parse, "this is no answer of Redis").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_read_and_the_next_one_left() {
        for (bytes, expected) in [
            (&b"+OK\r\n"[..], Value::SimpleString("OK".to_owned())),
            (b":-12\r\n", Value::Int(-12)),
            (b"$-1\r\n", Value::Nil),
            (b"$0\r\n\r\n", Value::BulkString(Vec::new())),
            (b"$4\r\na\r\nb\r\n", Value::BulkString(b"a\r\nb".to_vec())),
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
    fn what_is_no_answer_or_not_whole_is_an_error() {
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
            assert!(error.is_io_error(), "{end}: {error}");
        }
    }
}

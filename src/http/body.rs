//! The end of a request's body: no route takes one, so it is read, bounded, and dropped, and never taken for a request.

use super::request::{Body, Reject};

/// The most bytes of a body that are read and dropped to keep a connection; a longer one ends it.
pub(super) const MAX_BODY: u64 = 64 * 1024;
/// The most bytes of a chunk's size line, and of all trailer fields.
const MAX_CHUNK_LINE: usize = 4096;

/// What is left of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skipper {
    /// Nothing.
    Done,
    /// That many bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1), of which `seen` bytes were dropped so far.
    Chunked { state: Chunk, seen: u64 },
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In a chunk's size, of which `digits` were read.
    Size { size: u64, digits: u8 },
    /// In the extensions behind it, of which `length` bytes were read.
    Extension { size: u64, length: usize },
    /// Behind the CR that ends the size line.
    SizeEnd { size: u64 },
    /// In its data.
    Data { left: u64 },
    /// At the CR behind its data.
    DataCr,
    /// At the LF behind that.
    DataLf,
    /// In the trailer section: `length` bytes of it were read, `line` of them in the current line.
    Trailer { length: usize, line: usize },
    /// Behind a CR there.
    TrailerEnd { length: usize, line: usize },
}

impl Skipper {
    /// The body that a head announced.
    pub(super) fn new(body: Body) -> Result<Skipper, Reject> {
        match body {
            Body::None => Ok(Skipper::Done),
            Body::Length(length) if length > MAX_BODY => Err(Reject::BodyTooLarge),
            Body::Length(length) => Ok(Skipper::Length(length)),
            Body::Chunked => Ok(Skipper::Chunked { state: Chunk::Size { size: 0, digits: 0 }, seen: 0 }),
        }
    }

    /// Whether the body is at its end.
    pub(super) fn is_done(&self) -> bool {
        *self == Skipper::Done
    }

    /// Drops what of `bytes` belongs to the body; gives how many those are.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        match self {
            Skipper::Done => Ok(0),
            Skipper::Length(left) => {
                let dropped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= dropped as u64;
                if *left == 0 {
                    *self = Skipper::Done;
                }
                Ok(dropped)
            }
            Skipper::Chunked { .. } => self.skip_chunks(bytes),
        }
    }

    fn skip_chunks(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        let Skipper::Chunked { state, seen } = self else { return Ok(0) };
        let mut at = 0;
        while at < bytes.len() {
            if let Chunk::Data { left } = state {
                let dropped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= dropped as u64;
                *seen += dropped as u64;
                at += dropped;
                if *left == 0 {
                    *state = Chunk::DataCr;
                }
                continue;
            }
            let next = step(*state, bytes[at])?;
            at += 1;
            match next {
                None => {
                    *self = Skipper::Done;
                    return Ok(at);
                }
                Some(Chunk::Data { left }) if *seen + left > MAX_BODY => return Err(Reject::BodyTooLarge),
                Some(next) => *state = next,
            }
        }
        Ok(at)
    }
}

/// One byte outside of a chunk's data: the next state, or none at the end of the body.
fn step(state: Chunk, byte: u8) -> Result<Option<Chunk>, Reject> {
    let next = match (state, byte) {
        (Chunk::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
            let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
            Chunk::Size { size: size << 4 | digit, digits: digits + 1 }
        }
        (Chunk::Size { digits: 0, .. }, _) => return Err(Reject::Chunk),
        (Chunk::Size { size, .. }, b'\r') => Chunk::SizeEnd { size },
        (Chunk::Size { size, .. }, b';' | b' ' | b'\t') => Chunk::Extension { size, length: 1 },
        (Chunk::Extension { size, .. }, b'\r') => Chunk::SizeEnd { size },
        (Chunk::Extension { size, length }, _) if is_text(byte) && length < MAX_CHUNK_LINE => {
            Chunk::Extension { size, length: length + 1 }
        }
        (Chunk::SizeEnd { size: 0 }, b'\n') => Chunk::Trailer { length: 0, line: 0 },
        (Chunk::SizeEnd { size }, b'\n') => Chunk::Data { left: size },
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { size: 0, digits: 0 },
        (Chunk::Trailer { length, line }, b'\r') => Chunk::TrailerEnd { length, line },
        (Chunk::Trailer { length, line }, _) if is_text(byte) && length < MAX_CHUNK_LINE => {
            Chunk::Trailer { length: length + 1, line: line + 1 }
        }
        (Chunk::TrailerEnd { line: 0, .. }, b'\n') => return Ok(None),
        (Chunk::TrailerEnd { length, .. }, b'\n') => Chunk::Trailer { length, line: 0 },
        _ => return Err(Reject::Chunk),
    };
    Ok(Some(next))
}

/// What a field or an extension may consist of.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> Skipper {
        Skipper::new(Body::Chunked).unwrap_or(Skipper::Done)
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_wherever_it_is_cut() {
        let body = b"4;name=\"value\"\r\nabcd\r\n1A\r\n0123456789\r\n0123456789abcd\r\n0\r\nTrailer: x\r\n\r\n";
        let followed = [body.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
        for cut in 0..=body.len() {
            let mut skipper = chunked();
            let first = skipper.skip(&followed[..cut]);
            assert_eq!(first, Ok(cut), "cut at {cut}");
            assert_eq!(skipper.is_done(), cut == body.len());
            assert_eq!(skipper.skip(&followed[cut..]), Ok(body.len() - cut));
            assert!(skipper.is_done());
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "\r\n",
            "g\r\n",
            "1\r\nab\r\n",
            "1\nx",
            "-1\r\n",
            "0x1\r\n",
            "11111111111111111\r\n",
            "1 \u{1}\r\n",
            "0\r\nA: \nb\r\n\r\n",
        ] {
            assert_eq!(chunked().skip(body.as_bytes()), Err(Reject::Chunk), "{body:?}");
        }
    }

    #[test]
    fn bodies_are_bounded() {
        assert_eq!(Skipper::new(Body::Length(MAX_BODY + 1)), Err(Reject::BodyTooLarge));
        assert_eq!(chunked().skip(b"ffffffffffffffff\r\n"), Err(Reject::BodyTooLarge));
        let mut many = chunked();
        let sent = b"8000\r\n".iter().copied().chain([b'x'; 0x8000]).chain(*b"\r\n").collect::<Vec<u8>>();
        assert!(many.skip(&sent).is_ok() && many.skip(&sent).is_ok());
        assert_eq!(many.skip(b"1\r\n"), Err(Reject::BodyTooLarge));
        assert_eq!(chunked().skip(&[b"1;".as_slice(), &[b'x'; MAX_CHUNK_LINE]].concat()), Err(Reject::Chunk));
    }
}

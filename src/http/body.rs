//! Drains a request's body: no route takes one, so it is read within bounds and dropped, and never
//! taken for a request.

use super::framing::Body;
use super::reject::Reject;

/// Bytes of a body that are drained to keep the connection; a longer body ends it.
pub(super) const MAX_BODY: u64 = 64 * 1024;
/// Bytes that sizes, extensions and trailer fields of a chunked body may take. A body of one-byte
/// chunks passes; megabytes of framing around an empty body do not.
pub(super) const MAX_CHUNK_FRAMING: u64 = 64 * 1024;
/// Digits of a chunk's size, leading zeros included: 15 always fit into 64 bits.
const MAX_SIZE_DIGITS: u8 = 15;

/// What is left of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyDrain {
    Done,
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked {
        state: Chunk,
        /// Bytes of data drained so far.
        data: u64,
        /// Bytes of framing drained so far.
        framing: u64,
    },
}

/// The part of a chunked body that the next byte belongs to. Every line ends with CR and LF.
///
/// ```text
/// Size ─▶ Space ─▶ Extension ─▶ SizeEnd ─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
///                                  │ size 0
///                                  ▼
///                       TrailerStart ─▶ Name ─▶ Value ─▶ Lf ─▶ TrailerStart
///                                  └──▶ EndLf ─▶ done
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// `digits` of the size were read.
    Size {
        size: u64,
        digits: u8,
    },
    /// White space before an extension.
    Space {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// Behind the CR of the size line.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The first byte of a line of the trailer section.
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// Behind the CR of a trailer field.
    TrailerLf,
    /// Behind the CR of the empty line that ends the body.
    EndLf,
}

impl BodyDrain {
    /// For the body that a head announces.
    pub(super) fn new(body: Body) -> Result<BodyDrain, Reject> {
        match body {
            Body::None => Ok(BodyDrain::Done),
            Body::Length(length) if length > MAX_BODY => Err(Reject::BodyTooLarge),
            Body::Length(length) => Ok(BodyDrain::Length(length)),
            Body::Chunked => Ok(BodyDrain::Chunked {
                state: Chunk::Size { size: 0, digits: 0 },
                data: 0,
                framing: 0,
            }),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        *self == BodyDrain::Done
    }

    /// Returns how many of `bytes` belong to the body.
    pub(super) fn drain(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        match self {
            BodyDrain::Done => Ok(0),
            BodyDrain::Length(left) => {
                let dropped = at_most(*left, bytes.len());
                *left -= dropped as u64;
                if *left == 0 {
                    *self = BodyDrain::Done;
                }
                Ok(dropped)
            }
            BodyDrain::Chunked { .. } => self.drain_chunks(bytes),
        }
    }

    fn drain_chunks(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        let BodyDrain::Chunked {
            state,
            data,
            framing,
        } = self
        else {
            return Ok(0);
        };
        let mut at = 0;
        while at < bytes.len() {
            if let Chunk::Data { left } = state {
                let dropped = at_most(*left, bytes.len() - at);
                *left -= dropped as u64;
                at += dropped;
                if *left == 0 {
                    *state = Chunk::DataCr;
                }
                continue;
            }
            *framing += 1;
            if *framing > MAX_CHUNK_FRAMING {
                return Err(Reject::BodyTooLarge);
            }
            let next = step(*state, bytes[at])?;
            at += 1;
            match next {
                None => {
                    *self = BodyDrain::Done;
                    return Ok(at);
                }
                Some(Chunk::Data { left }) if *data + left > MAX_BODY => {
                    return Err(Reject::BodyTooLarge);
                }
                Some(Chunk::Data { left }) => {
                    *data += left;
                    *state = Chunk::Data { left };
                }
                Some(next) => *state = next,
            }
        }
        Ok(at)
    }
}

fn at_most(left: u64, length: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(length)
}

/// Takes one byte outside of a chunk's data: the next state, or `None` at the end of the body.
fn step(state: Chunk, byte: u8) -> Result<Option<Chunk>, Reject> {
    let next = match (state, byte) {
        (Chunk::Size { size, digits }, _)
            if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS =>
        {
            let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
            Chunk::Size {
                size: size << 4 | digit,
                digits: digits + 1,
            }
        }
        (Chunk::Size { digits: 0, .. }, _) => return Err(Reject::Chunk),
        (Chunk::Size { size, .. }, b'\r') => Chunk::SizeEnd { size },
        (Chunk::Size { size, .. } | Chunk::Space { size }, b' ' | b'\t') => Chunk::Space { size },
        (Chunk::Size { size, .. } | Chunk::Space { size }, b';') => Chunk::Extension { size },
        (Chunk::Extension { size }, b'\r') => Chunk::SizeEnd { size },
        (Chunk::Extension { size }, _) if is_text(byte) => Chunk::Extension { size },
        (Chunk::SizeEnd { size: 0 }, b'\n') => Chunk::TrailerStart,
        (Chunk::SizeEnd { size }, b'\n') => Chunk::Data { left: size },
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { size: 0, digits: 0 },
        (Chunk::TrailerStart, b'\r') => Chunk::EndLf,
        (Chunk::TrailerStart | Chunk::TrailerName, _) if is_token(byte) => Chunk::TrailerName,
        (Chunk::TrailerName, b':') => Chunk::TrailerValue,
        (Chunk::TrailerValue, b'\r') => Chunk::TrailerLf,
        (Chunk::TrailerValue, _) if is_text(byte) => Chunk::TrailerValue,
        (Chunk::TrailerLf, b'\n') => Chunk::TrailerStart,
        (Chunk::EndLf, b'\n') => return Ok(None),
        _ => return Err(Reject::Chunk),
    };
    Ok(Some(next))
}

/// A byte of a field's value or an extension (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A byte of a field's name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> BodyDrain {
        BodyDrain::new(Body::Chunked).unwrap_or(BodyDrain::Done)
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_wherever_it_is_cut() {
        let body = b"4;name=\"value\"\r\nabcd\r\n01A \t;x\r\n0123456789\r\n0123456789abcd\r\n\
              0\r\nTrailer: x\r\nB:\r\n\r\n";
        let followed = [body.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
        for cut in 0..=body.len() {
            let mut drain = chunked();
            let first = drain.drain(&followed[..cut]);
            assert_eq!(first, Ok(cut), "cut at {cut}");
            assert_eq!(drain.is_done(), cut == body.len());
            assert_eq!(drain.drain(&followed[cut..]), Ok(body.len() - cut));
            assert!(drain.is_done());
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "\r\n",
            "g\r\n",
            ";\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r",
            "1\nx",
            "1\rx",
            "1;\nx",
            "1;a\rx",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1 a\r\n",
            "1_0\r\n",
            "0x1\r\n",
            "0000000000000001\r\n",
            "1111111111111111\r\n",
            "1;\u{1}\r\n",
            "0\r\nA: \nb\r\n\r\n",
            "0\r\nA: b\r\n folded\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "0\r\n\rx",
        ] {
            let mut drain = chunked();
            assert_eq!(drain.drain(body.as_bytes()), Err(Reject::Chunk), "{body:?}");
            let bytes = body.as_bytes().iter();
            let mut one_by_one = chunked();
            let outcome: Result<Vec<usize>, Reject> =
                bytes.map(|byte| one_by_one.drain(&[*byte])).collect();
            assert_eq!(outcome, Err(Reject::Chunk), "{body:?} byte by byte");
        }
    }

    #[test]
    fn bodies_are_bounded() {
        assert_eq!(
            BodyDrain::new(Body::Length(MAX_BODY)),
            Ok(BodyDrain::Length(MAX_BODY))
        );
        assert_eq!(
            BodyDrain::new(Body::Length(MAX_BODY + 1)),
            Err(Reject::BodyTooLarge)
        );
        assert_eq!(
            chunked().drain(b"fffffffffffffff\r\n"),
            Err(Reject::BodyTooLarge)
        );
        let mut many = chunked();
        let sent = b"8000\r\n"
            .iter()
            .copied()
            .chain([b'x'; 0x8000])
            .chain(*b"\r\n")
            .collect::<Vec<u8>>();
        assert!(many.drain(&sent).is_ok() && many.drain(&sent).is_ok());
        assert_eq!(many.drain(b"1\r\n"), Err(Reject::BodyTooLarge));
        let endless = [b"1;".as_slice(), &[b'x'; MAX_CHUNK_FRAMING as usize]].concat();
        assert_eq!(chunked().drain(&endless), Err(Reject::BodyTooLarge));
        let trailers = [
            b"0\r\n".as_slice(),
            &b"a:b\r\n".repeat(MAX_CHUNK_FRAMING as usize / 5),
        ]
        .concat();
        assert_eq!(chunked().drain(&trailers), Err(Reject::BodyTooLarge));
        let bytes = b"1\r\nx\r\n".repeat(13_000);
        assert_eq!(
            chunked().drain(&bytes),
            Ok(bytes.len()),
            "a body of single bytes"
        );
    }
}

//! The end of a request's body: no route takes one, so it is read, bounded, and dropped, and never
//! taken for a request.

use super::framing::Body;
use super::reject::Reject;

/// The most bytes of a body that are read and dropped to keep a connection; a longer one ends it.
pub(super) const MAX_BODY: u64 = 64 * 1024;
/// The most bytes that sizes, extensions and trailer fields of one chunked body may take: a body of
/// single bytes still passes, while nobody has the server read megabytes for a body of nothing.
pub(super) const MAX_CHUNK_FRAMING: u64 = 64 * 1024;
/// A chunk's size has at most so many digits, leading zeros too, so that it always fits.
const MAX_SIZE_DIGITS: u8 = 15;

/// What is left of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skipper {
    /// Nothing.
    Done,
    /// That many bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1), of which so many bytes of data and of framing were dropped
    /// so far.
    Chunked {
        state: Chunk,
        data: u64,
        framing: u64,
    },
}

/// Where in a chunked body the next byte stands. Every line ends with CR and LF, as in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In a chunk's size, of which `digits` were read.
    Size { size: u64, digits: u8 },
    /// In the white space that may come before an extension.
    Space { size: u64 },
    /// In an extension.
    Extension { size: u64 },
    /// Behind the CR that ends the size line.
    SizeEnd { size: u64 },
    /// In its data.
    Data { left: u64 },
    /// At the CR behind its data.
    DataCr,
    /// At the LF behind that.
    DataLf,
    /// At the first byte of a line of the trailer section.
    TrailerStart,
    /// In a trailer field's name.
    TrailerName,
    /// In a trailer field's value.
    TrailerValue,
    /// Behind the CR that ends a trailer field.
    TrailerLf,
    /// Behind the CR of the empty line that ends the body.
    EndLf,
}

impl Skipper {
    /// The body that a head announced.
    pub(super) fn new(body: Body) -> Result<Skipper, Reject> {
        match body {
            Body::None => Ok(Skipper::Done),
            Body::Length(length) if length > MAX_BODY => Err(Reject::BodyTooLarge),
            Body::Length(length) => Ok(Skipper::Length(length)),
            Body::Chunked => Ok(Skipper::Chunked {
                state: Chunk::Size { size: 0, digits: 0 },
                data: 0,
                framing: 0,
            }),
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
                let dropped = at_most(*left, bytes.len());
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
        let Skipper::Chunked {
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
                    *self = Skipper::Done;
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

/// One byte outside of a chunk's data: the next state, or none at the end of the body.
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

/// What a field's value or an extension may consist of (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// What a field's name may consist of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> Skipper {
        Skipper::new(Body::Chunked).unwrap_or(Skipper::Done)
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_wherever_it_is_cut() {
        let body =
            b"4;name=\"value\"\r\nabcd\r\n01A \t;x\r\n0123456789\r\n0123456789abcd\r\n0\r\nTrailer: x\r\nB:\r\n\r\n";
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
            let mut skipper = chunked();
            assert_eq!(
                skipper.skip(body.as_bytes()),
                Err(Reject::Chunk),
                "{body:?}"
            );
            let bytes = body.as_bytes().iter();
            let mut one_by_one = chunked();
            let outcome: Result<Vec<usize>, Reject> =
                bytes.map(|byte| one_by_one.skip(&[*byte])).collect();
            assert_eq!(outcome, Err(Reject::Chunk), "{body:?} byte by byte");
        }
    }

    #[test]
    fn bodies_are_bounded() {
        assert_eq!(
            Skipper::new(Body::Length(MAX_BODY)),
            Ok(Skipper::Length(MAX_BODY))
        );
        assert_eq!(
            Skipper::new(Body::Length(MAX_BODY + 1)),
            Err(Reject::BodyTooLarge)
        );
        assert_eq!(
            chunked().skip(b"fffffffffffffff\r\n"),
            Err(Reject::BodyTooLarge)
        );
        let mut many = chunked();
        let sent = b"8000\r\n"
            .iter()
            .copied()
            .chain([b'x'; 0x8000])
            .chain(*b"\r\n")
            .collect::<Vec<u8>>();
        assert!(many.skip(&sent).is_ok() && many.skip(&sent).is_ok());
        assert_eq!(many.skip(b"1\r\n"), Err(Reject::BodyTooLarge));
        let endless = [b"1;".as_slice(), &[b'x'; MAX_CHUNK_FRAMING as usize]].concat();
        assert_eq!(chunked().skip(&endless), Err(Reject::BodyTooLarge));
        let trailers = [
            b"0\r\n".as_slice(),
            &b"a:b\r\n".repeat(MAX_CHUNK_FRAMING as usize / 5),
        ]
        .concat();
        assert_eq!(chunked().skip(&trailers), Err(Reject::BodyTooLarge));
        let bytes = b"1\r\nx\r\n".repeat(13_000);
        assert_eq!(
            chunked().skip(&bytes),
            Ok(bytes.len()),
            "a body of single bytes"
        );
    }
}

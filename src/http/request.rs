//! A request's head, from its first byte to the empty line that ends it.
//!
//! The rules are RFC 9112's for an origin server; docs/http.md lists them. `httparse` has the
//! grammar. What it accepts and a server need not is rejected here.

use std::cell::Cell;

use super::framing::{Framing, framing};
use super::method::Method;
use super::reject::Reject;
use super::target::Target;

/// Bytes of a request line: browsers and proxies send up to 8 KiB (RFC 9112, section 3, asks for at
/// least 8000).
pub(super) const MAX_LINE: usize = 8 * 1024;
/// Bytes of all header fields: the cookies of a whole domain rarely reach half of it.
pub(super) const MAX_FIELDS_BYTES: usize = 32 * 1024;
/// Header fields: a browser behind two proxies sends about 40.
pub(super) const MAX_FIELDS: usize = 128;
/// Empty lines before a request line: old clients sent one behind a body (RFC 9112, section 2.2).
pub(super) const MAX_EMPTY_LINES: usize = 4;
/// Bytes of a head: empty lines, request line, fields.
pub(super) const MAX_HEAD: usize = 2 * MAX_EMPTY_LINES + MAX_LINE + 2 + MAX_FIELDS_BYTES;

/// The head of one request. It borrows the bytes received.
#[derive(Debug)]
pub struct Request<'b> {
    pub method: Method<'b>,
    /// The request target as it was sent.
    pub target: &'b str,
    path: &'b str,
    pub(super) fields: &'b [httparse::Header<'b>],
    pub(super) framing: Framing,
}

impl<'b> Request<'b> {
    /// The target's path without its query. Nothing is decoded.
    pub fn path(&self) -> &'b str {
        self.path
    }

    /// The values of all fields of that name.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }
}

/// Room for the fields of one head. The worker lends it: 4 KiB on its own stack would cost each
/// connection a page.
pub(super) struct FieldRoom<'b>(Vec<httparse::Header<'b>>);

thread_local! {
    static ROOM: Cell<Vec<httparse::Header<'static>>> = const { Cell::new(Vec::new()) };
}

impl FieldRoom<'_> {
    pub(super) fn take() -> Self {
        let mut fields = ROOM.take();
        fields.reserve_exact(MAX_FIELDS);
        FieldRoom(fields)
    }
}

impl Drop for FieldRoom<'_> {
    /// Gives the room back. It is empty, and collecting nothing in place keeps its allocation under
    /// another lifetime.
    fn drop(&mut self) {
        let fields = std::mem::take(&mut self.0).into_iter();
        ROOM.set(fields.map(|_| httparse::EMPTY_HEADER).collect());
    }
}

/// Parses the head at the beginning of `bytes`; returns it with its length, or `None` while it is
/// incomplete.
///
/// # Errors
/// As soon as no further byte can make it valid.
pub(super) fn parse<'r, 'b>(
    bytes: &'b [u8],
    room: &'r mut FieldRoom<'b>,
) -> Result<Option<(Request<'r>, usize)>, Reject> {
    let skipped = empty_lines(bytes)?;
    let bytes = &bytes[skipped..];
    let mut head = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut head,
        bytes,
        &mut room.0.spare_capacity_mut()[..MAX_FIELDS],
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if has_bare_lf(bytes) => return Err(Reject::LineEnd),
        Ok(httparse::Status::Partial) => return too_large(bytes).map_or(Ok(None), Err),
        Err(httparse::Error::TooManyHeaders) => return Err(Reject::TooManyFields),
        Err(httparse::Error::Version) => return Err(wrong_version(bytes)),
        Err(_) => return Err(Reject::Malformed),
    };
    if has_bare_lf(&bytes[..length]) {
        return Err(Reject::LineEnd);
    }
    if let Some(reject) = too_large(&bytes[..length]) {
        return Err(reject);
    }
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Reject::Malformed);
    };
    let method = Method::parse(method);
    let parts = Target::parse(target, method)?;
    let (framing, host) = framing(head.headers, version == 0)?;
    parts.check_host(host)?;
    let request = Request {
        method,
        target,
        path: parts.path,
        fields: head.headers,
        framing,
    };
    Ok(Some((request, skipped + length)))
}

/// Whether an incomplete head may be parsed again, `new` bytes having come. One that comes byte by
/// byte is parsed once per line, not once per byte.
pub(super) fn may_go_on(unread: &[u8], new: usize) -> bool {
    let (before, new) = unread.split_at(unread.len() - new.min(unread.len()));
    // The first bytes are parsed whatever they are: what is no HTTP is rejected at once.
    before.is_empty() || unread.len() > MAX_HEAD || new.contains(&b'\n')
}

/// Whether these bytes of an incomplete head are more than empty lines before it.
pub(super) fn has_begun(unread: &[u8]) -> bool {
    !unread.iter().eq(b"\r\n".iter().cycle().take(unread.len()))
}

/// Whether a HEAD request begins here, valid or not.
pub(super) fn is_head(unread: &[u8]) -> bool {
    let first = unread
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_some_and(|first| unread[first..].starts_with(b"HEAD "))
}

/// Bytes of the empty lines before the request line (RFC 9112, section 2.2).
fn empty_lines(bytes: &[u8]) -> Result<usize, Reject> {
    let lines = bytes
        .chunks_exact(2)
        .take_while(|pair| *pair == b"\r\n")
        .count();
    match bytes.get(2 * lines) {
        Some(b'\n') => Err(Reject::LineEnd),
        _ if lines > MAX_EMPTY_LINES => Err(Reject::Malformed),
        _ => Ok(2 * lines),
    }
}

/// Whether a line ends with LF alone. RFC 9112, section 2.2, lets a server accept that; servers
/// that do and servers that do not read different messages in the same bytes. `httparse` rejects
/// bare CR and NUL.
fn has_bare_lf(bytes: &[u8]) -> bool {
    // The first byte is no LF: empty lines are gone. Without a branch, so that the compiler takes
    // 16 bytes at a time.
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    pairs.fold(false, |found, (before, byte)| {
        found | ((*byte == b'\n') & (*before != b'\r'))
    })
}

/// RFC 9110, section 15.6.6, for the name of a version that this server does not speak, as in
/// HTTP/2's preface; anything else is malformed.
#[cold]
fn wrong_version(bytes: &[u8]) -> Reject {
    let line = bytes
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default();
    let word = line
        .splitn(3, |byte| *byte == b' ')
        .nth(2)
        .unwrap_or_default();
    let shape = b"HTTP/0.0";
    let like = |(byte, model): (&u8, &u8)| {
        byte == model || (byte.is_ascii_digit() && model.is_ascii_digit())
    };
    let is_version = (1..=shape.len()).contains(&word.len()) && word.iter().zip(shape).all(like);
    if is_version {
        Reject::Version
    } else {
        Reject::Malformed
    }
}

/// Whether the head, complete or not, exceeds a limit. No empty lines precede it.
fn too_large(bytes: &[u8]) -> Option<Reject> {
    let longest = MAX_LINE + 2;
    match bytes.iter().take(longest).position(|byte| *byte == b'\n') {
        None if bytes.len() >= longest => Some(Reject::LineTooLong),
        Some(end) if bytes.len() - (end + 1) > MAX_FIELDS_BYTES => Some(Reject::FieldsTooLarge),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::framing::Persistence;

    /// A head's framing, path and length.
    fn outcome(bytes: &[u8]) -> Result<Option<(Framing, String, usize)>, Reject> {
        let parsed = parse(bytes, &mut FieldRoom::take())?
            .map(|(request, length)| (request.framing, request.path().to_owned(), length));
        Ok(parsed)
    }

    #[test]
    fn a_worker_keeps_its_room() {
        let room = FieldRoom::take();
        let allocation = room.0.as_ptr();
        drop(room);
        assert_eq!(FieldRoom::take().0.as_ptr(), allocation);
    }

    const PLAIN: &[u8] = b"GET /stats?x=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    const PLAIN_LENGTH: usize = PLAIN.len();

    #[test]
    fn a_head_cut_at_any_byte_is_partial_and_whole_it_is_complete() {
        for cut in 0..PLAIN.len() {
            assert_eq!(outcome(&PLAIN[..cut]), Ok(None), "cut at {cut}");
        }
        let whole = outcome(PLAIN);
        assert!(
            matches!(&whole, Ok(Some((_, path, PLAIN_LENGTH))) if path == "/stats"),
            "{whole:?}"
        );
    }

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let two = [PLAIN, PLAIN].concat();
        assert!(matches!(outcome(&two), Ok(Some((_, _, length))) if length == PLAIN.len()));
        // Not even its line ends matter yet.
        let then_bare = [PLAIN, b"GET / HTTP/1.1\n\n"].concat();
        assert!(matches!(outcome(&then_bare), Ok(Some((_, _, length))) if length == PLAIN.len()));
    }

    #[test]
    fn contradictions_are_refused() {
        let with = |fields: &str| {
            outcome(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).map(drop)
        };
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(with(fields), Err(Reject::Length), "{fields}");
        }
        for fields in [
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: \r\n",
        ] {
            assert_eq!(with(fields), Err(Reject::LastCoding), "{fields}");
        }
        assert_eq!(
            with("Transfer-Encoding: gzip, chunked\r\n"),
            Err(Reject::UnknownCoding)
        );
        assert_eq!(with("Host: b\r\n"), Err(Reject::Host));
        assert_eq!(with("Expect: 200-ok\r\n"), Err(Reject::Expectation));
        let old = b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(outcome(old), Err(Reject::LastCoding));
        assert_eq!(
            outcome(b"GET / HTTP/1.1\r\n\r\n").map(drop),
            Err(Reject::Host)
        );
        assert_eq!(
            outcome(b"GET / HTTP/1.0\r\n\r\n").map(|head| head.is_some()),
            Ok(true)
        );
        assert_eq!(
            outcome(b"GET stats HTTP/1.1\r\nHost: a\r\n\r\n").map(drop),
            Err(Reject::Target)
        );
        assert_eq!(
            outcome(b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n").map(drop),
            Err(Reject::Authority)
        );
    }

    #[test]
    fn every_line_ends_with_cr_and_lf() {
        let whole = String::from_utf8_lossy(PLAIN);
        let ends: Vec<usize> = whole.match_indices("\r\n").map(|(at, _)| at).collect();
        for end in ends {
            let mut bare = PLAIN.to_vec();
            bare.remove(end);
            assert_eq!(outcome(&bare), Err(Reject::LineEnd), "LF at {end}");
            assert_eq!(
                outcome(&bare[..=end]),
                Err(Reject::LineEnd),
                "LF at {end}, and no more"
            );
        }
        assert_eq!(outcome(b"\n"), Err(Reject::LineEnd));
    }

    #[test]
    fn a_few_empty_lines_are_passed_over() {
        for (lines, expected) in [
            (1, true),
            (MAX_EMPTY_LINES, true),
            (MAX_EMPTY_LINES + 1, false),
        ] {
            let empty = b"\r\n".repeat(lines);
            let whole = outcome(&[empty.as_slice(), PLAIN].concat());
            let length = empty.len() + PLAIN.len();
            assert_eq!(
                matches!(whole, Ok(Some((_, _, found))) if found == length),
                expected,
                "{lines}: {whole:?}"
            );
            assert_eq!(outcome(&empty).is_ok(), expected, "{lines} and no more");
        }
    }

    #[test]
    fn a_version_that_is_not_spoken_is_told_from_nonsense() {
        for (line, reject) in [
            ("GET / HTTP/2.0", Reject::Version),
            ("GET / HTTP/1.2", Reject::Version),
            ("GET / HTTP/0.9", Reject::Version),
            ("PRI * HTTP/2.0", Reject::Version),
            ("GET / HTTP/1.10", Reject::Malformed),
            ("GET / HTTP/11", Reject::Malformed),
            ("GET / http/1.1", Reject::Malformed),
            ("GET /  HTTP/1.1", Reject::Malformed),
            ("GET / HTTPS/1.1", Reject::Malformed),
            ("GET / ", Reject::Malformed),
            ("GET /", Reject::Malformed),
        ] {
            assert_eq!(
                outcome(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()),
                Err(reject),
                "{line}"
            );
        }
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        let line = [b"GET /".as_slice(), &[b'a'; MAX_LINE]].concat();
        assert_eq!(outcome(&line), Err(Reject::LineTooLong));
        let fields = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(),
            &[b'a'; MAX_FIELDS_BYTES],
        ]
        .concat();
        assert_eq!(outcome(&fields), Err(Reject::FieldsTooLarge));
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(MAX_FIELDS)
        );
        assert_eq!(outcome(many.as_bytes()), Err(Reject::TooManyFields));
        let enough = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(MAX_FIELDS - 1)
        );
        assert!(matches!(outcome(enough.as_bytes()), Ok(Some(_))));
    }

    #[test]
    fn what_is_just_within_the_limits_passes_wherever_it_is_cut() {
        let empty = "\r\n".repeat(MAX_EMPTY_LINES);
        let line = |length: usize| {
            format!(
                "GET /{} HTTP/1.1\r\n",
                "a".repeat(length - "GET / HTTP/1.1".len())
            )
        };
        let fields = |bytes: usize| {
            format!(
                "Host: a\r\nX: {}\r\n\r\n",
                "a".repeat(bytes - "Host: a\r\nX: \r\n\r\n".len())
            )
        };
        let largest = format!("{empty}{}{}", line(MAX_LINE), fields(MAX_FIELDS_BYTES));
        assert_eq!(largest.len(), MAX_HEAD);
        assert!(matches!(
            outcome(largest.as_bytes()),
            Ok(Some((_, _, MAX_HEAD)))
        ));
        let line_end = empty.len() + MAX_LINE;
        for cut in (line_end - 2..line_end + 4).chain(MAX_HEAD - 4..MAX_HEAD) {
            assert_eq!(
                outcome(&largest.as_bytes()[..cut]),
                Ok(None),
                "cut at {cut}"
            );
        }
        let long_line = format!("{empty}{}{}", line(MAX_LINE + 1), fields(100));
        assert_eq!(outcome(long_line.as_bytes()), Err(Reject::LineTooLong));
        let large_fields = format!("{empty}{}{}", line(100), fields(MAX_FIELDS_BYTES + 1));
        assert_eq!(
            outcome(large_fields.as_bytes()),
            Err(Reject::FieldsTooLarge)
        );
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        let persistence = |head: &str| {
            outcome(head.as_bytes())
                .ok()
                .flatten()
                .map(|(framing, _, _)| framing.persistence)
        };
        assert_eq!(
            persistence("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Some(Persistence::Keep)
        );
        assert_eq!(
            persistence("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n"),
            Some(Persistence::Close)
        );
        assert_eq!(
            persistence("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
            Some(Persistence::Keep)
        );
        assert_eq!(
            persistence("GET / HTTP/1.0\r\n\r\n"),
            Some(Persistence::Close)
        );
    }

    #[test]
    fn a_head_is_parsed_at_its_first_bytes_and_then_once_a_line() {
        let mut parsed = 0;
        for length in 1..=PLAIN.len() {
            parsed += usize::from(may_go_on(&PLAIN[..length], 1));
        }
        assert_eq!(parsed, 1 + 4);
    }
}

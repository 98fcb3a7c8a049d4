//! A request's head: parsed, and what it decides about the body behind it and the connection after it.
//!
//! The rules are RFC 9112's for an origin server. Where a message could be read in two ways it is refused and the
//! connection closed, so that no other server on the way can have read it differently.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use super::response::Status;

/// A request line longer than this is refused: browsers and proxies send up to 8 KiB (RFC 9112, section 3, asks for at
/// least 8000 octets).
pub(super) const MAX_LINE: usize = 8 * 1024;
/// Header fields that take more than this are refused. Cookies for a whole domain rarely reach half of it.
pub(super) const MAX_FIELDS_BYTES: usize = 32 * 1024;
/// More header fields than this are refused. A browser behind two proxies sends about 40.
pub(super) const MAX_FIELDS: usize = 128;
/// The most bytes a head can have.
pub(super) const MAX_HEAD: usize = MAX_LINE + MAX_FIELDS_BYTES;

/// Why a request is refused. After any of these the connection is closed: where the next request begins is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    Malformed,
    Host,
    Target,
    Length,
    TransferCoding,
    Chunk,
    Expectation,
    Version,
    LineTooLong,
    FieldsTooLarge,
    TooManyFields,
    BodyTooLarge,
    Slow,
    Incomplete,
}

impl Reject {
    /// The answer's status and its sentence.
    pub(super) fn answer(self) -> (Status, &'static str) {
        match self {
            Reject::Malformed => (Status::BadRequest, "This is not a valid HTTP/1.1 request."),
            Reject::Host => (Status::BadRequest, "A request needs exactly one valid Host field."),
            Reject::Target => (Status::BadRequest, "The request target is not one this server can have."),
            Reject::Length => {
                (Status::BadRequest, "Content-Length must be one number, and not beside Transfer-Encoding.")
            }
            Reject::TransferCoding => {
                (Status::NotImplemented, "The only transfer coding this server knows is chunked.")
            }
            Reject::Chunk => (Status::BadRequest, "The chunked body is malformed."),
            Reject::Expectation => {
                (Status::ExpectationFailed, "The only expectation this server knows is 100-continue.")
            }
            Reject::Version => (Status::VersionNotSupported, "This server speaks HTTP/1.1 and HTTP/1.0."),
            Reject::LineTooLong => (Status::UriTooLong, "The request line is longer than 8 KiB."),
            Reject::FieldsTooLarge => (Status::HeaderFieldsTooLarge, "The header fields take more than 32 KiB."),
            Reject::TooManyFields => (Status::HeaderFieldsTooLarge, "There are more than 128 header fields."),
            Reject::BodyTooLarge => (Status::ContentTooLarge, "The body is larger than 64 KiB."),
            Reject::Slow => (Status::RequestTimeout, "The request took too long to arrive."),
            Reject::Incomplete => (Status::BadRequest, "The request ended before it was complete."),
        }
    }
}

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'b> {
    /// GET
    Get,
    /// HEAD
    Head,
    /// Any other.
    Other(&'b str),
}

impl<'b> Method<'b> {
    /// Its name.
    pub fn name(self) -> &'b str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Other(name) => name,
        }
    }
}

/// The head of one request. It borrows the bytes received.
#[derive(Debug)]
pub struct Request<'b> {
    /// What is asked for.
    pub method: Method<'b>,
    /// The request target as it was sent.
    pub target: &'b str,
    fields: &'b [httparse::Header<'b>],
    pub(super) framing: Framing,
}

/// What the head says about the message's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) body: Body,
    pub(super) persistence: Persistence,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// HTTP/1.0.
    pub(super) old_version: bool,
}

/// How the end of the body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// What happens to the connection after the answer (RFC 9112, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    Keep,
    Close,
}

impl<'b> Request<'b> {
    /// The target's path, without its query.
    pub fn path(&self) -> &'b str {
        let path = match self.target.split_once("://") {
            // absolute-form (RFC 9112, section 3.2.2): what is behind the authority.
            Some((_, rest)) if !self.target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
            _ => self.target,
        };
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// The values of all fields of that name, which is to be given in lower case.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

/// Room for the fields of one head.
type FieldRoom<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

/// Parses the head at the beginning of `bytes`, and lends it with its length to `take`; none while it is not complete.
/// `take` must not wait: the room for the fields is the worker's, since 4 KiB of it would cost each connection a page.
pub(super) fn parse<R>(bytes: &[u8], take: impl FnOnce(Result<Option<(Request<'_>, usize)>, Reject>) -> R) -> R {
    thread_local! {
        static ROOM: RefCell<FieldRoom<'static>> = const { RefCell::new([const { MaybeUninit::uninit() }; MAX_FIELDS]) };
    }
    ROOM.with_borrow_mut(|room| {
        // SAFETY: the room only ever holds uninitialised places, whose lifetime means nothing: they are written before
        // they are read within this call, and never read after it.
        let room = unsafe { std::mem::transmute::<&mut FieldRoom<'static>, &mut FieldRoom<'_>>(room) };
        take(parse_in(bytes, room))
    })
}

fn parse_in<'b>(bytes: &'b [u8], room: &'b mut FieldRoom<'b>) -> Result<Option<(Request<'b>, usize)>, Reject> {
    let mut head = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut head, bytes, room);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return too_large(bytes).map_or(Ok(None), Err),
        Err(httparse::Error::TooManyHeaders) => return Err(Reject::TooManyFields),
        Err(httparse::Error::Version) => return Err(Reject::Version),
        Err(_) => return Err(Reject::Malformed),
    };
    if let Some(reject) = too_large(&bytes[..length]) {
        return Err(reject);
    }
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Reject::Malformed);
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        other => Method::Other(other),
    };
    check_target(target, method)?;
    let framing = framing(head.headers, version == 0)?;
    Ok(Some((Request { method, target, fields: head.headers, framing }, length)))
}

/// Whether the head, complete or not, is beyond a limit.
fn too_large(bytes: &[u8]) -> Option<Reject> {
    let line = bytes.iter().take(MAX_LINE + 2).position(|byte| *byte == b'\n');
    match line {
        None if bytes.len() > MAX_LINE => Some(Reject::LineTooLong),
        Some(end) if bytes.len() - end > MAX_FIELDS_BYTES => Some(Reject::FieldsTooLarge),
        _ => None,
    }
}

/// RFC 9112, section 3.2: a target is a path, an absolute http URI, or `*` for OPTIONS.
fn check_target(target: &str, method: Method<'_>) -> Result<(), Reject> {
    let scheme = target.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"))
        || target.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    let asterisk = target == "*" && method == Method::Other("OPTIONS");
    if target.starts_with('/') || scheme || asterisk { Ok(()) } else { Err(Reject::Target) }
}

/// What the fields decide. One pass: every rule that depends on a count sees every field.
fn framing(fields: &[httparse::Header<'_>], old_version: bool) -> Result<Framing, Reject> {
    let mut hosts = 0;
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let mut close = false;
    let mut keep = false;
    let mut expects_continue = false;
    for field in fields {
        // Most fields are none of these; their lengths already say so.
        match field.name.len() {
            4 if field.name.eq_ignore_ascii_case("host") => {
                hosts += 1;
                check_host(field.value)?;
            }
            6 if field.name.eq_ignore_ascii_case("expect") => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject::Expectation);
                }
                expects_continue = true;
            }
            10 if field.name.eq_ignore_ascii_case("connection") => {
                close |= has_token(field.value, "close");
                keep |= has_token(field.value, "keep-alive");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let value = decimal(field.value).ok_or(Reject::Length)?;
                if length.replace(value).is_some() {
                    return Err(Reject::Length);
                }
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                // Section 6.1: HTTP/1.0 has no transfer codings, and chunked may not be applied twice.
                if chunked || old_version {
                    return Err(Reject::Length);
                }
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::TransferCoding);
                }
                chunked = true;
            }
            _ => {}
        }
    }
    // Section 3.2: HTTP/1.1 requires it.
    if hosts > 1 || (hosts == 0 && !old_version) {
        return Err(Reject::Host);
    }
    let body = match (chunked, length) {
        (true, Some(_)) => return Err(Reject::Length),
        (true, None) => Body::Chunked,
        (false, Some(0) | None) => Body::None,
        (false, Some(length)) => Body::Length(length),
    };
    let persistence = if close || (old_version && !keep) { Persistence::Close } else { Persistence::Keep };
    Ok(Framing { body, persistence, expects_continue: expects_continue && !old_version, old_version })
}

/// RFC 9110, section 7.2: uri-host with an optional port, or empty. No user, no path, no spaces.
fn check_host(value: &[u8]) -> Result<(), Reject> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    if value.iter().all(allowed) { Ok(()) } else { Err(Reject::Host) }
}

/// Whether a comma-separated list has this token, in any case.
fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Digits only: no sign, no list, no space (RFC 9110, section 8.6).
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a head comes to: its framing with its path, or why not.
    fn outcome(bytes: &[u8]) -> Result<Option<(Framing, String, usize)>, Reject> {
        parse(bytes, |parsed| Ok(parsed?.map(|(request, length)| (request.framing, request.path().to_owned(), length))))
    }

    const PLAIN: &[u8] = b"GET /stats?x=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";

    #[test]
    fn a_head_cut_at_any_byte_is_partial_and_whole_it_is_complete() {
        for cut in 0..PLAIN.len() {
            assert_eq!(outcome(&PLAIN[..cut]), Ok(None), "cut at {cut}");
        }
        let whole = outcome(PLAIN);
        assert!(
            matches!(&whole, Ok(Some((_, path, length))) if path == "/stats" && *length == PLAIN.len()),
            "{whole:?}"
        );
    }

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let two = [PLAIN, PLAIN].concat();
        assert!(matches!(outcome(&two), Ok(Some((_, _, length))) if length == PLAIN.len()));
    }

    #[test]
    fn contradictions_are_refused() {
        let with = |fields: &str| outcome(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).map(drop);
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(with(fields), Err(Reject::Length), "{fields}");
        }
        assert_eq!(with("Transfer-Encoding: gzip, chunked\r\n"), Err(Reject::TransferCoding));
        assert_eq!(with("Host: b\r\n"), Err(Reject::Host));
        assert_eq!(with("Expect: 200-ok\r\n"), Err(Reject::Expectation));
        assert_eq!(outcome(b"GET / HTTP/1.1\r\n\r\n").map(drop), Err(Reject::Host));
        assert_eq!(outcome(b"GET / HTTP/1.0\r\n\r\n").map(|head| head.is_some()), Ok(true));
        assert_eq!(outcome(b"GET stats HTTP/1.1\r\nHost: a\r\n\r\n").map(drop), Err(Reject::Target));
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        let line = [b"GET /".as_slice(), &[b'a'; MAX_LINE]].concat();
        assert_eq!(outcome(&line), Err(Reject::LineTooLong));
        let fields = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'a'; MAX_FIELDS_BYTES]].concat();
        assert_eq!(outcome(&fields), Err(Reject::FieldsTooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS));
        assert_eq!(outcome(many.as_bytes()), Err(Reject::TooManyFields));
        let enough = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS - 1));
        assert!(matches!(outcome(enough.as_bytes()), Ok(Some(_))));
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        let persistence =
            |head: &str| outcome(head.as_bytes()).ok().flatten().map(|(framing, _, _)| framing.persistence);
        assert_eq!(persistence("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Persistence::Keep));
        assert_eq!(persistence("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n"), Some(Persistence::Close));
        assert_eq!(persistence("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), Some(Persistence::Keep));
        assert_eq!(persistence("GET / HTTP/1.0\r\n\r\n"), Some(Persistence::Close));
    }
}

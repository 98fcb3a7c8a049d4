//! A slow and obvious reading of requests, against which tests and fuzzing hold the parser.
//!
//! It has the whole stream at once, works on lines, and shares only the limits with what it checks.
//! `src/http` includes it as `http::oracle`, since it needs the parser's own types.

use std::net::Ipv6Addr;

use super::body::{BodyDrain, MAX_BODY, MAX_CHUNK_FRAMING};
use super::buffers::Input;
use super::framing::Persistence;
use super::request::{
    self, FieldRoom, MAX_EMPTY_LINES, MAX_FIELDS, MAX_FIELDS_BYTES, MAX_HEAD, MAX_LINE, Request,
};

/// One request, and what its head decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    method: String,
    target: String,
    path: String,
    fields: Vec<(String, Vec<u8>)>,
    closes: bool,
    expects_continue: bool,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Between two requests, or because one closes the connection.
    Clean,
    /// With a request that is refused, be it only for its missing end.
    Refused,
}

/// Panics unless both readings of the stream, which reaches the fast one in pieces of these lengths
/// in turn, are the same.
pub fn check(stream: &[u8], pieces: &[usize]) {
    let (slow, fast) = (read_slowly(stream), read_fast(stream, pieces));
    assert!(
        slow == fast,
        "in pieces of {pieces:?}: {}\nslow: {slow:?}\nfast: {fast:?}",
        stream.escape_ascii()
    );
}

/// As [`check`], from one input of the fuzzer: a byte that says how the stream is cut, and the
/// stream.
pub fn check_input(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else {
        return;
    };
    check(
        stream,
        &[usize::from(*cut), 1 + usize::from(cut >> 4), usize::MAX],
    );
}

/// Panics unless a head is found in every text that begins with it, and in no text that is shorter,
/// and is within the limits.
pub fn check_head(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut room = FieldRoom::take();
        let parsed = request::parse(bytes, &mut room);
        parsed.map(|whole| whole.map(|(request, length)| (Message::of(&request), length)))
    };
    let whole = read(bytes);
    // Every length near the ends, and of the others enough.
    let step = 1 + bytes.len() / 64;
    for length in (0..bytes.len()).filter(|length| length % step == 0 || length + 8 > bytes.len()) {
        match (&whole, read(&bytes[..length])) {
            (Ok(Some((_, end))), part) if length < *end => {
                assert_eq!(part, Ok(None), "{length} of {end}")
            }
            (Ok(Some(_)), part) => assert_eq!(part, whole, "{length}"),
            (Ok(None), part) => assert_eq!(part, Ok(None), "{length}"),
            (Err(_), part) => assert!(!matches!(part, Ok(Some(_))), "{length}"),
        }
    }
    if let Ok(Some((message, length))) = whole {
        assert!(length <= MAX_HEAD && message.fields.len() <= MAX_FIELDS);
        assert!(message.path.starts_with('/') || message.path == "*");
        assert!(message.target.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// As a connection reads it (connection.rs), without a socket.
pub fn read_fast(stream: &[u8], pieces: &[usize]) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    let mut left = stream;
    let mut lengths = pieces.iter().copied().cycle();
    let mut input = Input::default();
    let mut receive = |input: &mut Input| {
        let room = input
            .room(MAX_HEAD + 1)
            .unwrap_or_else(|error| unreachable!("{error}"));
        let length = lengths
            .next()
            .unwrap_or(usize::MAX)
            .max(1)
            .min(room.len())
            .min(left.len());
        room[..length].copy_from_slice(&left[..length]);
        input.received(length);
        left = &left[length..];
        length
    };
    loop {
        let head = loop {
            let mut room = FieldRoom::take();
            match request::parse(input.unread(), &mut room) {
                Ok(Some((request, length))) => {
                    break (Message::of(&request), request.framing, length);
                }
                Err(_) => return (messages, End::Refused),
                Ok(None) => {}
            }
            drop(room);
            loop {
                match receive(&mut input) {
                    0 if request::has_begun(input.unread()) => return (messages, End::Refused),
                    0 => return (messages, End::Clean),
                    new if request::may_go_on(input.unread(), new) => break,
                    _ => {}
                }
            }
        };
        let (message, framing, length) = head;
        input.consume(length);
        let Ok(mut body) = BodyDrain::new(framing.body) else {
            return (messages, End::Refused);
        };
        while !body.is_done() {
            match body.drain(input.unread()) {
                Ok(length) => input.consume(length),
                Err(_) => return (messages, End::Refused),
            }
            if !body.is_done() && receive(&mut input) == 0 {
                return (messages, End::Refused);
            }
        }
        messages.push(message);
        if framing.persistence == Persistence::Close {
            return (messages, End::Clean);
        }
    }
}

impl Message {
    fn of(request: &Request<'_>) -> Message {
        let framing = request.framing;
        Message {
            method: request.method.name().to_owned(),
            target: request.target.to_owned(),
            path: request.path().to_owned(),
            fields: request
                .fields
                .iter()
                .map(|field| (field.name.to_lowercase(), field.value.to_vec()))
                .collect(),
            closes: framing.persistence == Persistence::Close,
            expects_continue: framing.expects_continue,
        }
    }
}

/// The slow reading.
pub fn read_slowly(mut stream: &[u8]) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    loop {
        match one(stream) {
            Some((message, rest)) => {
                let closes = message.closes;
                messages.push(message);
                stream = rest;
                if closes {
                    return (messages, End::Clean);
                }
            }
            None => {
                let only_empty_lines = stream.len() < 2 * (MAX_EMPTY_LINES + 1)
                    && b"\r\n".repeat(1 + MAX_EMPTY_LINES).starts_with(stream);
                return (
                    messages,
                    if only_empty_lines {
                        End::Clean
                    } else {
                        End::Refused
                    },
                );
            }
        }
    }
}

/// The first request of the stream and what follows it.
fn one(stream: &[u8]) -> Option<(Message, &[u8])> {
    let mut stream = stream;
    for _ in 0..MAX_EMPTY_LINES {
        stream = stream.strip_prefix(b"\r\n").unwrap_or(stream);
    }
    let head_end = stream.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, rest) = (&stream[..head_end], &stream[head_end + 4..]);
    let lines = lines(head);
    if lines
        .iter()
        .any(|line| line.iter().any(|byte| b"\r\n\0".contains(byte)))
    {
        return None;
    }
    let (request_line, field_lines) = lines.split_first()?;
    let block = head_end + 4 - (request_line.len() + 2);
    if request_line.len() > MAX_LINE || block > MAX_FIELDS_BYTES || field_lines.len() > MAX_FIELDS {
        return None;
    }
    let words: Vec<&str> = std::str::from_utf8(request_line).ok()?.split(' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    let old = match version {
        "HTTP/1.0" => true,
        "HTTP/1.1" => false,
        _ => return None,
    };
    if !is_token(method.as_bytes())
        || !target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return None;
    }
    let fields: Vec<(String, Vec<u8>)> = field_lines
        .iter()
        .map(|line| field(line))
        .collect::<Option<_>>()?;
    let values = |wanted: &str| -> Vec<&[u8]> {
        fields
            .iter()
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_slice())
            .collect()
    };
    let host = match values("host")[..] {
        [] if old => None,
        [value] => Some(host(value)?),
        _ => return None,
    };
    let path = path(method, target, host)?;
    let expectations = values("expect");
    if !expectations
        .iter()
        .all(|value| value.eq_ignore_ascii_case(b"100-continue"))
    {
        return None;
    }
    let connection: Vec<String> = values("connection")
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|token| {
            String::from_utf8_lossy(token)
                .trim_matches([' ', '\t'])
                .to_lowercase()
        })
        .collect();
    let says = |token: &str| connection.iter().any(|known| known == token);
    let closes = says("close") || (old && !says("keep-alive"));
    let rest = match (
        &values("transfer-encoding")[..],
        &values("content-length")[..],
    ) {
        ([], []) => rest,
        ([], [length]) => without_length(rest, length)?,
        ([coding], []) if !old && coding.eq_ignore_ascii_case(b"chunked") => without_chunks(rest)?,
        _ => return None,
    };
    let expects_continue = !expectations.is_empty() && !old;
    let (method, target) = (method.to_owned(), target.to_owned());
    Some((
        Message {
            method,
            target,
            path,
            fields,
            closes,
            expects_continue,
        },
        rest,
    ))
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        found.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    found.push(rest);
    found
}

fn is_token(bytes: &[u8]) -> bool {
    let separators = b"()<>@,;:\\\"/[]?={}";
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !separators.contains(byte))
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, mut value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name)
        || value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return None;
    }
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Some((String::from_utf8_lossy(name).to_lowercase(), value.to_vec()))
}

/// A host's name in lower case, and its port.
fn host(value: &[u8]) -> Option<(String, Option<u16>)> {
    let text = std::str::from_utf8(value).ok()?.to_lowercase();
    let (name, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, port) = inner.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let mut pieces = name.split('%');
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            let first_is_plain = pieces.next().is_some_and(|piece| piece.chars().all(plain));
            let encoded = |piece: &str| {
                let code = piece
                    .get(..2)
                    .is_some_and(|code| code.chars().all(|c| c.is_ascii_hexdigit()));
                code && piece.chars().skip(2).all(plain)
            };
            (first_is_plain && pieces.all(encoded)).then_some((name.to_owned(), port))?
        }
    };
    match port {
        "" | ":" => Some((name, None)),
        _ => {
            let digits = port.strip_prefix(':')?;
            digits.chars().all(|c| c.is_ascii_digit()).then_some(())?;
            Some((name, Some(digits.parse().ok()?)))
        }
    }
}

fn path(method: &str, target: &str, host_field: Option<(String, Option<u16>)>) -> Option<String> {
    let before_query = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
    match target {
        _ if method == "CONNECT" => None,
        "*" if method == "OPTIONS" => Some("*".to_owned()),
        _ if target.starts_with('/') => Some(before_query(target)),
        _ => {
            let lower = target.to_lowercase();
            let scheme = ["http://", "https://"]
                .into_iter()
                .find(|scheme| lower.starts_with(scheme))?;
            let default_port = if scheme == "http://" { 80 } else { 443 };
            let rest = &target[scheme.len()..];
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let (name, port) = host(authority.as_bytes()).filter(|(name, _)| !name.is_empty())?;
            let same = host_field.is_none_or(|(other, other_port)| {
                other == name && other_port.unwrap_or(default_port) == port.unwrap_or(default_port)
            });
            let path = before_query(path);
            same.then_some(if path.is_empty() {
                "/".to_owned()
            } else {
                path
            })
        }
    }
}

fn without_length<'b>(rest: &'b [u8], length: &[u8]) -> Option<&'b [u8]> {
    let text = std::str::from_utf8(length).ok()?;
    text.chars().all(|c| c.is_ascii_digit()).then_some(())?;
    let length: u64 = text.parse().ok()?;
    (length <= MAX_BODY).then_some(())?;
    rest.get(usize::try_from(length).ok()?..)
}

fn without_chunks(body: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut data) = (body, 0);
    loop {
        let (line, after) = line(rest)?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        let extension = line[digits..].trim_ascii_start();
        let trimmed = line[digits..].len() - extension.len();
        let space_is_blank = line[digits..digits + trimmed]
            .iter()
            .all(|byte| b" \t".contains(byte));
        let text = extension
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        let valid = if extension.is_empty() {
            trimmed == 0
        } else {
            extension[0] == b';'
        };
        data += size;
        if digits > 15 || !space_is_blank || !text || !valid || data > MAX_BODY {
            return None;
        }
        rest = after;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, after) = line(rest)?;
        rest = after;
        if trailer.is_empty() {
            let framing = (body.len() - rest.len()) as u64 - data;
            return (framing <= MAX_CHUNK_FRAMING).then_some(rest);
        }
        field(trailer)?;
    }
}

/// The first line, which has neither CR nor LF in it, and what follows its end.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| b"\r\n".contains(byte))?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

#[cfg(test)]
#[path = "http_streams.rs"]
mod streams;

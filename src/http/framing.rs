//! What the header fields decide: the request's body, and the connection after it (RFC 9112,
//! sections 6 and 9.3).
//!
//! A message that could be read in two ways is rejected, so no server on the way can have read it
//! differently.

use super::reject::Reject;
use super::target;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) body: Body,
    pub(super) persistence: Persistence,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// HTTP/1.0
    pub(super) old_version: bool,
}

/// How the end of the body is found (section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// What happens to the connection after the answer (section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    Keep,
    Close,
}

/// What one pass over the fields has found.
#[derive(Debug, Default)]
struct Seen<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    /// Transfer-Encoding fields that say chunked.
    chunked: u8,
    close: bool,
    keep: bool,
    expects_continue: bool,
}

/// Returns the framing and the Host field's value.
pub(super) fn framing<'b>(
    fields: &[httparse::Header<'b>],
    old_version: bool,
) -> Result<(Framing, Option<&'b [u8]>), Reject> {
    let mut seen = Seen::default();
    for field in fields {
        // By length first: most fields are none of these.
        match field.name.len() {
            4 if field.name.eq_ignore_ascii_case("host") => seen.host(field.value)?,
            6 if field.name.eq_ignore_ascii_case("expect") => seen.expect(field.value)?,
            10 if field.name.eq_ignore_ascii_case("connection") => {
                seen.close |= has_token(field.value, "close");
                seen.keep |= has_token(field.value, "keep-alive");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => seen.length(field.value)?,
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                seen.coding(field.value, old_version)?
            }
            _ => {}
        }
    }
    // Section 3.2: HTTP/1.1 requires it.
    if seen.host.is_none() && !old_version {
        return Err(Reject::Host);
    }
    let body = match (seen.chunked > 0, seen.length) {
        (true, Some(_)) => return Err(Reject::Length),
        (true, None) => Body::Chunked,
        (false, Some(0) | None) => Body::None,
        (false, Some(length)) => Body::Length(length),
    };
    let close = seen.close || (old_version && !seen.keep);
    let persistence = if close {
        Persistence::Close
    } else {
        Persistence::Keep
    };
    // RFC 9110, section 10.1.1: an expectation in an HTTP/1.0 request is ignored.
    let expects_continue = seen.expects_continue && !old_version;
    Ok((
        Framing {
            body,
            persistence,
            expects_continue,
            old_version,
        },
        seen.host,
    ))
}

impl<'b> Seen<'b> {
    fn host(&mut self, value: &'b [u8]) -> Result<(), Reject> {
        let first = self.host.replace(value).is_none();
        if first && target::is_host(value) {
            Ok(())
        } else {
            Err(Reject::Host)
        }
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Reject> {
        self.expects_continue = true;
        if value.eq_ignore_ascii_case(b"100-continue") {
            Ok(())
        } else {
            Err(Reject::Expectation)
        }
    }

    /// RFC 9110, section 8.6: digits only. One field, even where two say the same.
    fn length(&mut self, value: &[u8]) -> Result<(), Reject> {
        let length = decimal(value).ok_or(Reject::Length)?;
        if self.length.replace(length).is_none() {
            Ok(())
        } else {
            Err(Reject::Length)
        }
    }

    /// Section 6.1: HTTP/1.0 has no transfer codings. Section 6.3: only chunked as the last coding
    /// marks the end of the body. A second field is rejected whatever it holds.
    fn coding(&mut self, value: &[u8], old_version: bool) -> Result<(), Reject> {
        if self.chunked > 0 || old_version {
            return Err(Reject::LastCoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = 1;
            return Ok(());
        }
        let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        let mut last_first = value.rsplit(|byte| *byte == b',');
        let ends_chunked = last_first.next().is_some_and(is_chunked);
        Err(if ends_chunked && !last_first.any(is_chunked) {
            Reject::UnknownCoding
        } else {
            Reject::LastCoding
        })
    }
}

/// Whether a comma-separated list has this token, in any case.
fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

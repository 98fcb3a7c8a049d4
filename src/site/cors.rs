//! The origins whose scripts may read the answer to a beacon (the Fetch standard's CORS protocol).

use std::fmt::Write as _;

use super::fields;
use crate::http::Request;

/// Bytes of an origin: a scheme, a host name of up to 253 bytes, a port.
const MAX_ORIGIN: usize = 300;

/// Who sends a beacon. `sendBeacon` sends credentials, so `*` is not enough for it: the answer must
/// name the origin. No route reads credentials.
#[derive(Debug, Clone)]
pub struct Origin(Option<Box<str>>);

impl Origin {
    pub(super) fn of(request: &Request<'_>) -> Origin {
        let mut values = request.fields("origin");
        let value = values.next().filter(|_| values.next().is_none());
        Origin(value.and_then(serialized).map(Box::from))
    }

    /// The header fields of the answer to a beacon.
    pub(super) fn fields(&self) -> String {
        let mut fields = fields::BEACON.to_owned();
        self.allow(&mut fields);
        fields
    }

    /// The header fields of the answer to a preflight of one.
    pub(super) fn preflight_fields(&self) -> String {
        let mut fields = fields::BEACON_PREFLIGHT.to_owned();
        self.allow(&mut fields);
        fields
    }

    fn allow(&self, fields: &mut String) {
        // Writing to a String cannot fail.
        let _ = match &self.0 {
            Some(origin) => write!(
                fields,
                "Access-Control-Allow-Origin: {origin}\r\n\
                 Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
            ),
            None => write!(fields, "{}Vary: Origin\r\n", fields::CORS),
        };
    }
}

/// An origin as browsers write it: `https://example.org:8443`, or `null`. Nothing in it could end a
/// header field or begin something else.
fn serialized(value: &[u8]) -> Option<&str> {
    let value = std::str::from_utf8(value).ok()?;
    let is_host = |host: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        !host.is_empty() && host.bytes().all(valid)
    };
    let is_scheme = |scheme: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(valid)
    };
    let is_valid = |(scheme, host)| is_scheme(scheme) && is_host(host);
    let valid = value == "null" || value.split_once("://").is_some_and(is_valid);
    (valid && value.len() <= MAX_ORIGIN).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for valid in [
            "null",
            "https://example.org",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "moz-extension://0b5c1a9e",
        ] {
            assert_eq!(serialized(valid.as_bytes()), Some(valid), "{valid}");
        }
        let long = format!("https://{}", "x".repeat(300));
        for wrong in [
            "",
            "*",
            "example.org",
            "https://",
            "://a",
            "https://a/b",
            "https://a b",
            "https://a,https://b",
            "https://a\"",
            "https://a\r\nX: y",
            "https://é",
            "1http://a",
            &long,
        ] {
            assert_eq!(serialized(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

//! The request target and the host it is meant for (RFC 9112, section 3.2; RFC 9110, section 7.2).

use std::net::Ipv6Addr;

use super::method::Method;
use super::reject::Reject;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// The path as it was sent: nothing is decoded. `*` means the server as a whole.
    pub(super) path: &'b str,
    /// The authority of the absolute-form, with the port that its scheme implies.
    pub(super) authority: Option<(&'b [u8], u16)>,
}

impl<'b> Target<'b> {
    /// Section 3.2: origin-form (a path), absolute-form (an http or https URI), or `*` for OPTIONS.
    /// The authority-form is for CONNECT alone, and this is no proxy.
    pub(super) fn parse(target: &'b str, method: Method<'_>) -> Result<Target<'b>, Reject> {
        if method == Method::Other("CONNECT") {
            return Err(Reject::Tunnel);
        }
        // No client sends a fragment (section 3.2), and servers disagree on whether one would
        // belong to the path. A URI is ASCII (RFC 3986, section 2). Every other visible character
        // passes: browsers leave some unencoded.
        if target.bytes().any(|byte| byte == b'#' || !byte.is_ascii()) {
            return Err(Reject::Target);
        }
        if target.starts_with('/') {
            return Ok(Target {
                path: without_query(target),
                authority: None,
            });
        }
        if target == "*" && method == Method::Other("OPTIONS") {
            return Ok(Target {
                path: target,
                authority: None,
            });
        }
        let (rest, port) = match (
            after_scheme(target, "http://"),
            after_scheme(target, "https://"),
        ) {
            (Some(rest), _) => (rest, 80),
            (_, Some(rest)) => (rest, 443),
            _ => return Err(Reject::Target),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, _) = split_host(authority.as_bytes()).ok_or(Reject::Target)?;
        // RFC 9110, section 4.2.1: an http URI without a host is invalid.
        if host.is_empty() {
            return Err(Reject::Target);
        }
        let path = without_query(path);
        let path = if path.is_empty() { "/" } else { path };
        Ok(Target {
            path,
            authority: Some((authority.as_bytes(), port)),
        })
    }

    /// Section 3.2: a client that sends the absolute-form sends the same authority in Host. Where
    /// they differ, a proxy may have gone by the other one.
    pub(super) fn check_host(&self, host: Option<&[u8]>) -> Result<(), Reject> {
        let (Some((authority, port)), Some(host)) = (self.authority, host) else {
            return Ok(());
        };
        let with_port =
            |value| split_host(value).map(|(host, given)| (host, given.unwrap_or(port)));
        match (with_port(authority), with_port(host)) {
            (Some((a, port_a)), Some((b, port_b)))
                if a.eq_ignore_ascii_case(b) && port_a == port_b =>
            {
                Ok(())
            }
            _ => Err(Reject::Authority),
        }
    }
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// What follows the scheme, in any case (RFC 9110, section 4.2.3).
fn after_scheme<'b>(target: &'b str, scheme: &str) -> Option<&'b str> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110, section 7.2), or empty.
pub(super) fn is_host(value: &[u8]) -> bool {
    split_host(value).is_some()
}

/// The host and the port; `None` where they are not valid (RFC 3986, section 3.2).
fn split_host(value: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let length = if value.first() == Some(&b'[') {
        let end = value.iter().position(|byte| *byte == b']')?;
        std::str::from_utf8(&value[1..end])
            .ok()?
            .parse::<Ipv6Addr>()
            .ok()?;
        end + 1
    } else {
        let end = value
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(value.len());
        is_name(&value[..end]).then_some(end)?
    };
    match value[length..].split_first() {
        None => Some((&value[..length], None)),
        Some((b':', [])) => Some((&value[..length], None)),
        Some((b':', port)) => Some((&value[..length], Some(as_port(port)?))),
        _ => None,
    }
}

/// A registered name or an IPv4 address, without the grammar's sub-delims: no host has them, and a
/// server that joins two Host fields makes `a,b` of them.
fn is_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(u8::is_ascii_hexdigit)),
            b'-' | b'.' | b'_' | b'~' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !valid {
            return false;
        }
    }
    true
}

fn as_port(port: &[u8]) -> Option<u16> {
    if !port.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(port).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<&str, Reject> {
        Target::parse(target, Method::Get).map(|target| target.path)
    }

    #[test]
    fn a_path_is_found_in_either_form() {
        for (target, expected) in [
            ("/", "/"),
            ("/stats?x=/", "/stats"),
            ("//double//", "//double//"),
            ("/%2e%2E/\"<>\\^`{|}", "/%2e%2E/\"<>\\^`{|}"),
            ("http://a", "/"),
            ("HTTP://a/livez", "/livez"),
            ("https://a.example:8443/x?y", "/x"),
            ("http://a?/stats", "/"),
            ("http://[::1]:80/stats", "/stats"),
            ("http://a//b", "//b"),
        ] {
            assert_eq!(path(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn other_targets_are_refused() {
        for target in [
            "",
            "*",
            "stats",
            "a:80",
            "/#fragment",
            "/?x#y",
            "/\u{e9}",
            "http://",
            "http:///stats",
            "http://:80/",
            "http://user@a/",
            "http://a b/",
            "http://a:port/",
            "http://[::1/",
            "ftp://a/",
            "http:/a",
            "\\\\a",
        ] {
            assert_eq!(path(target), Err(Reject::Target), "{target}");
        }
        assert_eq!(
            Target::parse("a:443", Method::Other("CONNECT")),
            Err(Reject::Tunnel)
        );
        assert_eq!(
            Target::parse("*", Method::Other("OPTIONS")).map(|target| target.path),
            Ok("*")
        );
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        for valid in [
            "",
            "a",
            "a.example",
            "A_b-c~d",
            "a:80",
            "a:",
            "127.0.0.1:5000",
            "[::1]",
            "[::1]:5000",
            "a%2d",
        ] {
            assert!(is_host(valid.as_bytes()), "{valid}");
        }
        for wrong in [
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a:b",
            "a:1:2",
            "a:65536",
            "a:-1",
            "[::1",
            "[::1]x",
            "[a]",
            "[]",
            "::1",
            "a%",
            "a%2",
            "a%zz",
            "a\u{e9}",
            "a\\b",
            "[::1%25eth0]",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn the_host_field_agrees_with_the_target() {
        let check = |target, host: &str| {
            Target::parse(target, Method::Get)
                .and_then(|target| target.check_host(Some(host.as_bytes())))
        };
        for (target, host) in [
            ("http://a/", "a"),
            ("http://a:80/", "A"),
            ("http://a:/", "a:80"),
            ("http://a:0080/", "a"),
            ("https://a/", "a:443"),
            ("http://a:81/", "a:81"),
            ("/", "anything"),
        ] {
            assert_eq!(check(target, host), Ok(()), "{target} {host}");
        }
        for (target, host) in [
            ("http://a/", "b"),
            ("http://a/", "a:81"),
            ("https://a/", "a:80"),
            ("http://a/", ""),
        ] {
            assert_eq!(
                check(target, host),
                Err(Reject::Authority),
                "{target} {host}"
            );
        }
    }
}

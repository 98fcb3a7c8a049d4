//! The client's address by a trusted proxy: from the PROXY protocol before the first request, or
//! from `X-Forwarded-For` or `Forwarded` (RFC 7239) in each request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::address::Networks;
use super::reject::Reject;
use super::request::Request;

/// Bytes of a version 1 line, with its end ("The PROXY protocol", section 2.1).
const MAX_LINE: usize = 107;
/// Bytes of a version 2 header: addresses, and a few kilobytes of what a proxy knows of TLS.
const MAX_HEADER: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How a proxy's connection begins ("The PROXY protocol", versions 1 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    /// Without a PROXY header.
    None,
    /// More bytes will tell.
    Incomplete,
    /// A header of that length; the client's address, unless the proxy speaks for itself or does
    /// not know it.
    Header(usize, Option<IpAddr>),
}

/// Reads the header at the beginning of a connection.
pub(super) fn preface(bytes: &[u8]) -> Result<Preface, Reject> {
    let begins = |with: &[u8]| {
        bytes
            .iter()
            .zip(with)
            .all(|(byte, expected)| byte == expected)
    };
    match bytes {
        _ if begins(SIGNATURE) => version_2(bytes),
        _ if begins(b"PROXY ") => version_1(bytes),
        _ => Ok(Preface::None),
    }
}

fn version_1(bytes: &[u8]) -> Result<Preface, Reject> {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_LINE {
            Ok(Preface::Incomplete)
        } else {
            Err(Reject::Proxy)
        };
    };
    let line = std::str::from_utf8(&bytes[..end])
        .ok()
        .and_then(|line| line.strip_suffix('\r'))
        .ok_or(Reject::Proxy)?;
    let mut words = line.split(' ').skip(1);
    let (family, source) = (words.next(), words.next().map(str::parse::<IpAddr>));
    let source = match (family, source) {
        (Some("UNKNOWN"), _) => None,
        (Some("TCP4"), Some(Ok(source))) if source.is_ipv4() => Some(source),
        (Some("TCP6"), Some(Ok(source))) if source.is_ipv6() => Some(source.to_canonical()),
        _ => return Err(Reject::Proxy),
    };
    Ok(Preface::Header(end + 1, source))
}

fn version_2(bytes: &[u8]) -> Result<Preface, Reject> {
    let Some([command, family, high, low]) = bytes.get(12..16) else {
        return Ok(Preface::Incomplete);
    };
    let length = 16 + usize::from(u16::from_be_bytes([*high, *low]));
    if command >> 4 != 2 || command & 15 > 1 || length > MAX_HEADER {
        return Err(Reject::Proxy);
    }
    let Some(rest) = bytes.get(16..length) else {
        return Ok(Preface::Incomplete);
    };
    let source = match (command & 15, family) {
        (1, 0x11) => Some(
            rest.first_chunk::<4>()
                .map(|octets| Ipv4Addr::from(*octets).into())
                .ok_or(Reject::Proxy)?,
        ),
        (1, 0x21) => Some(
            rest.first_chunk::<16>()
                .map(|octets| Ipv6Addr::from(*octets).into())
                .ok_or(Reject::Proxy)?,
        ),
        _ => None,
    };
    Ok(Preface::Header(
        length,
        source.map(|source: IpAddr| source.to_canonical()),
    ))
}

/// The client's address. Proxies append to the fields, so it is the last address there that is not
/// a trusted proxy's.
pub(super) fn client(trusted: &Networks, peer: IpAddr, request: &Request<'_>) -> IpAddr {
    if trusted.is_empty() || !trusted.contain(peer) {
        return peer;
    }
    let members = |name| {
        request
            .fields(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
    };
    let by_list: Vec<&[u8]> = members("x-forwarded-for").collect();
    let by_pairs: Vec<&[u8]> = members("forwarded").collect();
    let by_list = last(trusted, peer, by_list.into_iter().map(Some));
    let by_pairs = last(trusted, peer, by_pairs.into_iter().map(for_parameter));
    match (by_list, by_pairs) {
        (Some(client), None) | (None, Some(client)) => client,
        // The proxy writes one field and passes the other on, which a client may have forged.
        (Some(client), Some(other)) if client == other => client,
        _ => peer,
    }
}

/// The client by the members of one field; `None` without members.
fn last<'b>(
    trusted: &Networks,
    peer: IpAddr,
    members: impl DoubleEndedIterator<Item = Option<&'b [u8]>> + ExactSizeIterator,
) -> Option<IpAddr> {
    if members.len() == 0 {
        return None;
    }
    let mut client = peer;
    for member in members.rev() {
        // A trusted proxy wrote `unknown` or an obfuscated name: the last address stands.
        let Some(address) = member.and_then(address) else {
            break;
        };
        client = address;
        if !trusted.contain(address) {
            break;
        }
    }
    Some(client)
}

/// The value of `for` in one element of Forwarded (RFC 7239, section 4), without its quotes.
fn for_parameter(element: &[u8]) -> Option<&[u8]> {
    let pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let value = pairs
        .filter(|pair| pair.len() > 4 && pair[..4].eq_ignore_ascii_case(b"for="))
        .map(|pair| &pair[4..])
        .next()?;
    Some(
        value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value),
    )
}

/// `192.0.2.1`, `[2001:db8::1]`, each also with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{self, FieldRoom};

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn told(peer: IpAddr, fields: &str) -> String {
        let trusted: Networks = "10.0.0.0/8, fd00::/8".parse().unwrap_or_default();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut room = FieldRoom::take();
        match request::parse(head.as_bytes(), &mut room) {
            Ok(Some((request, _))) => client(&trusted, peer, &request).to_string(),
            _ => "no request".to_owned(),
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        for (fields, expected) in [
            ("", "10.0.0.1"),
            ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
            ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.9.9.9\r\n", "1.2.3.4"),
            (
                "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n",
                "1.2.3.4",
            ),
            ("X-Forwarded-For: 10.7.7.7, 10.9.9.9\r\n", "10.7.7.7"),
            ("X-Forwarded-For: 6.6.6.6, unknown\r\n", "10.0.0.1"),
            (
                "X-Forwarded-For: 6.6.6.6, unknown, 10.9.9.9\r\n",
                "10.9.9.9",
            ),
            ("X-Forwarded-For: 1.2.3.4:5678\r\n", "1.2.3.4"),
            ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7"),
            ("X-Forwarded-For: ::ffff:1.2.3.4\r\n", "1.2.3.4"),
            (
                "Forwarded: for=1.2.3.4;proto=http;by=10.0.0.1\r\n",
                "1.2.3.4",
            ),
            (
                "Forwarded: for=6.6.6.6, For=\"[2001:db8::7]:4711\"\r\n",
                "2001:db8::7",
            ),
            ("Forwarded: for=6.6.6.6, for=_hidden\r\n", "10.0.0.1"),
            ("Forwarded: proto=http\r\n", "10.0.0.1"),
            (
                "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n",
                "1.2.3.4",
            ),
            (
                "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n",
                "10.0.0.1",
            ),
        ] {
            assert_eq!(told(PEER, fields), expected, "{fields}");
        }
        let stranger = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));
        assert_eq!(
            told(
                stranger,
                "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"
            ),
            "9.9.9.9"
        );
    }

    fn version_2_header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, addresses].concat()
    }

    #[test]
    fn a_header_is_read_wherever_it_is_cut() {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let v4 = [
            [1, 2, 3, 4].as_slice(),
            &[10, 0, 0, 1],
            &[0, 80, 0, 81],
            b"tlv",
        ]
        .concat();
        let v6: Vec<u8> = (0..36).collect();
        for (header, expected) in [
            (
                b"PROXY TCP4 1.2.3.4 10.0.0.1 5678 80\r\n".to_vec(),
                address("1.2.3.4"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 5678 80\r\n".to_vec(),
                address("2001:db8::7"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (version_2_header(0x21, 0x11, &v4), address("1.2.3.4")),
            (
                version_2_header(0x21, 0x21, &v6),
                address("1:203:405:607:809:a0b:c0d:e0f"),
            ),
            (version_2_header(0x21, 0x31, &[0; 216]), None),
            (version_2_header(0x20, 0x00, &[]), None),
        ] {
            for cut in 1..header.len() {
                assert_eq!(
                    preface(&header[..cut]),
                    Ok(Preface::Incomplete),
                    "{header:?} cut at {cut}"
                );
            }
            let followed = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                preface(&followed),
                Ok(Preface::Header(header.len(), expected)),
                "{header:?}"
            );
        }
    }

    #[test]
    fn other_bytes_are_none_and_broken_headers_are_refused() {
        for other in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"POST",
            b"\r\n\r\nGET",
            b"PROXYX",
            b"\r\nG",
        ] {
            assert_eq!(preface(other), Ok(Preface::None), "{other:?}");
        }
        for broken in [
            b"PROXY \n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat(),
            version_2_header(0x11, 0x11, &[0; 12]),
            version_2_header(0x22, 0x11, &[0; 12]),
            version_2_header(0x21, 0x11, &[0; 3]),
            version_2_header(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(preface(&broken), Err(Reject::Proxy), "{broken:?}");
        }
    }
}

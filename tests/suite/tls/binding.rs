//! `channel_binding=require`: a session by SCRAM-SHA-256-PLUS, or none and a sentence.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::{Encrypted, NAMES, WITH_MD5, at, encryption, refusal};
use crate::support::ports::free_port;
use crate::support::postgres::PASSWORD;
use crate::support::{Authority, Settings};

const ASKED_FOR: &str = "channel_binding=require";

fn bound(server: &Encrypted, role: &str, binding: &str, mode: &str) -> Settings {
    at(&server.url(role, &format!("sslmode={mode}&channel_binding={binding}")))
}

#[test]
fn the_login_is_bound_to_the_channel() {
    let server = Encrypted::start(NAMES);
    let older = Authority::with_sha_384("another hash");
    for certificate in [server.authority.issue(NAMES), older.issue(NAMES)] {
        server.cluster.encrypt(&certificate, &server.authority);
        for protocol in ["TLSv1.2", "TLSv1.3"] {
            server
                .cluster
                .configure(&format!("ssl_max_protocol_version = '{protocol}'"));
            server.cluster.reload_now();
            for binding in ["disable", "prefer", "require"] {
                let found = encryption(bound(&server, "only_tls", binding, "require"));
                assert_eq!(
                    found.starts_with("TLS 1.2"),
                    protocol == "TLSv1.2",
                    "{found}"
                );
            }
        }
    }
    server
        .cluster
        .encrypt(&server.authority.issue(NAMES), &server.authority);
    let mode = format!("verify-full&sslrootcert={}", server.root());
    let found = encryption(bound(&server, "only_tls", "require", &mode));
    assert!(found.contains("for 127.0.0.1"), "{found}");
}

/// Whoever asks for another proof than SCRAM's, or for none, could be anybody.
#[test]
fn a_login_without_scram_is_no_bound_one() {
    let server = Encrypted::shared();
    for role in ["trusted", "in_the_clear", WITH_MD5] {
        let found = encryption(bound(server, role, "prefer", "require"));
        assert!(found.starts_with("TLS"), "{role}: {found}");
        let sentence = refusal(|| bound(server, role, "require", "require"));
        assert!(sentence.contains(ASKED_FOR), "{role}: {sentence}");
    }
}

/// There is no channel to be bound to.
#[test]
fn a_session_without_tls_is_no_bound_one() {
    let server = Encrypted::shared();
    for mode in ["allow", "prefer"] {
        let sentence = refusal(|| bound(server, "only_plain", "require", mode));
        assert!(sentence.contains(ASKED_FOR), "{mode}: {sentence}");
    }
    // Of the two connections that `allow` may take, the second one can be bound.
    for role in ["only_tls", "any_way"] {
        let found = encryption(bound(server, role, "require", "allow"));
        assert!(found.starts_with("TLS 1.3"), "{role}: {found}");
    }
}

/// A server without TLS that asks for a password in this way, or for none; the port it listens on,
/// and what it is told after that by the first who comes.
fn asking(question: &'static [u8]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let told = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 8];
        stream.read_exact(&mut head).expect("a question for TLS");
        stream.write_all(b"N").expect("an answer");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a start");
        let rest = usize::try_from(u32::from_be_bytes(length)).expect("a length") - length.len();
        let mut start = vec![0; rest];
        stream.read_exact(&mut start).expect("a start");
        stream.write_all(question).expect("another question");
        let mut told = vec![0; 512];
        let length = stream.read(&mut told).unwrap_or(0);
        told.truncate(length);
        told
    });
    (port, told)
}

/// The password, or what can be made of it, is not told to a server that binds nothing.
#[test]
fn no_password_is_told_where_the_login_is_not_bound() {
    for question in [
        // Of messages the kind, the length, and the way (PostgreSQL manual, "Message Formats":
        // AuthenticationCleartextPassword, AuthenticationMD5Password, AuthenticationSASL).
        &b"R\0\0\0\x08\0\0\0\x03"[..],
        b"R\0\0\0\x0c\0\0\0\x05salt",
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0",
    ] {
        let (port, told) = asking(question);
        let url = format!("postgres://u:{PASSWORD}@127.0.0.1:{port}/d?{ASKED_FOR}");
        let ended = super::check(at(&url));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(ASKED_FOR), "{ended:?}");
        let told = told.join().expect("a server");
        // Nothing but a farewell.
        assert!(told.is_empty() || told[0] == b'X', "{told:?}");
        // It is told where nothing of the kind is asked for.
        let (port, told) = asking(question);
        let url = format!("postgres://u:{PASSWORD}@127.0.0.1:{port}/d");
        assert_eq!(super::check(at(&url)).code, Some(1));
        let told = told.join().expect("a server");
        assert_eq!(told.first(), Some(&b'p'), "{told:?}");
    }
}

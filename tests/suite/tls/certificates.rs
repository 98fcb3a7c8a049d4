//! Which certificates of a server are accepted, and which client certificates a server is shown.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::SupportedProtocolVersion;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, ServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

use super::{Encrypted, NAMES, at, encryption, refusal};
use crate::support::database::PATIENCE;
use crate::support::ports::free_port;
use crate::support::postgres::PASSWORD;
use crate::support::scratch::Folder;
use crate::support::tools::{output, tool};
use crate::support::{Authority, Pair, Settings, skipped};

fn verifying(server: &Encrypted, host: &str, mode: &str) -> Settings {
    let parameters = format!("sslmode={mode}&sslrootcert={}", server.root());
    at(&server.url_at("only_tls", host, &parameters))
}

#[test]
fn the_right_root_and_the_right_name_are_verified_and_told() {
    let server = Encrypted::shared();
    for (mode, told) in [
        ("require", "its name not"),
        ("verify-ca", "its name not"),
        ("verify-full", "for localhost"),
    ] {
        let found = encryption(verifying(server, "localhost", mode));
        assert!(
            found.starts_with("TLS 1.3, TLS") && found.contains(told) && found.contains("root.crt"),
            "{mode}: {found}"
        );
    }
    let unverified = encryption(at(&server.url("only_tls", "sslmode=require")));
    assert!(
        unverified.contains("nothing verified (DB_SSLMODE"),
        "{unverified}"
    );
    // The name of a host whose address is given beside it.
    let named = format!(
        "{}&hostaddr=127.0.0.1",
        server.url_at(
            "only_tls",
            "db.example",
            &format!("sslmode=verify-full&sslrootcert={}", server.root())
        )
    );
    assert!(encryption(at(&named)).contains("for db.example"));
    let wrong = named.replace("db.example", "other.example");
    assert!(refusal(|| at(&wrong)).contains("other.example"));
}

/// Each on one server, whose certificate changes.
#[test]
fn what_is_wrong_with_a_certificate_is_told() {
    let server = Encrypted::start(NAMES);
    let (ours, other) = (&server.authority, Authority::new("another"));
    let own = Pair::self_signed(NAMES);
    for (certificate, host, mode, words) in [
        (
            other.issue(NAMES),
            "localhost",
            "verify-ca",
            "DB_SSLROOTCERT",
        ),
        (own.clone(), "localhost", "verify-ca", "CA:TRUE"),
        (
            ours.issue(&["other.example"]),
            "localhost",
            "verify-full",
            "verify-ca",
        ),
        (
            ours.issue(&["localhost"]),
            "127.0.0.1",
            "verify-full",
            "verify-ca",
        ),
        (ours.issue(&[]), "localhost", "verify-full", "verify-ca"),
        (ours.expired(NAMES), "localhost", "verify-ca", "expired"),
    ] {
        server.cluster.encrypt(&certificate, ours);
        let sentence = refusal(|| verifying(&server, host, mode));
        assert!(
            sentence.contains(words) && sentence.contains("DB_SSL"),
            "{words}: {sentence}"
        );
        // Nobody asked.
        let found = encryption(at(&server.url_at("only_tls", host, "sslmode=require")));
        assert!(found.contains("nothing verified"), "{found}");
    }
    // The name does not matter to verify-ca, and addresses are names.
    server
        .cluster
        .encrypt(&ours.issue(&["other.example"]), ours);
    assert!(encryption(verifying(&server, "localhost", "verify-ca")).contains("its name not"));
    server.cluster.encrypt(&ours.issue(&["127.0.0.1"]), ours);
    assert!(encryption(verifying(&server, "127.0.0.1", "verify-full")).contains("for 127.0.0.1"));
    // One that vouches for itself is its own root.
    server.cluster.encrypt(&own, ours);
    server.folder.file("root.crt", &own.certificate);
    assert!(encryption(verifying(&server, "localhost", "verify-full")).contains("for localhost"));
    server.cluster.encrypt(&Pair::self_signed(NAMES), ours);
    assert!(refusal(|| verifying(&server, "localhost", "verify-full")).contains("DB_SSLROOTCERT"));
}

#[test]
fn a_chain_with_an_authority_between_is_followed() {
    let server = Encrypted::start(NAMES);
    let between = Authority::below(&server.authority, "between");
    let mut pair = between.issue(NAMES);
    pair.certificate += &between.pem();
    server.cluster.encrypt(&pair, &server.authority);
    assert!(encryption(verifying(&server, "localhost", "verify-full")).contains("for localhost"));
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let server = Encrypted::shared();
    let folder = Folder::new("client");
    let url = server.url("with_certificate", "sslmode=require");
    let missing = refusal(|| at(&url));
    assert!(
        missing.contains("DB_SSLCERT") && missing.contains("DB_SSLKEY"),
        "{missing}"
    );
    let shown = |pair: &Pair, name: &str| {
        let (certificate, key) = pair.files(&folder, name);
        at(&url)
            .set("DB_SSLCERT", certificate.display())
            .set("DB_SSLKEY", key.display())
    };
    let good = server.authority.issue(&["client"]);
    let found = encryption(shown(&good, "good"));
    assert!(found.ends_with("with a client certificate"), "{found}");
    let mode = format!("sslmode=verify-ca&sslrootcert={}", server.root());
    let (certificate, key) = good.files(&folder, "good");
    let verified = at(&server.url("with_certificate", &mode))
        .set("DB_SSLCERT", certificate.display())
        .set("DB_SSLKEY", key.display());
    let found = encryption(verified);
    assert!(
        found.contains("its name not") && found.ends_with("with a client certificate"),
        "{found}"
    );
    let wrong = Authority::new("another").issue(&["client"]);
    let sentence = refusal(|| shown(&wrong, "wrong"));
    assert!(sentence.contains("DB_SSLCERT"), "{sentence}");
    // A certificate with another's key.
    let mixed = Pair {
        key: wrong.key.clone(),
        ..good
    };
    let sentence = refusal(|| shown(&mixed, "mixed"));
    assert!(
        sentence.contains("DB_SSLCERT") && sentence.contains("DB_SSLKEY"),
        "{sentence}"
    );
}

/// As the manual's own example makes it with an older OpenSSL: version 1, without any extension.
#[test]
fn an_old_certificate_encrypts_though_it_cannot_be_verified() {
    if tool("openssl").is_none() {
        return;
    }
    let server = Encrypted::start(NAMES);
    let folder = Folder::new("old");
    let pair = old_certificate(&folder);
    let text = output(
        Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in"])
            .arg(folder.path().join("server.crt")),
    );
    if !text.contains("Version: 1 ") {
        return skipped("a certificate of version 1", "this OpenSSL makes none");
    }
    server.cluster.encrypt(&pair, &server.authority);
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        server
            .cluster
            .configure(&format!("ssl_max_protocol_version = '{protocol}'"));
        server.cluster.reload_now();
        let bound = "sslmode=require&channel_binding=require";
        assert!(encryption(at(&server.url("only_tls", bound))).contains("nothing verified"));
    }
    let root = folder.path().join("root.crt");
    let verified = format!("sslmode=verify-ca&sslrootcert={}", root.display());
    let sentence = refusal(|| at(&server.url("only_tls", &verified)));
    assert!(sentence.contains("DB_SSLMODE"), "{sentence}");
}

fn old_certificate(folder: &Folder) -> Pair {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=root -keyout root.key -out root.crt
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial -out server.crt";
    output(
        Command::new("/bin/sh")
            .args(["-ec", script])
            .current_dir(folder.path()),
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    Pair {
        certificate: read("server.crt"),
        key: read("server.key"),
    }
}

/// Whoever shows a certificate has to have its key, or channel binding would mean nothing.
#[test]
fn who_has_not_the_key_of_a_certificate_is_refused_though_nothing_is_verified() {
    let (shown, other) = (Pair::self_signed(NAMES), Pair::self_signed(NAMES));
    for version in [&TLS12, &TLS13] {
        let port = impostor(&shown, &other, version);
        let url = format!("postgres://u:{PASSWORD}@127.0.0.1:{port}/d?sslmode=require");
        let sentence = refusal(|| at(&url));
        assert!(
            sentence.contains("BadSignature") && sentence.contains("DB_SSLMODE"),
            "{version:?}: {sentence}"
        );
    }
}

/// A server that shows one certificate and signs with the key of another; the port it listens on.
fn impostor(shown: &Pair, signs: &Pair, version: &'static SupportedProtocolVersion) -> u16 {
    let provider = Arc::new(default_provider());
    let certificate = CertificateDer::from_pem_slice(shown.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(signs.key.as_bytes()).expect("a key");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let pair = CertifiedKey::new(vec![certificate.expect("a certificate")], key);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut question = [0; 8];
            let _ = stream.read_exact(&mut question);
            let _ = stream.write_all(b"S");
            let mut server = ServerConnection::new(Arc::clone(&config)).expect("a server");
            while server.is_handshaking() && server.complete_io(&mut stream).is_ok() {}
        }
    });
    port
}

/// A host that no certificate can be for matters where its name is verified, and nowhere else.
#[test]
fn a_host_without_a_proper_name_is_encrypted_where_no_name_is_verified() {
    let server = Encrypted::shared();
    let pairs = |mode: &str| {
        at(&format!(
            "host='fe80::1%lo' hostaddr=127.0.0.1 port={} user=only_tls password={PASSWORD} \
             dbname=only_tls sslmode={mode} {PATIENCE} sslrootcert={}",
            server.cluster.port(),
            server.root()
        ))
    };
    for mode in ["prefer", "require", "verify-ca"] {
        let found = encryption(pairs(mode));
        assert!(found.starts_with("TLS 1.3"), "{mode}: {found}");
    }
    let sentence = refusal(|| pairs("verify-full"));
    assert!(sentence.contains("no certificate can be for"), "{sentence}");
}

/// PostgreSQL 17 takes TLS without being asked whether it has any.
#[test]
fn a_handshake_without_a_question_before_it() {
    let server = Encrypted::shared();
    let parameters = "sslmode=require&sslnegotiation=direct";
    let settings = || at(&server.url("only_tls", parameters));
    if server.major() < 17 {
        let sentence = refusal(settings);
        assert!(sentence.contains("DB_SSLMODE"), "{sentence}");
        return eprintln!(
            "SKIPPED: sslnegotiation=direct: PostgreSQL {} has none",
            server.major()
        );
    }
    assert!(encryption(settings()).starts_with("TLS 1.3"));
}

/// A server that holds several certificates learns which one is meant (RFC 6066, section 3).
#[test]
fn the_name_is_sent_before_the_certificate_is_chosen() {
    for (host, is_sent) in [("localhost", true), ("127.0.0.1", false)] {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let hello = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut bytes = [0; 1024];
            stream.read_exact(&mut bytes[..8]).expect("the question");
            stream.write_all(b"S").expect("an answer");
            let length = stream.read(&mut bytes).expect("a handshake");
            bytes[..length].to_vec()
        });
        let url = format!("postgres://u:p@{host}:{port}/d?sslmode=require");
        assert_eq!(at(&url).argument("check").run().code, Some(1));
        let hello = hello.join().expect("a handshake");
        let mut windows = hello.windows(host.len());
        assert_eq!(
            windows.any(|window| window == host.as_bytes()),
            is_sent,
            "{host}"
        );
        let mut windows = hello.windows(10);
        assert!(
            windows.any(|window| window == b"postgresql"),
            "no protocol is named"
        );
    }
}

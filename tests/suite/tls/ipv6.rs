//! Servers at an IPv6 address, and certificates that are for one.

use std::net::{Ipv6Addr, TcpListener};

use super::{Encrypted, at, check, encryption, refusal};
use crate::support::postgres::PASSWORD;
use crate::support::scratch::Folder;
use crate::support::{Authority, Redis, Settings, Stop, skipped};

fn is_here() -> bool {
    let tried = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
    if let Err(error) = &tried {
        skipped("servers at ::1", &error.to_string());
    }
    tried.is_ok()
}

#[test]
fn a_certificate_for_an_ipv6_address_is_verified_by_it() {
    if !is_here() {
        return;
    }
    let server = Encrypted::start(&["::1"]);
    server
        .cluster
        .configure("listen_addresses = '127.0.0.1, ::1'");
    server.cluster.stop(Stop::Fast);
    server.cluster.restart();
    let verified = |mode: &str| {
        let parameters = format!("sslmode={mode}&sslrootcert={}", server.root());
        at(&server.url_at("only_tls", "[::1]", &parameters))
    };
    let found = encryption(verified("verify-full"));
    assert!(found.contains("for ::1"), "{found}");
    // Another way to write it, in pairs.
    let pairs = format!(
        "host=0:0:0:0:0:0:0:1 port={} user=only_tls password={PASSWORD} dbname=only_tls \
         sslmode=verify-full sslrootcert={}",
        server.cluster.port(),
        server.root()
    );
    let found = encryption(at(&pairs));
    assert!(found.contains("certificate verified by"), "{found}");
    let visitas = verified("verify-full").start();
    assert_eq!(visitas.visit().total, 1);
    drop(visitas);

    let other = server.authority.issue(&["localhost", "127.0.0.1", "::2"]);
    server.cluster.encrypt(&other, &server.authority);
    let sentence = refusal(|| verified("verify-full"));
    assert!(
        sentence.contains("::1") && sentence.contains("DB_SSLMODE"),
        "{sentence}"
    );
    let found = encryption(verified("verify-ca"));
    assert!(found.contains("its name not"), "{found}");
}

#[test]
fn a_counter_at_an_ipv6_address_is_verified_by_it() {
    if !is_here() {
        return;
    }
    let (authority, folder) = (Authority::new("the test's"), Folder::new("ipv6"));
    let root = authority.file(&folder, "root.crt");
    let mut redis = Redis::encrypted(&authority.issue(&["::1"]), &authority, false);
    redis.restart();
    redis.command(&["CONFIG", "SET", "bind", "127.0.0.1 ::1"]);
    let url = format!("rediss://[::1]:{}", redis.encrypted_port());
    let parts = Settings::new()
        .set("REDIS_HOST", "::1")
        .set("REDIS_PORT", redis.encrypted_port())
        .set("REDIS_TLS", "on");
    for (visits, settings) in (1..).zip([Settings::new().set("REDIS_URL", &url), parts]) {
        let visitas = settings.set("REDIS_CA_FILE", root.display()).start();
        assert_eq!(visitas.visit().cache, Some(visits));
    }
    let verified = || {
        Settings::new()
            .set("REDIS_URL", &url)
            .set("REDIS_CA_FILE", root.display())
    };
    let ended = check(verified());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("for ::1"), "{ended:?}");
    redis.recertify(&authority.issue(&["127.0.0.1", "::2"]), &authority);
    let ended = check(verified());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("::1 has another's certificate")
            && ended.stdout.contains("REDIS_TLS"),
        "{ended:?}"
    );
}

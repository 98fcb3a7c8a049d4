//! What goes wrong in a handshake: silence, a cut at any byte of it, a pooler between; and the
//! scenarios of the fault suite, once, over TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Encrypted, NAMES, at, check, encryption, refusal};
use crate::dns::Names;
use crate::support::pgbouncer::Mode;
use crate::support::ports::free_port;
use crate::support::postgres::PASSWORD;
use crate::support::scratch::Folder;
use crate::support::{
    Authority, Cluster, Direction, LIMIT, Proxy, Redis, Settings, machine, skipped, within,
};

/// A server that answers the question for TLS with yes, if it asked, and then says nothing; the
/// port it listens on.
fn silent(asks: bool) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if asks {
                let mut question = [0; 8];
                let _ = stream.read_exact(&mut question);
                let _ = stream.write_all(b"S");
            }
            kept.push(stream);
        }
    });
    port
}

#[test]
fn a_server_that_stays_silent_in_the_handshake_keeps_nobody_waiting() {
    let _machine = machine();
    let port = silent(true);
    let url = format!("postgres://any_way:{PASSWORD}@127.0.0.1:{port}/any_way?sslmode=require");
    let start = Instant::now();
    let ended = check(at(&url));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("no answer in 2.5s") && ended.stdout.contains("DB_SSLMODE"),
        "{ended:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        start.elapsed()
    );

    // Each of two connections has its time, and both are told.
    let port = silent(false);
    for (mode, first) in [
        ("prefer", "no answer in 2.5s"),
        ("allow", "no answer in 3s"),
    ] {
        let url = format!("postgres://any_way:{PASSWORD}@127.0.0.1:{port}/any_way?sslmode={mode}");
        let start = Instant::now();
        let ended = check(at(&url));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stdout.contains(first) && ended.stdout.contains("no answer in 3s"),
            "{ended:?}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "it took {:?}",
            start.elapsed()
        );
    }

    // A counter is given up sooner, and visits are served without it.
    let url = format!("rediss://127.0.0.1:{}", silent(false));
    let visitas = Settings::new().set("REDIS_URL", &url).start();
    let start = Instant::now();
    assert_eq!(visitas.try_visit().status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        start.elapsed()
    );
    let ended = check(Settings::new().set("REDIS_URL", &url));
    assert!(
        ended.stdout.contains("no answer in time") && ended.stdout.contains("REDIS_TLS"),
        "{ended:?}"
    );
}

/// What comes with the server's yes is no part of the session, or who stands between could put a
/// first answer into it (CVE-2021-23222); and an error instead of that yes is nobody's word, so it
/// is not passed on (CVE-2024-10977).
#[test]
fn what_is_sent_before_the_handshake_is_not_believed() {
    for (answer, words) in [
        // And that the login is done.
        (&b"SR\0\0\0\x08\0\0\0\0"[..], "something else than TLS"),
        (b"E\0\0\0\x13Mcall a stranger\0\0", "offers no TLS"),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let mut question = [0; 8];
                let _ = stream.read_exact(&mut question);
                let _ = stream.write_all(answer);
                kept.push(stream);
            }
        });
        let url = format!("postgres://any_way:{PASSWORD}@127.0.0.1:{port}/any_way?sslmode=require");
        let sentence = refusal(|| at(&url));
        assert!(
            sentence.contains(words) && sentence.contains("DB_SSLMODE"),
            "{sentence}"
        );
        assert!(!sentence.contains("stranger"), "{sentence}");
    }
}

/// So many bytes at least go each way in a handshake with a command behind it, so that every place
/// of it is cut; and how many of them belong to the handshake whatever its certificate.
const TO_SERVER: usize = 350;
const TO_CLIENT: usize = 1000;
const OF_THE_HANDSHAKE: usize = 200;
/// Places that are cut beside each other.
const BESIDE: usize = 4;

/// Cuts the connection of a `visitas check` at each place, through proxies to that port. Each time
/// it says that it failed, and names the setting where that was in the handshake.
fn cut_everywhere(port: u16, setting: &str, settings: &(dyn Fn(u16) -> Settings + Sync)) {
    let next = AtomicUsize::new(0);
    let cut = || {
        let proxy = Proxy::to(port);
        while let place @ ..TO_BOTH = next.fetch_add(1, Ordering::Relaxed) {
            let (way, bytes) = place
                .checked_sub(TO_SERVER)
                .map_or((Direction::ToServer, place), |bytes| {
                    (Direction::ToClient, bytes)
                });
            let before = proxy.cuts();
            proxy.cut_after(way, bytes);
            let ended = check(settings(proxy.port()));
            assert!(proxy.cuts() > before, "{way:?} {bytes}: {ended:?}");
            assert_eq!(ended.code, Some(1), "{way:?} {bytes}: {ended:?}");
            let names = ended.stdout.contains(setting);
            assert!(
                names || bytes >= OF_THE_HANDSHAKE,
                "{way:?} {bytes}: {ended:?}"
            );
        }
        let whole = check(settings(proxy.port()));
        assert_eq!(whole.code, Some(0), "{whole:?}");
    };
    thread::scope(|scope| {
        (0..BESIDE).for_each(|_| drop(scope.spawn(cut)));
    });
}

const TO_BOTH: usize = TO_SERVER + TO_CLIENT;

#[test]
fn a_handshake_that_is_cut_at_any_byte_is_told() {
    let _machine = machine();
    let server = Encrypted::shared();
    let url = |port: u16| {
        format!("postgres://only_tls:{PASSWORD}@127.0.0.1:{port}/only_tls?sslmode=verify-full")
    };
    let settings = |port| at(&url(port)).set("DB_SSLROOTCERT", server.root());
    cut_everywhere(server.cluster.port(), "DB_SSLMODE", &settings);
}

#[test]
fn a_handshake_with_redis_that_is_cut_at_any_byte_is_told() {
    let _machine = machine();
    let (authority, folder) = (Authority::new("the test's"), Folder::new("redis-tls"));
    let mut redis = Redis::encrypted(&authority.issue(NAMES), &authority, false);
    redis.restart();
    let root = authority.file(&folder, "root.crt");
    let settings = |port: u16| {
        Settings::new()
            .set("REDIS_URL", format!("rediss://127.0.0.1:{port}"))
            .set("REDIS_CA_FILE", root.display())
    };
    cut_everywhere(redis.encrypted_port(), "REDIS_TLS", &settings);
}

/// The same for a process whose visits go on: at some of the places.
#[test]
fn visits_go_on_after_a_handshake_that_was_cut() {
    let _machine = machine();
    let server = Encrypted::start(NAMES);
    let proxy = Proxy::to(server.cluster.port());
    let url = server.url("only_tls", "sslmode=verify-full");
    let (direct, proxied) = (server.cluster.port(), proxy.port());
    let visitas = at(&url.replace(&format!(":{direct}/"), &format!(":{proxied}/")))
        .set("DB_SSLROOTCERT", server.root())
        .start();
    let mut visits = 0;
    for place in (0..TO_BOTH).step_by(53) {
        let before = proxy.cuts();
        proxy.cut_all();
        let (way, bytes) = place
            .checked_sub(TO_SERVER)
            .map_or((Direction::ToServer, place), |bytes| {
                (Direction::ToClient, bytes)
            });
        proxy.cut_after(way, bytes);
        within(LIMIT, "the cut", || {
            visits += u64::from(visitas.try_visit().status == 200);
            proxy.cuts() > before
        });
    }
    within(LIMIT, "a visit", || visitas.try_visit().status == 200);
    let (total, rows) = server.cluster.database_of("only_tls").total_and_rows();
    assert!(
        total == rows && total > i64::try_from(visits).expect("a count"),
        "{total}, {rows}"
    );
    assert!(
        !visitas.output().contains("panicked"),
        "{}",
        visitas.output()
    );
}

/// A name's other addresses, where nobody listens, do not hide that the server at one of them
/// refuses a session with TLS, so that `prefer` goes without, and `allow` the other way round.
#[test]
fn each_address_of_a_name_is_tried_in_both_ways() {
    let names = match Names::new() {
        Ok(names) => names,
        Err(why) => return skipped("names of a process's own", &why),
    };
    let server = Encrypted::shared();
    let host = "db.example";
    names.are(&[
        (host, "127.0.0.66"),
        (host, "127.0.0.1"),
        (host, "127.0.0.67"),
    ]);
    for (role, mode) in [("only_plain", "prefer"), ("only_tls", "allow")] {
        let url = server.url_at(role, host, &format!("sslmode={mode}"));
        assert_eq!(names.start(at(&url)).try_visit().status, 200, "{mode}");
    }
}

#[test]
fn a_pooler_with_tls_is_as_good_as_a_server() {
    let server = Encrypted::shared();
    let pair = server.authority.issue(NAMES);
    for mode in Mode::ALL {
        let database = Cluster::shared().database();
        let Some((pooler, _folder)) = super::pooler(database.cluster, &pair, mode, "") else {
            return;
        };
        let url = format!("{}?sslmode=verify-full", database.url_at(pooler.port()));
        let settings = || at(&url).set("DB_SSLROOTCERT", server.root());
        let found = encryption(settings());
        assert!(found.contains("for 127.0.0.1"), "{mode:?}: {found}");
        let visitas = settings().start();
        for visit in 1..=20 {
            assert_eq!(visitas.visit().total, visit, "{mode:?}");
        }
        // It has no channel binding to offer.
        let bound = check(
            at(&format!("{url}&channel_binding=require")).set("DB_SSLROOTCERT", server.root()),
        );
        assert!(
            bound.stdout.contains("channel_binding=require"),
            "{mode:?}: {bound:?}"
        );
    }
}

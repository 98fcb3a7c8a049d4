//! The six words of `sslmode` against servers that offer TLS, ask for it, refuse it, or have none.

use super::{Encrypted, at, encryption, refusal};
use crate::support::Cluster;
use crate::support::postgres::PASSWORD;

/// What libpq's manual says of each mode: whether a server that takes both ways gets TLS, one that
/// asks for TLS is reached, and one that refuses TLS is.
const MODES: [(&str, bool, bool, bool); 6] = [
    ("disable", false, false, true),
    ("allow", false, true, true),
    ("prefer", true, true, true),
    ("require", true, true, false),
    ("verify-ca", true, true, false),
    ("verify-full", true, true, false),
];

#[test]
fn every_mode_means_what_it_means_to_libpq() {
    let server = Encrypted::shared();
    for (mode, encrypts, with_tls, without) in MODES {
        let root = match mode {
            "verify-ca" | "verify-full" => format!("&sslrootcert={}", server.root()),
            _ => String::new(),
        };
        let settings = |role: &str| at(&server.url(role, &format!("sslmode={mode}{root}")));
        let found = encryption(settings("any_way"));
        assert_eq!(
            found.starts_with("TLS 1.3, TLS"),
            encrypts,
            "{mode}: {found}"
        );
        assert_eq!(found.starts_with("none"), !encrypts, "{mode}: {found}");
        if with_tls {
            let found = encryption(settings("only_tls"));
            assert!(found.starts_with("TLS 1.3"), "{mode}: {found}");
        } else {
            let sentence = refusal(|| settings("only_tls"));
            assert!(sentence.contains("DB_SSLMODE"), "{mode}: {sentence}");
        }
        if without {
            let found = encryption(settings("only_plain"));
            assert!(found.starts_with("none"), "{mode}: {found}");
        } else {
            let sentence = refusal(|| settings("only_plain"));
            assert!(sentence.contains("28000"), "{mode}: {sentence}");
        }
    }
}

/// A visit's session is as encrypted as the server itself says it is.
#[test]
fn visits_are_committed_over_what_the_mode_asks_for() {
    let server = Encrypted::start(super::NAMES);
    let ssl = "SELECT bool_and(ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE usename = 'any_way'";
    for (visits, (mode, encrypted)) in (1..).zip([
        ("disable", false),
        ("allow", false),
        ("prefer", true),
        ("require", true),
    ]) {
        let visitas = at(&server.url("any_way", &format!("sslmode={mode}"))).start();
        assert_eq!(visitas.visit().total, visits, "{mode}");
        let mut sql = server.cluster.superuser("postgres");
        let row = sql.query_one(ssl, &[]).expect("the sessions");
        let (all, sessions): (bool, i64) = (row.get(0), row.get(1));
        assert!(
            sessions > 0 && all == encrypted,
            "{mode}: {sessions} sessions"
        );
        visitas.stop();
    }
}

#[test]
fn a_server_without_tls_is_used_plain_or_refused_by_the_modes_name() {
    let database = Cluster::shared().database();
    for (mode, _, _, plain) in MODES {
        let root = format!("&sslrootcert={}", Encrypted::shared().root());
        let url = format!("{}?sslmode={mode}{root}", database.url());
        if plain {
            let found = encryption(at(&url));
            assert!(
                found.starts_with("none") && found.contains("DB_SSLMODE"),
                "{mode}: {found}"
            );
        } else {
            let sentence = refusal(|| at(&url));
            assert!(
                sentence.contains("offers no TLS") && sentence.contains("DB_SSLMODE"),
                "{mode}: {sentence}"
            );
        }
    }
    let system = format!("{}?sslrootcert=system", database.url());
    assert!(refusal(|| at(&system)).contains("offers no TLS"));
    // Nothing is set: as libpq, whatever the server offers.
    assert!(encryption(at(&database.url())).starts_with("none"));
    let default = encryption(at(&Encrypted::shared().url("any_way", "")));
    assert!(default.starts_with("TLS 1.3"), "{default}");
}

/// A server that refuses is asked once more without TLS only where the mode lets it, and a wrong
/// password is told as one.
#[test]
fn a_wrong_password_is_not_taken_for_a_matter_of_encryption() {
    let server = Encrypted::shared();
    for mode in ["allow", "prefer", "require"] {
        let url = server.url("any_way", &format!("sslmode={mode}"));
        let sentence = refusal(|| at(&url.replace(PASSWORD, "wrong")));
        assert!(
            sentence.contains("28P01") && !sentence.contains("DB_SSL"),
            "{mode}: {sentence}"
        );
    }
}

#[test]
fn a_file_of_roots_is_verified_by_in_every_mode() {
    let server = Encrypted::shared();
    let wrong = crate::support::Authority::new("another").file(&server.folder, "wrong.crt");
    let settings = |mode: &str| {
        at(&server.url(
            "any_way",
            &format!("sslmode={mode}&sslrootcert={}", wrong.display()),
        ))
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        let sentence = refusal(|| settings(mode));
        assert!(
            sentence.contains("DB_SSLROOTCERT") && sentence.contains("wrong.crt"),
            "{mode}: {sentence}"
        );
    }
    // As libpq: a handshake that fails is one that `prefer` does without, which is said.
    let found = encryption(settings("prefer"));
    assert!(found.starts_with("none"), "{found}");
    assert!(
        found.contains("TLS failed") && found.contains("DB_SSLROOTCERT"),
        "{found}"
    );
    let visitas = settings("prefer").start();
    visitas.logged(&["without TLS", "DB_SSLROOTCERT"]);
    drop(visitas);
    let sentence = refusal(|| {
        at(&server.url(
            "only_tls",
            &format!("sslmode=prefer&sslrootcert={}", wrong.display()),
        ))
    });
    assert!(sentence.contains("DB_SSLROOTCERT"), "{sentence}");
}

#[test]
fn the_variables_say_what_the_address_does_not() {
    let server = Encrypted::shared();
    let root = server.root();
    let by_variables = |role: &str| {
        at(&server.url(role, ""))
            .set("DB_SSLMODE", "verify-full")
            .set("DB_SSLROOTCERT", &root)
    };
    let found = encryption(by_variables("only_tls"));
    assert!(
        found.contains("verified by") && found.contains("127.0.0.1"),
        "{found}"
    );
    let by_parts = crate::support::Settings::new()
        .set("DB_HOST", "127.0.0.1")
        .set("DB_PORT", server.cluster.port())
        .set("DB_USER", "only_tls")
        .set("DB_PASSWORD", PASSWORD)
        .set("DB_NAME", "only_tls")
        .set("DB_SSLMODE", "verify-ca")
        .set("DB_SSLROOTCERT", &root);
    assert!(encryption(by_parts).contains("its name not"));
    let pairs = format!(
        "host=127.0.0.1 port={} user=only_tls password={PASSWORD} dbname=only_tls sslmode = \
         'verify-full' sslrootcert={root}",
        server.cluster.port()
    );
    assert!(encryption(at(&pairs)).contains("for 127.0.0.1"));
}

#[test]
fn what_contradicts_itself_is_refused_by_its_name() {
    let server = Encrypted::shared();
    let url = |parameters: &str| server.url("any_way", parameters);
    for (parameters, variables, named, takes) in [
        ("sslmode=strict", &[][..], "DATABASE_URL", "verify-full"),
        ("", &[("DB_SSLMODE", "yes")], "DB_SSLMODE", "verify-full"),
        (
            "sslmode=require",
            &[("DB_SSLMODE", "verify-full")],
            "DB_SSLMODE",
            "DATABASE_URL",
        ),
        ("sslmode=verify-ca", &[], "DB_SSLROOTCERT", "verify-full"),
        // A file of public roots makes them no less public.
        (
            "sslmode=verify-ca",
            &[("SSL_CERT_FILE", "/a.crt")],
            "DB_SSLROOTCERT",
            "verify-full",
        ),
        // A name is decoded as its value is.
        ("ssl%6Dode=strict", &[], "DATABASE_URL", "verify-full"),
        ("channel%5Fbinding=always", &[], "DATABASE_URL", "prefer"),
        (
            "sslmode=require&sslrootcert=system",
            &[],
            "DATABASE_URL",
            "verify-full",
        ),
        ("", &[("DB_SSLCERT", "/a.crt")], "DB_SSLCERT", "key"),
        ("sslkey=/a.key", &[], "DATABASE_URL", "certificate"),
        ("sslnegotiation=direct", &[], "DATABASE_URL", "require"),
        ("sslnegotiation=maybe", &[], "DATABASE_URL", "direct"),
        (
            "sslmode=disable&channel_binding=require",
            &[],
            "DATABASE_URL",
            "TLS",
        ),
        ("channel_binding=always", &[], "DATABASE_URL", "prefer"),
        ("gssencmode=require", &[], "DATABASE_URL", "GSSAPI"),
    ] {
        let mut settings = at(&url(parameters));
        for (name, value) in variables {
            settings = settings.set(name, value);
        }
        let ended = settings.run();
        assert_eq!(ended.code, Some(2), "{parameters} {variables:?}: {ended:?}");
        assert!(
            ended.stderr.contains(named) && ended.stderr.contains(takes),
            "{parameters} {variables:?}: {ended:?}"
        );
        assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
    }
    // What changes nothing is taken.
    let harmless = "gssencmode=prefer&sslcompression=0&sslsni=1&pgbouncer=true&connection_limit=1\
        &pool_timeout=10&statement_cache_size=0&workaround=supabase-pooler.vercel&ssl%6Dode=require";
    assert!(encryption(at(&url(harmless))).starts_with("TLS"));
}

//! The files of certificates and keys: which are read, what is said of one that cannot be used, and
//! that they may change.

use std::path::Path;
use std::time::Duration;

use super::{Encrypted, NAMES, at, encryption, refusal};
use crate::support::database::{PATIENCE, with};
use crate::support::postgres::USER;
use crate::support::scratch::Folder;
use crate::support::{Authority, Clients, Cluster, LIMIT, Load, Settings, audit, machine, within};

fn full(server: &Encrypted) -> Settings {
    at(&server.url("only_tls", "sslmode=verify-full"))
}

#[test]
fn public_roots_are_built_in_and_a_file_stands_for_them() {
    let server = Encrypted::shared();
    for settings in [&(|| full(server)) as &dyn Fn() -> Settings, &|| {
        full(server).set("DB_SSLROOTCERT", "system")
    }] {
        let sentence = refusal(settings);
        assert!(
            sentence.contains("no public authority") && sentence.contains("DB_SSLROOTCERT"),
            "{sentence}"
        );
        let found = encryption(settings().set("SSL_CERT_FILE", server.root()));
        assert!(
            found.contains("SSL_CERT_FILE") && found.contains("for 127.0.0.1"),
            "{found}"
        );
    }
    // Of the two files the one that is for this store counts.
    let other = Authority::new("another").file(&server.folder, "public.crt");
    let both = full(server)
        .set("SSL_CERT_FILE", other.display())
        .set("DB_SSLROOTCERT", server.root());
    assert!(encryption(both).contains("DB_SSLROOTCERT"));
    // Without a mode the system's roots ask for the strictest.
    let url = server.url("only_tls", "sslrootcert=system");
    assert!(encryption(at(&url).set("SSL_CERT_FILE", server.root())).contains("for 127.0.0.1"));
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_setting() {
    let server = Encrypted::shared();
    let folder = Folder::new("files");
    let pair = server.authority.issue(&["client"]);
    let (certificate, key) = pair.files(&folder, "client");
    let empty = folder.file("empty", "");
    let encrypted = folder.file(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let broken = folder.file(
        "broken.crt",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    );
    let missing = folder.path().join("missing");
    let roots = |file: &Path| full(server).set("DB_SSLROOTCERT", file.display());
    let own = |certificate: &Path, key: &Path| {
        at(&server.url("only_tls", "sslmode=require"))
            .set("DB_SSLCERT", certificate.display())
            .set("DB_SSLKEY", key.display())
    };
    for (settings, setting, word) in [
        (
            &(|| roots(&missing)) as &dyn Fn() -> Settings,
            "DB_SSLROOTCERT",
            "No such file",
        ),
        (&|| roots(&empty), "DB_SSLROOTCERT", "no certificate"),
        (&|| roots(&broken), "DB_SSLROOTCERT", "can be a root"),
        (&|| roots(folder.path()), "DB_SSLROOTCERT", "no file"),
        (&|| roots(&key), "DB_SSLROOTCERT", "no certificate"),
        (&|| own(&missing, &key), "DB_SSLCERT", "No such file"),
        (&|| own(&certificate, &missing), "DB_SSLKEY", "No such file"),
        (
            &|| own(&certificate, &certificate),
            "DB_SSLKEY",
            "no private key",
        ),
        (&|| own(&certificate, &encrypted), "DB_SSLKEY", "encrypted"),
        (&|| own(&broken, &key), "DB_SSLCERT", "DB_SSLKEY"),
        (
            &|| full(server).set("SSL_CERT_FILE", missing.display()),
            "SSL_CERT_FILE",
            "No such file",
        ),
    ] {
        let sentence = refusal(settings);
        assert!(
            sentence.contains(setting) && sentence.contains(word),
            "{setting} {word}: {sentence}"
        );
    }
    // One root among others that cannot be used is told.
    let text = |file: &Path| std::fs::read_to_string(file).expect("a file");
    let both = text(Path::new(&server.root())) + &text(&broken);
    let both = folder.file("both.crt", &both);
    let visitas = roots(&both).start();
    visitas.logged(&["DB_SSLROOTCERT", ": 1 of the certificates"]);
    drop(visitas);
    // A named file that cannot be read is no reason to do without TLS.
    let prefer =
        || at(&server.url("any_way", "sslmode=prefer")).set("DB_SSLROOTCERT", missing.display());
    assert!(refusal(prefer).contains("DB_SSLROOTCERT"));
}

/// The server's certificate, its root and the client's certificate change while visits go on; each
/// connection that is made anew reads the files anew.
#[test]
fn certificates_are_changed_under_load_without_a_restart() {
    let _machine = machine();
    let (cluster, folder) = (Cluster::start(), Folder::new("rotated"));
    let database = cluster.database();
    database.prepare();
    let policy = format!(
        "hostssl all {USER} all scram-sha-256 clientcert=verify-ca\nhostnossl all {USER} all reject"
    );
    cluster.admit_first(&policy);
    let change = |authority: Authority| {
        authority.issue(&["client"]).files(&folder, "client");
        authority.file(&folder, "root.crt");
        cluster.encrypt(&authority.issue(NAMES), &authority);
    };
    change(Authority::new("the first"));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let url = with(&database.url(), PATIENCE) + "&sslmode=verify-full";
    let settings = || {
        at(&url)
            .set("DB_SSLROOTCERT", file("root.crt"))
            .set("DB_SSLCERT", file("client.crt"))
            .set("DB_SSLKEY", file("client.key"))
    };
    let visitas = settings().start();
    let crowd = Clients {
        ports: vec![visitas.port()],
        count: 16,
        pause: Duration::ZERO,
        keep_counts: false,
    };
    let load = Load::of(&crowd);
    for turn in 0..4 {
        change(Authority::new(&format!("the next, {turn}")));
        let before = visitas.stats().total;
        within(LIMIT, "sessions to end", || cluster.end_sessions(USER) > 0);
        within(LIMIT, "visits to go on", || {
            let response = visitas.get("/stats");
            response.status == 200 && response.fields().total > before + 50
        });
    }
    let tally = load.stop();
    audit::holds(&database, &tally, &[visitas], settings());
}

//! TLS to PostgreSQL and Redis, with an authority of the tests' own: what each mode means, what is
//! verified, what is refused and in which words, and that nothing of it hangs.

mod binding;
mod cancel;
mod certificates;
mod counter;
mod faults;
mod files;
mod ipv6;
mod modes;
mod providers;

use std::sync::OnceLock;

use crate::support::database::PATIENCE;
use crate::support::pgbouncer::Mode;
use crate::support::postgres::PASSWORD;
use crate::support::programs::give_to_postgres;
use crate::support::scratch::Folder;
use crate::support::server::Ended;
use crate::support::{Authority, Cluster, Pair, PgBouncer, Settings};

/// Roles by how the server takes their sessions. Each has a database of its name.
const ROLES: [&str; 7] = [
    "any_way",
    "only_tls",
    "only_plain",
    "with_certificate",
    "trusted",
    "in_the_clear",
    WITH_MD5,
];
/// Its password is kept as the hash that PostgreSQL used before SCRAM.
const WITH_MD5: &str = "with_md5";
const POLICIES: &str = "\
hostssl all only_tls all scram-sha-256
hostnossl all only_tls all reject
hostnossl all only_plain all scram-sha-256
hostssl all only_plain all reject
hostssl all trusted all trust
hostssl all in_the_clear all password
hostssl all with_md5 all md5
hostssl all with_certificate all scram-sha-256 clientcert=verify-ca
hostnossl all with_certificate all reject";

/// What the names of a good certificate are: two of `localhost`, and one that no server looks up.
const NAMES: &[&str] = &["localhost", "db.example", "127.0.0.1"];

/// A PostgreSQL with TLS, and the files of its authority.
struct Encrypted {
    cluster: Cluster,
    authority: Authority,
    folder: Folder,
}

impl Encrypted {
    fn start(names: &[&str]) -> Encrypted {
        let (cluster, authority) = (Cluster::start(), Authority::new("the test's"));
        let mut sql = cluster.superuser("postgres");
        for role in ROLES {
            let kept_as = if role == WITH_MD5 {
                "md5"
            } else {
                "scram-sha-256"
            };
            sql.batch_execute(&format!("SET password_encryption = '{kept_as}'"))
                .expect("a way to keep passwords");
            sql.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"))
                .expect("a role");
            sql.batch_execute(&format!("CREATE DATABASE {role} OWNER {role}"))
                .expect("its database");
        }
        cluster.admit_first(POLICIES);
        cluster.encrypt(&authority.issue(names), &authority);
        let folder = Folder::new("tls");
        authority.file(&folder, "root.crt");
        Encrypted {
            cluster,
            authority,
            folder,
        }
    }

    /// The one of all tests that change nothing about it.
    fn shared() -> &'static Encrypted {
        static SHARED: OnceLock<Encrypted> = OnceLock::new();
        SHARED.get_or_init(|| Encrypted::start(NAMES))
    }

    /// The file of the authority that vouches for it.
    fn root(&self) -> String {
        self.folder.path().join("root.crt").display().to_string()
    }

    /// The address of a role's database, with these parameters.
    fn url(&self, role: &str, parameters: &str) -> String {
        self.url_at(role, "127.0.0.1", parameters)
    }

    fn url_at(&self, role: &str, host: &str, parameters: &str) -> String {
        let port = self.cluster.port();
        format!("postgres://{role}:{PASSWORD}@{host}:{port}/{role}?{PATIENCE}&{parameters}")
    }

    /// The major version.
    fn major(&self) -> i32 {
        let mut sql = self.cluster.superuser("postgres");
        let row = sql.query_one(
            "SELECT current_setting('server_version_num')::int / 10000",
            &[],
        );
        row.expect("a version").get(0)
    }
}

/// A pooler before that cluster which takes sessions with TLS, and the folder of its certificate.
fn pooler(cluster: &Cluster, pair: &Pair, mode: Mode, more: &str) -> Option<(PgBouncer, Folder)> {
    let folder = Folder::new("pooler-tls");
    let (certificate, key) = pair.files(&folder, "pooler");
    for file in [folder.path(), &certificate, &key] {
        give_to_postgres(file);
    }
    let settings = format!(
        "client_tls_sslmode = allow\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n{more}",
        certificate.display(),
        key.display()
    );
    Some((PgBouncer::start(cluster, mode, &settings)?, folder))
}

fn at(url: &str) -> Settings {
    Settings::new()
        .set("DATABASE_URL", url)
        .set("CONNECT_ATTEMPTS", 1)
}

/// Runs `visitas check`.
#[track_caller]
fn check(settings: Settings) -> Ended {
    let ended = settings.argument("check").run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    assert!(!format!("{ended:?}").contains(PASSWORD), "{ended:?}");
    ended
}

/// What `check` says of the encryption of a connection that works.
#[track_caller]
fn encryption(settings: Settings) -> String {
    let ended = check(settings);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let found = ended
        .stdout
        .lines()
        .find_map(|line| line.split_once("its encryption"));
    found.expect("a line about it").1.trim().to_owned()
}

/// The sentence that a connection is refused with, as `check` has it and as a start tells it before
/// it ends with code 1.
#[track_caller]
fn refusal(settings: impl Fn() -> Settings) -> String {
    let ended = check(settings());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.stdout.lines().find(|line| line.starts_with("FAIL"));
    let sentence = line.unwrap_or_default().to_owned();
    let start = settings().run();
    assert_eq!(start.code, Some(1), "{start:?}");
    assert!(!format!("{start:?}").contains("panicked"), "{start:?}");
    sentence
}

//! The table of providers in docs/operations.md, row by row, and the addresses that providers show.

mod stand_ins;

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::database::{PATIENCE, with};
use crate::support::markdown::{code_words, table_rows};
use crate::support::scratch::Folder;
use crate::support::{Authority, Pair, Settings};
use stand_ins::{Behind, Providers, Shown};

const NEON: &str = "postgresql://alex:AbC123dEf@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech\
    /dbname?sslmode=verify-full&channel_binding=require";
const SUPABASE: &str = "postgresql://postgres:super_password@db.abcdefghijklmnopqrst.supabase.co\
    :5432/postgres?sslmode=verify-full";
const SUPABASE_POOLER: &str = "postgres://postgres.abcdefghijklmnopqrst:AbC123dEf\
    @aws-0-us-east-1.pooler.supabase.com:6543/postgres?sslmode=verify-full";
const RDS: &str = "postgres://app:AbC123dEf@mydb.c1a2b3c4d5e6.us-east-1.rds.amazonaws.com:5432/mydb\
    ?sslmode=verify-full";
const AZURE: &str = "postgres://myadmin:AbC123dEf@mydemoserver.postgres.database.azure.com\
    /postgres?sslmode=verify-full";
const OWN: &str = "postgres://own:AbC123dEf@db.example:5432/own?sslmode=verify-full";
const UPSTASH: &str = "rediss://default:AXxxASQgMjIx@gusc1-merry-firefly-12345.upstash.io:6379";
const ELASTICACHE: &str =
    "rediss://:a-token-of-16-signs@master.mycache.abc123.use1.cache.amazonaws.com:6379";
const AZURE_REDIS: &str = "rediss://:Zm9vYmFyYmF6%3D@mycache.redis.cache.windows.net:6380";
const OWN_REDIS: &str = "rediss://:own_password@cache.example:6379";
/// Those that vouch for themselves.
const HEROKU: &str = "postgres://u1a2b3c4:p9f8e7d6@ec2-54-83-0-1.compute-1.amazonaws.com:5432\
    /d1a2b3c4?sslmode=require";
const HEROKU_REDIS: &str =
    "rediss://:p1a2b3c4@ec2-54-83-0-2.compute-1.amazonaws.com:12345#insecure";

/// What a row was tried with, each by a run of `check`, and what each had to say of the encryption.
struct Row {
    provider: &'static str,
    tries: Vec<Vec<(&'static str, String)>>,
    told: &'static str,
}

impl Row {
    /// A row whose root is in that file: public roots, where its variable is `SSL_CERT_FILE`.
    fn by(provider: &'static str, urls: &[&str], variable: &'static str, root: &Path) -> Row {
        let variables = |url: &&str| vec![of_url(url), (variable, root.display().to_string())];
        Row {
            provider,
            tries: urls.iter().map(variables).collect(),
            told: "certificate verified by",
        }
    }

    fn unverified(provider: &'static str, url: &str) -> Row {
        Row {
            provider,
            tries: vec![vec![of_url(url)]],
            told: "nothing verified",
        }
    }

    /// Tries it, and that another's roots do not do where anything is verified.
    fn holds(&self, providers: &Providers, others: &Path) {
        for variables in &self.tries {
            let ended = providers.check(variables);
            assert_eq!(ended.code, Some(0), "{}: {ended:?}", self.provider);
            let mut lines = ended.stdout.lines();
            let told = |line: &str| line.contains("its encryption") && line.contains(self.told);
            assert!(lines.any(told), "{}: {ended:?}", self.provider);
            let mut wrong = variables.clone();
            for (_, value) in wrong.iter_mut().filter(|(name, _)| ROOTS.contains(name)) {
                *value = others.display().to_string();
            }
            if wrong != *variables {
                let ended = providers.check(&wrong);
                assert_eq!(ended.code, Some(1), "{}: {ended:?}", self.provider);
            }
        }
    }
}

/// Variables that name a file of roots.
const ROOTS: [&str; 3] = ["DB_SSLROOTCERT", "REDIS_CA_FILE", "SSL_CERT_FILE"];

fn of_url(url: &str) -> (&'static str, String) {
    if url.starts_with("redis") || url.starts_with("valkey") {
        return ("REDIS_URL", url.to_owned());
    }
    let needs_patience = url.starts_with("postgres") && !url.contains("connect_timeout");
    let patient = needs_patience.then(|| with(url, PATIENCE));
    ("DATABASE_URL", patient.unwrap_or_else(|| url.to_owned()))
}

/// The rows of providers whose certificates an authority vouches for.
fn verified(providers: &Providers, folder: &Folder) -> Vec<Row> {
    let authority = &providers.server.authority;
    let public = authority.file(folder, "public.crt");
    let root = |name: &str| authority.file(folder, name);
    let others: String = (0..3)
        .map(|number| Authority::new(&format!("a region's, {number}")).pem())
        .collect();
    let bundle = folder.file("global-bundle.pem", &(others + &authority.pem()));
    // Its certificates are for no name or address that it has.
    let by_address = |role: &str| {
        let port = providers.server.cluster.port();
        format!("postgres://{role}:app_password@127.0.0.1:{port}/{role}?sslmode=verify-ca")
    };
    let (certificate, key) = authority.issue(&[]).files(folder, "client");
    let mut with_certificate = Row::by(
        "the same, with client certificates",
        &[&by_address("with_certificate")],
        "DB_SSLROOTCERT",
        &root("server-ca.pem"),
    );
    with_certificate.told = "its name not, with a client certificate";
    with_certificate.tries[0].extend([
        ("DB_SSLCERT", certificate.display().to_string()),
        ("DB_SSLKEY", key.display().to_string()),
    ]);
    let mut elasticache = Row::by(
        "Amazon ElastiCache",
        &[ELASTICACHE, &ELASTICACHE.replace("rediss://", "redis://")],
        "SSL_CERT_FILE",
        &public,
    );
    elasticache.tries[1].push(("REDIS_TLS", "on".to_owned()));
    let mut own = Row::by("your own", &[OWN], "DB_SSLROOTCERT", &root("root.crt"));
    let own_counter = Row::by(
        "your own",
        &[&OWN_REDIS.replace("rediss://", "redis://")],
        "REDIS_CA_FILE",
        &root("root.crt"),
    );
    own.tries.extend(own_counter.tries);
    own.tries[1].push(("REDIS_TLS", "on".to_owned()));
    vec![
        Row::by("Neon", &[NEON], "SSL_CERT_FILE", &public),
        Row::by(
            "Supabase, direct or pooler",
            &[SUPABASE, SUPABASE_POOLER],
            "DB_SSLROOTCERT",
            &root("prod-ca-2021.crt"),
        ),
        Row::by("Amazon RDS, Aurora", &[RDS], "DB_SSLROOTCERT", &bundle),
        Row {
            told: "its name not",
            ..Row::by(
                "Google Cloud SQL",
                &[&by_address("only_tls")],
                "DB_SSLROOTCERT",
                &root("server-ca.pem"),
            )
        },
        with_certificate,
        Row::by(
            "Azure Database for PostgreSQL",
            &[AZURE],
            "SSL_CERT_FILE",
            &public,
        ),
        Row::by("Upstash", &[UPSTASH], "SSL_CERT_FILE", &public),
        elasticache,
        Row::by(
            "Azure Cache for Redis",
            &[AZURE_REDIS],
            "SSL_CERT_FILE",
            &public,
        ),
        own,
    ]
}

/// The rows of the document: a provider, and the words to set.
fn documented() -> BTreeMap<String, Vec<String>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(document).expect("the document");
    let (_, section) = text
        .split_once("\n## TLS to managed databases\n")
        .expect("its section");
    let section = section.split("\n## ").next().expect("a section");
    let rows = table_rows(section).into_iter();
    rows.map(|row| (row[0].clone(), code_words(&row[1])))
        .collect()
}

#[test]
fn each_row_of_the_table_of_providers_is_tried() {
    let (server, counter) = (Behind::Server, Behind::Counter);
    let of = |urls: &[&'static str], behind| -> Vec<Shown> {
        urls.iter().map(|url| (*url, behind)).collect()
    };
    let shown = [
        of(&[NEON, SUPABASE, SUPABASE_POOLER, RDS, AZURE, OWN], server),
        of(&[UPSTASH, ELASTICACHE, AZURE_REDIS, OWN_REDIS], counter),
    ]
    .concat();
    let folder = Folder::new("providers");
    let others = Authority::new("another").file(&folder, "others.crt");
    let Some(providers) = Providers::start(&shown, Authority::issue) else {
        return;
    };
    let mut rows = verified(&providers, &folder);
    rows.iter().for_each(|row| row.holds(&providers, &others));
    drop(providers);

    let shown = [(HEROKU, server), (HEROKU_REDIS, counter)];
    let Some(providers) = Providers::start(&shown, |_, names| Pair::self_signed(names)) else {
        return;
    };
    let unverified = [
        Row::unverified("Heroku Postgres", HEROKU),
        Row::unverified("Heroku Redis", HEROKU_REDIS),
    ];
    unverified
        .iter()
        .for_each(|row| row.holds(&providers, &others));
    rows.extend(unverified);

    let mut documented = documented();
    for row in &rows {
        let words = documented.remove(row.provider);
        let words = words.unwrap_or_else(|| panic!("{} is not in the table", row.provider));
        let pairs = row.tries.iter().flatten();
        let text: String = pairs
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        for part in words.iter().flat_map(|word| word.split('…')) {
            assert!(text.contains(part), "{}: no {part} in {text}", row.provider);
        }
    }
    assert!(documented.is_empty(), "not tried: {documented:?}");
}

/// Addresses as their manuals and consoles show them, with what they add for other programs.
const ADDRESSES: &[Shown] = &[
    // Neon: pooled; for a program without SNI; as Vercel keeps it for Prisma.
    (
        "postgresql://alex:AbC123dEf@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech\
         /dbname?sslmode=require&channel_binding=require",
        Behind::Server,
    ),
    (
        "postgres://user_app:app_password@ep-cool-darkness-123456.us-east-2.aws.neon.tech\
         /desafio3_db?sslmode=require&options=endpoint%3Dep-cool-darkness-123456",
        Behind::Pooler,
    ),
    (
        "postgres://default:AbC123dEf@ep-cool-darkness-a1b2c3d4-pooler.us-east-1.postgres\
         .vercel-storage.com:5432/verceldb?sslmode=require&pgbouncer=true&connect_timeout=15\
         &pool_timeout=15",
        Behind::Server,
    ),
    // Supabase: direct, its poolers, and as Vercel keeps them.
    (
        "postgresql://postgres:super_password@db.abcdefghijklmnopqrst.supabase.co:5432/postgres",
        Behind::Server,
    ),
    (
        "postgresql://postgres.abcdefghijklmnopqrst:AbC123dEf@aws-0-eu-central-1.pooler.supabase\
         .com:6543/postgres?pgbouncer=true&connection_limit=1",
        Behind::Server,
    ),
    (
        "postgres://postgres.abcdefghijklmnopqrst:AbC123dEf@aws-0-us-east-1.pooler.supabase.com\
         :6543/postgres?sslmode=require&supa=base-pooler.x",
        Behind::Server,
    ),
    (
        "postgres://postgres.abcdefghijklmnopqrst:AbC123dEf@aws-0-us-east-1.pooler.supabase.com\
         :5432/postgres?sslmode=require&workaround=supabase-pooler.vercel",
        Behind::Server,
    ),
    // Amazon RDS, and Aurora's endpoint of a cluster.
    (
        "postgresql://app:AbC123dEf@mydb.c1a2b3c4d5e6.us-east-1.rds.amazonaws.com:5432/mydb\
         ?sslmode=require&application_name=visitas-web",
        Behind::Server,
    ),
    (
        "host=mydb.cluster-c1a2b3c4d5e6.us-east-1.rds.amazonaws.com port=5432 dbname=mydb user=app \
         password=AbC123dEf sslmode=verify-full sslrootcert=system",
        Behind::Server,
    ),
    // With Prisma's words for TLS.
    (
        "postgresql://app:AbC123dEf@mydb.c1a2b3c4d5e6.us-east-1.rds.amazonaws.com:5432/mydb\
         ?sslmode=require&sslaccept=strict&connect_timeout=300",
        Behind::Server,
    ),
    // Azure: its two forms, and the user's name of its older servers.
    (
        "host=mydemoserver.postgres.database.azure.com port=5432 dbname=postgres user=myadmin \
         password=AbC123dEf sslmode=require",
        Behind::Server,
    ),
    (
        "postgres://myadmin%40mydemoserver:AbC123dEf@mydemoserver.postgres.database.azure.com\
         /postgres?sslmode=require",
        Behind::Server,
    ),
    // Heroku, Render and Railway say nothing of TLS.
    (
        "postgres://u1a2b3c4:p9f8e7d6@ec2-54-83-0-1.compute-1.amazonaws.com:5432/d1a2b3c4",
        Behind::Server,
    ),
    (
        "postgresql://app_user:AbC123dEf@dpg-c1a2b3c4-a.oregon-postgres.render.com/app_db",
        Behind::Server,
    ),
    (
        "postgresql://postgres:super_password@roundhouse.proxy.rlwy.net:34567/railway",
        Behind::Server,
    ),
    // DigitalOcean, Aiven, Timescale, Crunchy Bridge: ports of their own.
    (
        "postgresql://doadmin:AVNS_AbC123dEf@db-postgresql-nyc3-12345-do-user-1234567-0.c.db\
         .ondigitalocean.com:25060/defaultdb?sslmode=require",
        Behind::Server,
    ),
    (
        "postgres://avnadmin:AVNS_AbC123dEf@pg-1a2b3c4d-my-project.a.aivencloud.com:12691/defaultdb\
         ?sslmode=require",
        Behind::Server,
    ),
    (
        "postgres://tsdbadmin:AbC123dEf@a1b2c3d4e5.f6g7h8i9j0.tsdb.cloud.timescale.com:39966/tsdb\
         ?sslmode=require",
        Behind::Server,
    ),
    (
        "postgres://application:AbC123dEf@p.a1b2c3d4e5.db.postgresbridge.com:5432/postgres",
        Behind::Server,
    ),
    (UPSTASH, Behind::Counter),
    (ELASTICACHE, Behind::Counter),
    (
        "rediss://:Zm9vYmFyYmF6%3D@mycache.redis.cache.windows.net:6380/0",
        Behind::Counter,
    ),
    (
        "rediss://red-c1a2b3c4:AbC123dEf@oregon-keyvalue.render.com:6379",
        Behind::Counter,
    ),
    (
        "rediss://default:AVNS_AbC123dEf@db-valkey-nyc3-12345-do-user-1234567-0.c.db\
         .ondigitalocean.com:25061",
        Behind::Counter,
    ),
    (
        "valkeys://default:AVNS_AbC123dEf@valkey-1a2b3c4d-my-project.a.aivencloud.com:12692",
        Behind::Counter,
    ),
];

#[test]
fn an_address_that_is_copied_from_a_provider_works_as_it_is() {
    let Some(providers) = Providers::start(ADDRESSES, Authority::issue) else {
        return;
    };
    for (address, _) in ADDRESSES {
        let public = ("SSL_CERT_FILE", providers.server.root());
        let ended = providers.check(&[of_url(address), public]);
        assert_eq!(ended.code, Some(0), "{address}: {ended:?}");
        let mut lines = ended.stdout.lines();
        let encrypted = |line: &str| line.contains("its encryption") && line.contains("TLS 1.3");
        assert!(lines.any(encrypted), "{address}: {ended:?}");
    }
}

/// Prisma's word for a certificate that nobody vouches for is no reason to look at none.
#[test]
fn a_word_that_asks_for_less_is_refused() {
    let url = "postgres://app:AbC123dEf@db.example/mydb?sslmode=require&sslaccept=";
    for word in ["accept_invalid_certs", "never"] {
        let ended = Settings::new()
            .set("DATABASE_URL", format!("{url}{word}"))
            .run();
        assert_eq!(ended.code, Some(2), "{word}: {ended:?}");
        assert!(
            ended.stderr.contains("sslaccept") && ended.stderr.contains("strict"),
            "{word}: {ended:?}"
        );
    }
}

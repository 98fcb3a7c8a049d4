//! A build without TLS: what asks for it is refused by its name, and nothing else is.

use crate::support::{Cluster, Redis, Settings};

#[test]
fn what_asks_for_tls_is_refused_by_its_name() {
    let postgres = |parameters: &str| {
        Settings::new().set(
            "DATABASE_URL",
            format!("postgres://u:s3cret@127.0.0.1/d?{parameters}"),
        )
    };
    let redis = |url: &str| Settings::new().set("REDIS_URL", url);
    for (settings, named) in [
        (postgres("sslmode=require"), "sslmode"),
        (postgres("sslmode=verify-full&sslrootcert=/a"), "sslmode"),
        (postgres("sslrootcert=system"), "sslrootcert"),
        (postgres("sslcert=/a&sslkey=/b"), "sslcert"),
        (postgres("channel_binding=require"), "channel_binding"),
        (postgres("sslmode=require&sslnegotiation=direct"), "sslmode"),
        (postgres("").set("DB_SSLMODE", "verify-ca"), "DB_SSLMODE"),
        (postgres("").set("DB_SSLROOTCERT", "/a"), "DB_SSLROOTCERT"),
        (redis("rediss://:s3cret@127.0.0.1"), "REDIS_URL"),
        (
            redis("redis://127.0.0.1").set("REDIS_TLS", "on"),
            "REDIS_TLS",
        ),
    ] {
        let ended = settings.run();
        assert_eq!(ended.code, Some(2), "{named}: {ended:?}");
        assert!(
            ended.stderr.contains(named) && ended.stderr.contains("no TLS"),
            "{named}: {ended:?}"
        );
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
}

#[test]
fn what_can_do_without_does() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    for (visits, parameters) in
        (1_u64..).zip(["", "sslmode=disable", "sslmode=allow", "sslmode=prefer"])
    {
        let visitas = Settings::new()
            .set("DATABASE_URL", format!("{}?{parameters}", database.url()))
            .redis(&redis)
            .set("REDIS_TLS", "off")
            .start();
        let counts = visitas.visit();
        assert_eq!(
            (counts.total, counts.cache),
            (visits, Some(visits.cast_signed()))
        );
        visitas.stop();
    }
}

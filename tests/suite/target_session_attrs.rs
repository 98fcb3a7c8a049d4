//! `target_session_attrs` of `DATABASE_URL`: which of several hosts takes the visits, and which
//! words are refused.

use crate::support::postgres::{DEFAULT_NAME, PASSWORD, USER};
use crate::support::{Cluster, Settings, Standby};

fn url(hosts: &[&Cluster], attributes: &str) -> String {
    let hosts: Vec<String> = hosts
        .iter()
        .map(|cluster| format!("127.0.0.1:{}", cluster.port()))
        .collect();
    format!(
        "postgres://{USER}:{PASSWORD}@{}/{DEFAULT_NAME}?target_session_attrs={attributes}",
        hosts.join(",")
    )
}

/// One attempt is all a start has, so no host is tried twice.
fn settings(url: &str) -> Settings {
    Settings::new()
        .set("DATABASE_URL", url)
        .set("CONNECT_ATTEMPTS", 1)
}

#[test]
fn a_standby_and_a_server_that_starts_up_are_passed_over() {
    let primary = Cluster::start();
    let standby = Standby::of(&primary);
    let starting = Standby::of(&primary);
    // Until recovery ends it answers as every server does that starts up: SQLSTATE 57P03.
    starting.cluster.stop(crate::support::Stop::Fast);
    starting.cluster.configure("hot_standby = off");
    starting.cluster.launch();
    starting.refuses_sessions();
    let hosts = [&starting.cluster, &standby.cluster, &primary];
    for (visits, attributes) in (1..).zip(["primary", "read-write", "any"]) {
        // Any server will do for `any`, and PostgreSQL's own client then stays with the first that
        // takes a session.
        let hosts = if attributes == "any" {
            &hosts[2..]
        } else {
            &hosts[..]
        };
        let visitas = settings(&url(hosts, attributes)).start();
        assert_eq!(visitas.visit().total, visits, "{attributes}");
    }
    assert_eq!(primary.default_database().rows(), 3);
}

#[test]
fn a_word_that_asks_for_a_server_without_writes_is_refused_or_visits_are_counted() {
    let primary = Cluster::start();
    let standby = Standby::of(&primary);
    let mut visits = 0;
    for attributes in ["read-only", "standby", "prefer-standby"] {
        let url = url(&[&standby.cluster, &primary], attributes);
        let check = settings(&url).argument("check").run();
        if check.code == Some(0) {
            visits += 1;
            assert_eq!(settings(&url).start().visit().total, visits, "{attributes}");
            continue;
        }
        assert_eq!(check.code, Some(2), "{check:?}");
        let sentence = check
            .stderr
            .lines()
            .find(|line| line.contains("DATABASE_URL"))
            .unwrap_or_default();
        assert!(
            sentence.contains("target_session_attrs") && sentence.contains(attributes),
            "{check:?}"
        );
        assert!(
            !check.stderr.contains(PASSWORD) && !check.stderr.contains("panicked"),
            "{check:?}"
        );
        assert_eq!(settings(&url).run().code, Some(2), "{attributes}");
    }
}

#[test]
fn a_word_that_nobody_knows_is_refused() {
    let database = Cluster::shared().database();
    let ended = settings(&format!("{}?target_session_attrs=leader", database.url())).run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("DATABASE_URL") && !ended.stderr.contains(PASSWORD),
        "{ended:?}"
    );
}

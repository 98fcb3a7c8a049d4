//! `target_session_attrs` in `DATABASE_URL`: which of several hosts gets the visits, and which
//! values are refused.

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

/// With one attempt, so no host is tried twice.
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
    // Until recovery ends it refuses sessions like a starting server: SQLSTATE 57P03.
    starting.cluster.stop(crate::support::Stop::Fast);
    starting.cluster.configure("hot_standby = off");
    starting.cluster.launch();
    starting.refuses_sessions();
    let hosts = [&starting.cluster, &standby.cluster, &primary];
    for (visits, attributes) in (1..).zip(["primary", "read-write", "any"]) {
        // With `any` the first server that takes a session is used, as by PostgreSQL's own client.
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
fn a_value_that_asks_for_a_standby_or_is_unknown_is_refused() {
    let database = Cluster::shared().database();
    for attributes in ["read-only", "standby", "prefer-standby", "leader"] {
        let url = format!("{}?target_session_attrs={attributes}", database.url());
        for ended in [settings(&url).run(), settings(&url).argument("check").run()] {
            assert_eq!(ended.code, Some(2), "{attributes}: {ended:?}");
            let mut lines = ended.stderr.lines();
            let sentence = lines.find(|line| line.contains("DATABASE_URL"));
            let names_it =
                |line: &str| line.contains("target_session_attrs") && line.contains(attributes);
            assert!(sentence.is_some_and(names_it), "{ended:?}");
            assert!(
                !ended.stderr.contains(PASSWORD) && !ended.stderr.contains("panicked"),
                "{ended:?}"
            );
        }
    }
}

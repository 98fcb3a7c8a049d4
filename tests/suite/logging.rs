//! Log lines go to stderr: text or JSON, one per request if asked for, and never a password.

use crate::support::{Cluster, LIMIT, Redis, Settings, within};

#[test]
fn a_request_is_logged_only_with_access_log() {
    for (access_log, expected) in [("off", 0), ("on", 3)] {
        let visitas = Settings::new().set("ACCESS_LOG", access_log).start();
        let mark = visitas.stderr().mark();
        let mut client = visitas.connect();
        client.get("/livez");
        client.get("/nowhere");
        client.request("HEAD", "/", &[]);
        if expected > 0 {
            within(LIMIT, "the lines", || {
                visitas.stderr().since(mark).len() >= expected
            });
        }
        visitas.get("/livez");
        let lines = visitas.stderr().since(mark);
        let of = |path: &str, status: &str| {
            lines
                .iter()
                .filter(|l| l.contains(path) && l.contains(status))
                .count()
        };
        if expected == 0 {
            assert_eq!(lines, Vec::<String>::new());
        } else {
            assert!(
                of("/livez", "200") >= 1 && of("/nowhere", "404") == 1 && of("HEAD", "200") == 1,
                "{lines:#?}"
            );
        }
    }
}

#[test]
fn json_lines_are_json_from_the_first_to_the_last() {
    let cluster = Cluster::stopped();
    let settings = Settings::new()
        .postgres(&cluster.default_database())
        .set("LOG_FORMAT", "json")
        .set("ACCESS_LOG", "on");
    let ended = settings
        .set("CONNECT_ATTEMPTS", 2)
        .set("CONNECT_INTERVAL", "10ms")
        .run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.lines().count() >= 2, "{ended:?}");
    for line in ended.stderr.lines() {
        let json: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(
            json.is_ok_and(|json| json.is_object()),
            "no JSON object: {line}"
        );
    }
}

#[test]
fn no_line_holds_a_password() {
    let cluster = Cluster::start();
    let mut redis = Redis::with_password("redis-s3cret");
    let database = cluster.default_database();
    let mut visitas = Settings::new()
        .postgres(&database)
        .redis(&redis)
        .set("ACCESS_LOG", "on")
        .set("REQUEST_TIMEOUT", "3s")
        .start();
    visitas.visit();
    redis.stop();
    visitas.visit();
    cluster.stop(crate::support::Stop::Immediate);
    assert_eq!(visitas.try_visit().status, 503);
    let shown = [
        visitas.get("/readyz?verbose").text(),
        visitas.get("/metrics").text(),
        visitas.get("/stats").text(),
    ];
    visitas.signal("TERM");
    let ended = visitas.wait_end();
    for text in shown.iter().chain([&ended.stdout, &ended.stderr]) {
        assert!(
            !text.contains("app_password") && !text.contains("s3cret"),
            "{text}"
        );
    }
    assert!(
        ended.stderr.lines().count() >= 2,
        "there was something to say: {ended:?}"
    );
}

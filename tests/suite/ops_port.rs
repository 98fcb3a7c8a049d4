//! `OPS_PORT`: metrics and health move to their own port.

use crate::support::ports::free_port;
use crate::support::{Client, LIMIT, Settings, Visitas, within};

const OPS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

fn start() -> (Visitas, u16) {
    let port = free_port();
    (Settings::new().set("OPS_PORT", port).start(), port)
}

#[test]
fn operators_routes_are_on_that_port_alone() {
    let (visitas, ops) = start();
    for path in OPS {
        assert_eq!(visitas.get(path).status, 404, "{path} in public");
        assert_eq!(
            Client::connect(ops).get(path).status,
            200,
            "{path} on OPS_PORT"
        );
    }
    for path in ["/", "/stats", "/events", "/badge.svg", "/nowhere"] {
        assert_eq!(
            Client::connect(ops).get(path).status,
            404,
            "{path} on OPS_PORT"
        );
    }
    assert_eq!(visitas.visit().total, 1, "nothing there was a visit");
    let line = visitas.stdout().all().concat();
    assert!(
        line.contains(&format!("ops at http://127.0.0.1:{ops}")),
        "{line}"
    );
}

#[test]
fn without_it_they_are_on_the_public_port() {
    let visitas = Settings::new().start();
    OPS.iter()
        .for_each(|path| assert_eq!(visitas.get(path).status, 200, "{path}"));
}

#[test]
fn it_answers_while_the_public_port_is_full() {
    let port = free_port();
    let visitas = Settings::new()
        .set("OPS_PORT", port)
        .set("MAX_CONNECTIONS", 2)
        .start();
    let _full = [visitas.connect(), visitas.connect()];
    OPS.iter()
        .for_each(|path| assert_eq!(Client::connect(port).get(path).status, 200, "{path}"));
}

#[test]
fn the_health_check_asks_there() {
    let (visitas, ops) = start();
    let check = |name: &str, port: u16| {
        let settings = Settings::empty()
            .set("PORT", visitas.port())
            .set(name, port);
        settings.argument("healthcheck").run().code
    };
    assert_eq!(check("OPS_PORT", ops), Some(0));
    assert_eq!(check("OPS_PORT", free_port()), Some(1));
}

#[test]
fn it_says_not_ready_until_the_end_of_a_drain() {
    let port = free_port();
    let mut visitas = Settings::new()
        .set("OPS_PORT", port)
        .set("DRAIN_DELAY", "300s")
        .start();
    visitas.signal("TERM");
    let not_ready =
        || Client::try_connect(port).is_ok_and(|mut client| client.get("/readyz").status == 503);
    within(LIMIT, "503", not_ready);
    assert_eq!(Client::connect(port).get("/livez").status, 200);
    visitas.signal("TERM");
    assert_eq!(visitas.wait_end().code, Some(0));
}

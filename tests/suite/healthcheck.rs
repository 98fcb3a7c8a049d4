//! `visitas healthcheck`, for images without any other program: 0 when the local server is ready,
//! and 1 when not.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::Settings;
use crate::support::ports::free_port;
use crate::support::server::Ended;

#[track_caller]
fn healthcheck(port: u16) -> Ended {
    let start = Instant::now();
    let ended = Settings::empty()
        .set("PORT", port)
        .argument("healthcheck")
        .run();
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

#[test]
fn ready_is_0() {
    let visitas = Settings::new().start();
    assert_eq!(healthcheck(visitas.port()).code, Some(0));
    assert_eq!(visitas.stats().total, 0, "it is no visit");
}

#[test]
fn ready_on_any_address_and_on_another_one_is_0() {
    for host in ["0.0.0.0", "127.0.0.2", "localhost"] {
        let port = free_port();
        let _visitas = Settings::new().set("HOST", host).set("PORT", port).start();
        let ended = Settings::empty()
            .set("HOST", host)
            .set("PORT", port)
            .argument("healthcheck")
            .run();
        assert_eq!(ended.code, Some(0), "HOST={host}: {ended:?}");
    }
}

#[test]
fn not_ready_is_1() {
    let visitas = Settings::new()
        .set("DB_HOST", "127.0.0.1")
        .set("DB_PORT", 1)
        .set("CONNECT_ATTEMPTS", 0)
        .set("PORT", free_port())
        .launch();
    visitas.wait_listening();
    let ended = healthcheck(visitas.port());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.stderr.is_empty(), "it says why");
}

#[test]
fn nothing_there_is_1() {
    let ended = healthcheck(free_port());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.stderr.is_empty(), "it says why");
}

#[test]
fn a_server_that_never_answers_is_1() {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let ended = healthcheck(listener.local_addr().expect("its address").port());
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

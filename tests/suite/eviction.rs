//! Eviction: idle connections, and clients that take nothing, make room for newcomers.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::metrics::{metrics, metrics_at};
use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::ports::free_port;
use crate::support::{Client, Cluster, Database, LIMIT, Settings, Visitas, machine, within};

const LISTEN: &str = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";

/// A listener that has received a message.
fn listen(visitas: &Visitas) -> Client {
    let mut client = visitas.connect();
    client.send(LISTEN);
    let mut client = client.limit(ANSWER_LIMIT);
    client.wait_for("data: ");
    client
}

fn listeners(visitas: &Visitas) -> f64 {
    metrics(visitas).sum("visitas_event_listeners")
}

/// Longer than a tick of the coarse clock, so that it orders what is before and after.
const A_WHILE: Duration = Duration::from_millis(150);

#[test]
fn the_longest_idle_connection_is_evicted() {
    let visitas = Settings::new().set("MAX_CONNECTIONS", 3).start();
    let mut first = visitas.connect();
    assert_eq!(first.get("/livez").status, 200);
    assert!(first.silent_for(A_WHILE));
    let mut others = [visitas.connect(), visitas.connect()];
    others
        .iter_mut()
        .for_each(|client| assert_eq!(client.get("/livez").status, 200));
    assert_eq!(
        visitas.connect().get("/livez").status,
        200,
        "there is room for a fourth"
    );
    assert_eq!(first.closed_within(ANSWER_LIMIT), b"");
    others
        .iter_mut()
        .for_each(|client| assert_eq!(client.get("/livez").status, 200, "the others stay"));
}

#[test]
fn a_connection_without_any_request_is_evicted() {
    let visitas = Settings::new().set("MAX_CONNECTIONS", 2).start();
    let mut silent: Vec<Client> = (0..2).map(|_| visitas.connect()).collect();
    assert!(silent[1].silent_for(A_WHILE));
    let mut newcomers = [visitas.connect(), visitas.connect()];
    newcomers
        .iter_mut()
        .for_each(|client| assert_eq!(client.get("/livez").status, 200));
    silent
        .iter_mut()
        .for_each(|client| assert_eq!(client.closed_within(ANSWER_LIMIT), b""));
}

#[test]
fn the_oldest_unfinished_head_is_evicted_with_a_408() {
    let visitas = Settings::new().set("MAX_CONNECTIONS", 2).start();
    let mut slow: Vec<Client> = (0..2).map(|_| visitas.connect()).collect();
    for client in &mut slow {
        // In one piece with a complete request: once that is answered, the server has read both.
        client.send(request("GET", "/livez", &[]) + "GET /livez HTTP/1.1\r\n");
        assert_eq!(client.read().status, 200);
        assert!(client.silent_for(A_WHILE));
    }
    assert_eq!(visitas.connect().get("/livez").status, 200);
    assert_eq!(slow[0].read().status, 408);
    slow[1].send("Host: x\r\n\r\n");
    assert_eq!(slow[1].read().status, 200, "the newer one");
}

/// Three visits that wait for a commit: the first one in it, the others in the queue.
#[track_caller]
fn three_waiting(visitas: &Visitas, ops: u16, database: &Database<'_>) -> Vec<Client> {
    let visit = request("GET", "/", &[("Accept", "application/json")]);
    let mut waiting: Vec<Client> = (0..3).map(|_| visitas.connect()).collect();
    waiting[0].send(&visit);
    let mut watcher = database.superuser();
    within(LIMIT, "the commit to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    waiting[1..]
        .iter_mut()
        .for_each(|client| client.send(&visit));
    within(LIMIT, "the others to queue", || {
        metrics_at(ops).sum("visitas_queue_length") == 2.0
    });
    waiting
}

#[test]
fn active_requests_keep_their_connections_and_a_newcomer_is_refused() {
    let (database, ops) = (Cluster::shared().database(), free_port());
    let visitas = Settings::new()
        .postgres(&database)
        .set("MAX_CONNECTIONS", 3)
        .set("OPS_PORT", ops)
        .set("REQUEST_TIMEOUT", "300s")
        .set("WORKERS", 1)
        .start();
    let held = database.hold_inserts();
    let mut active = three_waiting(&visitas, ops, &database);
    let refused = visitas.connect().read();
    assert_eq!(refused.status, 503, "all three are active: {refused:?}");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    held.release();
    active
        .iter_mut()
        .for_each(|client| assert_eq!(client.read().status, 200));
}

#[test]
fn listeners_have_a_quarter_of_the_connections_and_the_oldest_is_evicted() {
    let visitas = Settings::new()
        .set("MAX_CONNECTIONS", 16)
        .set("WORKERS", 1)
        .start();
    let mut all: Vec<Client> = (0..4).map(|_| listen(&visitas)).collect();
    all.push(listen(&visitas));
    let stream = all[0].closed_within(ANSWER_LIMIT);
    assert!(
        !String::from_utf8_lossy(&stream).contains("HTTP/1.1"),
        "ended without another answer"
    );
    assert_eq!(listeners(&visitas), 4.0);
    visitas.visit();
    all.iter_mut()
        .skip(1)
        .for_each(|client| client.wait_for("\"total\":1,"));
}

#[test]
fn a_listener_is_evicted_before_a_newcomer_is_refused() {
    let (database, ops) = (Cluster::shared().database(), free_port());
    let visitas = Settings::new()
        .postgres(&database)
        .set("MAX_CONNECTIONS", 4)
        .set("OPS_PORT", ops)
        .set("REQUEST_TIMEOUT", "300s")
        .set("WORKERS", 1)
        .start();
    let mut listener = listen(&visitas);
    let held = database.hold_inserts();
    let mut active = three_waiting(&visitas, ops, &database);
    let answered = visitas.connect().get("/robots.txt");
    assert_eq!(answered.status, 200, "{answered:?}");
    listener.closed_within(ANSWER_LIMIT);
    held.release();
    active
        .iter_mut()
        .for_each(|client| assert_eq!(client.read().status, 200));
}

#[test]
fn a_listener_stays_for_sixty_idle_timeouts_and_gets_a_retry_time() {
    let visitas = Settings::new().set("IDLE_TIMEOUT", "50ms").start();
    let began = Instant::now();
    let mut listener = visitas.connect();
    listener.send(LISTEN);
    let stream = String::from_utf8(listener.closed_within(ANSWER_LIMIT)).expect("UTF-8");
    assert!(stream.contains("\nretry: "), "{stream}");
    assert!(
        began.elapsed() >= Duration::from_millis(2900),
        "ended after {:?}",
        began.elapsed()
    );
}

#[test]
fn a_listener_that_reads_nothing_is_closed_whatever_the_kernel_queues() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "500ms").start();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(1).expect("the smallest buffer");
    socket
        .connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, visitas.port())).into())
        .expect("a connection");
    let mut listener: TcpStream = socket.into();
    listener.write_all(LISTEN.as_bytes()).expect("a request");
    within(LIMIT, "a listener", || listeners(&visitas) == 1.0);
    // Each visit is a message. Once the listener's buffer is full, the kernel queues messages, far
    // below its limit.
    let mut visitor = visitas.connect();
    within(LIMIT, "the listener to be gone", || {
        visitor.try_visit().expect("a visit");
        listeners(&visitas) == 0.0
    });
}

#[test]
fn a_flood_of_idle_connections_leaves_newcomers_served() {
    let _machine = machine();
    let visitas = Settings::new().set("MAX_CONNECTIONS", 200).start();
    let port = visitas.port();
    let mut newcomers = 0;
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut idle = Vec::new();
            for _ in 0..800 {
                idle.push(Client::connect(port));
                thread::sleep(Duration::from_millis(2));
            }
        });
        while !flood.is_finished() {
            let answer = visitas.connect().try_visit();
            assert!(
                answer.as_ref().is_ok_and(|answer| answer.status == 200),
                "newcomer {newcomers}: {answer:?}"
            );
            newcomers += 1;
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(newcomers > 10, "only {newcomers} newcomers");
    let evicted = metrics(&visitas).sum("visitas_connections_evicted_total");
    assert!(evicted > 400.0, "{evicted} evicted");
}

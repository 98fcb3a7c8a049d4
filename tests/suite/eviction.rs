//! Room for newcomers: nobody who does nothing, or takes nothing, keeps others out.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::metrics::metrics;
use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Cluster, LIMIT, Settings, Visitas, machine, within};

const LISTEN: &str = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";

/// A listener that was told something.
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

/// Long enough for the coarse clock to tell what was before from what comes.
const A_WHILE: Duration = Duration::from_millis(150);

#[test]
fn the_one_idle_for_the_longest_makes_room() {
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
fn one_that_never_said_anything_makes_room() {
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
fn the_oldest_unfinished_head_makes_room_with_a_408() {
    let visitas = Settings::new().set("MAX_CONNECTIONS", 2).start();
    let mut slow: Vec<Client> = (0..2).map(|_| visitas.connect()).collect();
    for client in &mut slow {
        client.send("GET /livez HTTP/1.1\r\n");
        assert!(client.silent_for(A_WHILE));
    }
    assert_eq!(visitas.connect().get("/livez").status, 200);
    assert_eq!(slow[0].read().status, 408);
    slow[1].send("Host: x\r\n\r\n");
    assert_eq!(slow[1].read().status, 200, "the other is still waited for");
}

#[test]
fn who_is_served_keeps_the_place_and_only_then_is_anybody_refused() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("MAX_CONNECTIONS", 3)
        .set("WORKERS", 1)
        .start();
    let lock = database.lock_table();
    let mut served: Vec<Client> = (0..2).map(|_| visitas.connect()).collect();
    let mut watcher = database.superuser();
    served[0].send(request("GET", "/", &[("Accept", "application/json")]));
    within(LIMIT, "the first to be committed", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    served[1].send(request("GET", "/", &[("Accept", "application/json")]));
    within(LIMIT, "the second to wait", || {
        crate::metrics::queued(&visitas) >= 1.0
    });
    let mut listener = visitas.connect();
    listener.send(LISTEN);
    assert!(listener.silent_for(A_WHILE), "its first message waits too");
    let refused = visitas.connect().read();
    assert_eq!(refused.status, 503, "all three are served: {refused:?}");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    lock.release();
    served
        .iter_mut()
        .for_each(|client| assert_eq!(client.read().status, 200));
}

#[test]
fn listeners_have_a_quarter_of_the_places_and_the_oldest_makes_room_for_the_next() {
    let visitas = Settings::new()
        .set("MAX_CONNECTIONS", 16)
        .set("WORKERS", 1)
        .start();
    let mut all: Vec<Client> = (0..4).map(|_| listen(&visitas)).collect();
    all.push(listen(&visitas));
    let told = all[0].closed_within(ANSWER_LIMIT);
    assert!(
        !String::from_utf8_lossy(&told).contains("HTTP/1.1"),
        "ended without another answer"
    );
    assert_eq!(listeners(&visitas), 4.0);
    visitas.visit();
    all.iter_mut()
        .skip(1)
        .for_each(|client| client.wait_for("\"total\":1,"));
}

#[test]
fn listeners_make_room_before_anybody_is_refused() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("MAX_CONNECTIONS", 4)
        .set("WORKERS", 1)
        .start();
    let mut listener = listen(&visitas);
    let lock = database.lock_table();
    let mut served: Vec<Client> = (0..3).map(|_| visitas.connect()).collect();
    served
        .iter_mut()
        .for_each(|client| client.send(request("GET", "/", &[("Accept", "application/json")])));
    let answered = visitas.connect().get("/livez");
    assert_eq!(answered.status, 200, "{answered:?}");
    listener.closed_within(ANSWER_LIMIT);
    lock.release();
    served
        .iter_mut()
        .for_each(|client| assert_eq!(client.read().status, 200));
}

#[test]
fn a_listener_is_there_for_sixty_idle_times_and_is_told_to_come_again() {
    let visitas = Settings::new().set("IDLE_TIMEOUT", "50ms").start();
    let began = Instant::now();
    let mut listener = visitas.connect();
    listener.send(LISTEN);
    let told = String::from_utf8(listener.closed_within(ANSWER_LIMIT)).expect("UTF-8");
    assert!(told.contains("\nretry: "), "{told}");
    assert!(
        began.elapsed() >= Duration::from_millis(2900),
        "ended after {:?}",
        began.elapsed()
    );
}

#[test]
fn a_listener_that_takes_nothing_is_let_go_whatever_the_kernel_queues() {
    let visitas = Settings::new().set("HEADER_TIMEOUT", "500ms").start();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(1).expect("the smallest buffer");
    socket
        .connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, visitas.port())).into())
        .expect("a connection");
    let mut listener: TcpStream = socket.into();
    listener.write_all(LISTEN.as_bytes()).expect("a request");
    within(LIMIT, "a listener", || listeners(&visitas) == 1.0);
    // Each visit is a message: once its buffer is full the kernel here queues them, far below what
    // it may.
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
    let (port, stop) = (visitas.port(), AtomicBool::new(false));
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut idle = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                idle.push(Client::connect(port));
                thread::sleep(Duration::from_millis(2));
            }
            idle.len()
        });
        let end = Instant::now() + Duration::from_secs(3);
        let mut newcomers = 0;
        while Instant::now() < end {
            let mut client = visitas.connect();
            let answer = client.try_visit();
            assert!(
                answer.as_ref().is_ok_and(|answer| answer.status == 200),
                "newcomer {newcomers}: {answer:?}"
            );
            newcomers += 1;
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        let idle = flood.join().expect("the flood");
        assert!(idle > 400, "a flood of {idle} connections is none");
    });
    let evicted = metrics(&visitas).sum("visitas_connections_evicted_total");
    assert!(evicted > 100.0, "{evicted} evicted");
}

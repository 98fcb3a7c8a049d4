//! The suite's own tools work: without that no other result means anything.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::postgres::{DEFAULT_NAME, PASSWORD, USER};
use crate::support::prometheus::Metrics;
use crate::support::{
    Client, Cluster, Direction, LIMIT, NoAnswer, Proxy, Redis, Stop, html, markdown, ports, within,
};

#[test]
fn postgres_asks_for_the_password_by_scram() {
    let cluster = Cluster::shared();
    assert!(
        cluster.session(DEFAULT_NAME, USER, "wrong").is_err(),
        "a wrong password was taken"
    );
    let mut sql = cluster
        .session(DEFAULT_NAME, USER, PASSWORD)
        .expect("the right one");
    let method: String = sql
        .query_one("SHOW password_encryption", &[])
        .expect("a setting")
        .get(0);
    assert_eq!(method, "scram-sha-256");
    let fsync: String = sql.query_one("SHOW fsync", &[]).expect("a setting").get(0);
    assert_eq!(fsync, "on");
}

#[test]
fn databases_of_the_shared_cluster_are_separate() {
    let (one, other) = (Cluster::shared().database(), Cluster::shared().database());
    one.sql()
        .batch_execute("CREATE TABLE acessos (id int); INSERT INTO acessos VALUES (1)")
        .expect("a table");
    other
        .sql()
        .batch_execute("CREATE TABLE acessos (id int)")
        .expect("the same name elsewhere");
    assert_eq!((one.rows(), other.rows()), (1, 0));
}

#[test]
fn a_cluster_keeps_its_port_and_its_data_whichever_way_it_stops() {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let port = cluster.port();
    database
        .sql()
        .batch_execute("CREATE TABLE acessos (id int)")
        .expect("a table");
    for (rows, how) in [(1, Stop::Fast), (2, Stop::Immediate), (3, Stop::Kill)] {
        database
            .sql()
            .batch_execute("INSERT INTO acessos VALUES (1)")
            .expect("a row");
        cluster.stop(how);
        assert!(
            cluster.session(DEFAULT_NAME, USER, PASSWORD).is_err(),
            "it still takes sessions after {how:?}"
        );
        cluster.restart();
        assert_eq!(
            (database.rows(), cluster.port()),
            (rows, port),
            "after {how:?}"
        );
    }
}

#[test]
fn waiting_sessions_are_found_and_terminated() {
    let database = Cluster::shared().database();
    database
        .sql()
        .batch_execute("CREATE TABLE acessos (id int)")
        .expect("a table");
    let mut watcher = database.superuser();
    let lock = database.lock_table();
    let mut other = database.sql();
    let waiting = thread::spawn(move || {
        other
            .batch_execute("INSERT INTO acessos VALUES (1)")
            .is_err()
    });
    within(LIMIT, "a session to wait", || {
        database.sessions_waiting(&mut watcher) == 1
    });
    assert_eq!(database.terminate_sessions(), 1);
    assert!(
        waiting.join().expect("a session's end"),
        "the insert went through"
    );
    lock.release();
    assert_eq!(database.rows(), 0);
}

#[test]
fn redis_counts_forgets_and_asks_for_its_password() {
    let mut redis = Redis::with_password("a secret");
    assert_eq!(redis.counter(), None);
    assert_eq!(
        redis.command(&["INCRBY", "contador_cache", "7"]),
        Some("7".to_owned())
    );
    assert_eq!(redis.counter(), Some(7));
    redis.pause();
    redis.resume();
    assert_eq!(redis.counter(), Some(7));
    redis.stop();
    assert!(Client::try_connect(redis.port()).is_err());
    redis.restart();
    assert_eq!(redis.counter(), None);
    let mut stranger = Client::connect(redis.port());
    stranger.send("GET contador_cache\r\n");
    stranger.half_close();
    assert!(
        stranger.closed_within(ANSWER_LIMIT).starts_with(b"-NOAUTH"),
        "no password was asked for"
    );
}

/// The port of a server that sends this answer on each connection and closes it.
fn canned(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", ports::free_port())).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut chunk = [0; 1024];
            if matches!(stream.read(&mut chunk), Ok(1..)) {
                let _ = stream.write_all(answer);
            }
        }
    });
    port
}

#[test]
fn the_client_reads_answers_and_refuses_malformed_ones() {
    let whole = canned(
        b"HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 503 \
            No\r\nContent-Length: 0\r\n\r\n",
    );
    let mut client = Client::connect(whole);
    let response = client.get("/");
    assert_eq!(
        (
            response.status,
            response.header("x-one"),
            response.text().as_str()
        ),
        (200, Some("1"), "hello")
    );
    assert_eq!(
        client.read().status,
        503,
        "the second of two answers in one piece"
    );
    assert_eq!(client.closed_within(ANSWER_LIMIT), b"");

    for broken in [
        &b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"[..],
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nContent Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = Client::connect(canned(broken)).try_request("GET", "/", &[]);
        assert!(
            matches!(
                answer,
                Err(NoAnswer::Malformed(_) | NoAnswer::Incomplete { .. })
            ),
            "{:?} was read as {answer:?}",
            String::from_utf8_lossy(broken)
        );
    }
}

#[test]
fn the_client_does_not_wait_for_ever() {
    let listener = TcpListener::bind(("127.0.0.1", ports::free_port())).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut client = Client::connect(port).limit(Duration::from_millis(50));
    let start = Instant::now();
    assert!(matches!(
        client.try_request("GET", "/", &[]),
        Err(NoAnswer::Incomplete { .. })
    ));
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(client.silent_for(Duration::from_millis(20)));
}

/// The port of an echo server.
fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", ports::free_port())).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut chunk = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut chunk) {
                    let _ = stream.write_all(&chunk[..length]);
                }
            });
        }
    });
    port
}

#[test]
fn the_proxy_passes_and_cuts_where_it_was_told() {
    let proxy = Proxy::to(echo());
    for (direction, cut_at) in [
        (Direction::ToServer, 3),
        (Direction::ToClient, 3),
        (Direction::ToServer, 0),
        (Direction::ToClient, 10),
    ] {
        let mut client = Client::connect(proxy.port());
        proxy.cut_after(direction, cut_at);
        let before = proxy.cuts();
        client.send("0123456789");
        let got = client.closed_within(ANSWER_LIMIT);
        // After a cut towards the server the echo may arrive or not.
        assert!(
            b"0123456789".starts_with(&got) && got.len() <= 10,
            "{got:?}"
        );
        if direction == Direction::ToClient {
            assert_eq!(got.len(), cut_at);
        } else {
            assert!(got.len() <= cut_at, "{got:?}");
        }
        assert_eq!(proxy.cuts(), before + 1);
    }
    let mut client = Client::connect(proxy.port());
    client.send("0123456789");
    client.half_close();
    assert_eq!(
        client.closed_within(ANSWER_LIMIT),
        b"0123456789",
        "all is well again after a cut"
    );
}

#[test]
fn the_proxy_swallows_refuses_and_slows_down() {
    let proxy = Proxy::to(echo());
    let mut old = Client::connect(proxy.port());
    old.send("a");
    within(LIMIT, "the first byte back", || {
        !old.silent_for(Duration::from_millis(10))
    });
    let mut silent = Client::connect(proxy.port());
    silent.send("x");
    within(LIMIT, "the first byte back", || {
        !silent.silent_for(Duration::from_millis(10))
    });
    proxy.swallow_connections();
    let mut fresh = Client::connect(proxy.port());
    fresh.send("b");
    fresh.half_close();
    assert_eq!(
        fresh.closed_within(ANSWER_LIMIT),
        b"b",
        "new connections pass"
    );
    old.send("c");
    old.half_close();

    proxy.slow(Duration::from_millis(100));
    let start = Instant::now();
    let mut slow = Client::connect(proxy.port());
    slow.send("d");
    slow.half_close();
    assert_eq!(slow.closed_within(ANSWER_LIMIT), b"d");
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "there and back"
    );

    proxy.refuse(true);
    assert_eq!(
        Client::connect(proxy.port()).closed_within(ANSWER_LIMIT),
        b""
    );
    proxy.cut_all();
    assert_eq!(
        old.closed_within(ANSWER_LIMIT),
        b"a",
        "nothing of what was swallowed"
    );
}

#[test]
fn pages_are_read_strictly() {
    let page = html::Page::read(
        "<!doctype html><html lang=\"en\"><title>a &lt; \
         b</title><p>x<br>y <data id=\"total\" value=\"7\">7</data></p></html>",
    );
    assert_eq!(
        (page.language(), page.number("total"), page.number("cache")),
        (Some("en"), Some(7), None)
    );
    assert!(page.text.contains("7") && !page.text.contains("a &lt;"));
    for broken in [
        "<html></html>",
        "<!doctype html><p><b></p></b>",
        "<!doctype html><p>",
        "<!doctype html><p class=a></p>",
        "<!doctype html><p id=\"a\"></p><p id=\"a\"></p>",
    ] {
        assert!(
            std::panic::catch_unwind(|| html::Page::read(broken)).is_err(),
            "{broken} was taken"
        );
    }
}

#[test]
fn metrics_are_read_strictly() {
    let good = "# HELP a_total Help.\n# TYPE a_total counter\na_total{status=\"200\"} \
        3\na_total{status=\"503\"} 4\n\
        # HELP b Help.\n# TYPE b histogram\nb_bucket{le=\"1\"} 1\nb_bucket{le=\"+Inf\"} 2\nb_sum \
        2.5\nb_count 2\n";
    let metrics = Metrics::read(good);
    assert_eq!((metrics.sum("a_total"), metrics.count("b")), (7.0, 2.0));
    for broken in [
        "a_total 3\n".to_owned(),
        good.replace("# HELP a_total Help.\n", ""),
        good.replace("503", "200"),
        good.replace("le=\"1\"} 1", "le=\"1\"} 3"),
        good.replace("b_count 2", "b_count 3"),
        good.replace("a_total{status=\"503\"}", "other"),
        good.trim_end().to_owned(),
    ] {
        assert!(
            std::panic::catch_unwind(|| Metrics::read(&broken)).is_err(),
            "{broken} was taken"
        );
    }
}

#[test]
fn markdown_tables_links_and_anchors_are_found() {
    let text = "# One `two`, three\n| a | b |\n|---|---|\n| `X`, `Y` | 1 |\n```\n| no | \
        table |\n[no](link)\n```\nA [l](docs/a.md#b) and `[no](code)`.\n";
    assert_eq!(markdown::table_rows(text), [["`X`, `Y`", "1"]]);
    assert_eq!(markdown::code_words("`X`, `Y`"), ["X", "Y"]);
    assert_eq!(markdown::links(text), ["docs/a.md#b"]);
    assert_eq!(markdown::anchors(text), ["one-two-three"]);
    assert_eq!(
        request("GET", "/", &[]),
        "GET / HTTP/1.1\r\nHost: visitas.example\r\n\r\n"
    );
}

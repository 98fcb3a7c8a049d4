//! A request to cancel a statement is as encrypted as the session that it is for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Encrypted, NAMES, at};
use crate::support::ports::free_port;
use crate::support::{LIMIT, Settings, within};

/// The second number of a connection's first message (PostgreSQL manual, "Message Formats"):
/// SSLRequest, CancelRequest, and StartupMessage, which is the protocol's version.
const ASKS_FOR_TLS: u32 = 80_877_103;
const CANCELS: u32 = 80_877_102;
const STARTS: u32 = 3 << 16;

/// Stands before a server, and notes what connections begin with as long as they are not encrypted.
struct Tap {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<u32>>,
    /// New connections are told that there is no TLS.
    declining: AtomicBool,
}

impl Tap {
    fn before(server: u16) -> Tap {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::<Shared>::default();
        let taken = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&taken);
                thread::spawn(move || pass(client, server, &shared));
            }
        });
        Tap { port, shared }
    }

    fn seen(&self) -> Vec<u32> {
        let seen = self.shared.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As if somebody between had TLS no more.
    fn decline(&self) {
        self.shared.declining.store(true, Ordering::Relaxed);
        let mut seen = self
            .shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.clear();
    }

    /// The settings of a process that has this between.
    fn settings(&self, server: &Encrypted, role: &str, mode: &str) -> Settings {
        let root = match mode {
            "verify-full" => format!("&sslrootcert={}", server.root()),
            _ => String::new(),
        };
        let url = server.url(role, &format!("sslmode={mode}{root}"));
        let (direct, tapped) = (server.cluster.port(), self.port);
        at(&url.replace(&format!(":{direct}/"), &format!(":{tapped}/")))
            .duration("REQUEST_TIMEOUT", Duration::from_secs(1))
    }
}

fn pass(mut client: TcpStream, server: u16, shared: &Shared) -> io::Result<()> {
    let mut head = first_of(&mut client, shared)?;
    if code(head) == ASKS_FOR_TLS && shared.declining.load(Ordering::Relaxed) {
        client.write_all(b"N")?;
        head = first_of(&mut client, shared)?;
    }
    let mut server = TcpStream::connect(("127.0.0.1", server))?;
    server.write_all(&head)?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)
}

fn first_of(client: &mut TcpStream, shared: &Shared) -> io::Result<[u8; 8]> {
    let mut head = [0; 8];
    client.read_exact(&mut head)?;
    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.push(code(head));
    Ok(head)
}

fn code([_, _, _, _, code @ ..]: [u8; 8]) -> u32 {
    u32::from_be_bytes(code)
}

/// Commits wait for a standby that there is not.
fn replicate_to(server: &Encrypted, standby: &str) {
    let line = format!("synchronous_standby_names = '{standby}'");
    server.cluster.configure(&line);
    server.cluster.reload_now();
}

/// How many requests to cancel the server has obeyed.
fn cancelled(server: &Encrypted) -> usize {
    server.cluster.log().matches("due to user request").count()
}

#[test]
fn a_statement_is_cancelled_over_what_its_session_has() {
    let server = Encrypted::start(NAMES);
    for (role, mode, clear) in [
        ("only_tls", "allow", &[STARTS, ASKS_FOR_TLS][..]),
        ("only_tls", "prefer", &[ASKS_FOR_TLS]),
        ("only_tls", "require", &[ASKS_FOR_TLS]),
        ("only_tls", "verify-full", &[ASKS_FOR_TLS]),
        // What is to be seen where there is no TLS.
        ("any_way", "disable", &[STARTS, CANCELS]),
    ] {
        let tap = Tap::before(server.cluster.port());
        let visitas = tap.settings(&server, role, mode).start();
        assert_eq!(visitas.try_visit().status, 200, "{mode}");
        let before = cancelled(&server);
        replicate_to(&server, "nobody");
        // Commits wait once the checkpointer has read the configuration as well.
        within(LIMIT, "a commit to wait", || {
            visitas.try_visit().status == 503
        });
        within(LIMIT, "a commit to be cancelled", || {
            cancelled(&server) > before
        });
        let seen = tap.seen();
        assert!(
            seen.iter().all(|code| clear.contains(code)),
            "{mode}: {seen:?}"
        );
        assert!(
            clear.iter().all(|code| seen.contains(code)),
            "{mode}: {seen:?}"
        );
        replicate_to(&server, "");
        within(LIMIT, "visits to go on", || {
            visitas.try_visit().status == 200
        });
        visitas.stop();
    }
}

/// `prefer` takes a server without TLS for its next session, but what it asks for on behalf of an
/// encrypted one names that session and its secret.
#[test]
fn the_secret_of_an_encrypted_session_is_never_sent_in_the_clear() {
    let server = Encrypted::start(NAMES);
    let tap = Tap::before(server.cluster.port());
    let visitas = tap.settings(&server, "any_way", "prefer").start();
    assert_eq!(visitas.try_visit().status, 200);
    assert!(!tap.seen().contains(&STARTS), "{:?}", tap.seen());
    tap.decline();
    replicate_to(&server, "nobody");
    assert_eq!(visitas.try_visit().status, 503);
    within(LIMIT, "a session without TLS", || {
        tap.seen().contains(&STARTS)
    });
    // Later ones are for this session.
    let seen = tap.seen();
    let before: Vec<_> = seen.iter().take_while(|code| **code != STARTS).collect();
    assert!(
        before.len() >= 2 && before.iter().all(|code| **code == ASKS_FOR_TLS),
        "{seen:?}"
    );
    replicate_to(&server, "");
    within(LIMIT, "visits to go on", || {
        visitas.try_visit().status == 200
    });
}

//! Free TCP ports of 127.0.0.1, for servers that must know their port before they listen.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ports for outgoing connections, so that no connection of the suite takes one.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// A port that nobody listens on. Each one is given out once.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = LAST - FIRST;
    // Parallel runs of the suite begin at different ports.
    let begin = (std::process::id() % u32::from(span)) as u16;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin + step % span) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {LAST}");
}

//! The process fits into its memory limit, whatever clients do: it is never killed and never
//! aborts.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;

use crate::metrics::metrics;
use crate::support::{LIMIT, Settings, Visitas, machine, skipped, within};

/// A memory cgroup of version 1 or 2. Removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new(bytes: usize) -> Result<Group, String> {
        let id = format!("visitas-test-{}-{bytes}", std::process::id());
        let unified = PathBuf::from("/sys/fs/cgroup");
        let (folder, file) = if unified.join("cgroup.controllers").exists() {
            let _ = fs::write(unified.join("cgroup.subtree_control"), "+memory");
            (unified.join(id), "memory.max")
        } else {
            (unified.join("memory").join(id), "memory.limit_in_bytes")
        };
        fs::create_dir(&folder).map_err(|error| format!("no cgroup can be made: {error}"))?;
        let group = Group(folder);
        fs::write(group.0.join(file), bytes.to_string())
            .map_err(|error| format!("no limit can be set: {error}"))?;
        Ok(group)
    }

    fn wrapper(&self) -> String {
        format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Connects and sends an incomplete head of this size. `None` when it was refused.
fn unfinished(visitas: &Visitas, bytes: usize) -> Option<TcpStream> {
    let mut stream =
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, visitas.port()))).ok()?;
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}", "x".repeat(bytes));
    stream.write_all(head.as_bytes()).ok()?;
    Some(stream)
}

/// The answer to an incomplete head: 408 after an eviction, 503 for a refusal, none so far.
fn status(stream: &mut TcpStream) -> Option<String> {
    stream.set_nonblocking(true).expect("a socket");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[9..]).into_owned())
}

/// More incomplete heads than fit into memory: visits are served, and the process survives.
fn is_survived(visitas: &mut Visitas, heads: usize, bytes: usize) {
    let mut slow = Vec::new();
    for number in 0..heads {
        slow.extend(unfinished(visitas, bytes));
        if number % 100 == 0 {
            let answer = visitas.try_visit();
            assert_eq!(
                answer.status,
                200,
                "beside {number} heads: {answer:?}\n{}",
                visitas.output()
            );
        }
    }
    assert!(visitas.is_running(), "{}", visitas.output());
    assert_eq!(visitas.get("/livez").status, 200);
    let statuses: Vec<String> = slow.iter_mut().filter_map(status).collect();
    assert!(
        statuses.iter().any(|status| status == "408"),
        "nobody was evicted: {} of {} were answered",
        statuses.len(),
        slow.len()
    );
    assert!(
        statuses
            .iter()
            .all(|status| status == "408" || status == "503"),
        "{statuses:?}"
    );
    drop(slow);
    within(LIMIT, "all to be gone", || {
        metrics(visitas).sum("visitas_connections") <= 2.0
    });
    assert_eq!(visitas.try_visit().status, 200);
}

#[test]
fn unfinished_heads_beyond_the_address_space_are_survived() {
    let _machine = machine();
    let mut visitas = Settings::new()
        .through(&["/bin/sh", "-c", "ulimit -v 300000; exec \"$0\" \"$@\""])
        .start();
    visitas.logged(&["RLIMIT_AS"]);
    is_survived(&mut visitas, 2000, 39_000);
}

#[test]
fn unfinished_heads_beyond_the_cgroup_are_survived() {
    let group = match Group::new(64 << 20) {
        Ok(group) => group,
        Err(why) => return skipped("a memory cgroup", &why),
    };
    let _machine = machine();
    let mut visitas = Settings::new()
        .through(&["/bin/sh", "-c", &group.wrapper(), "sh"])
        .start();
    visitas.logged(&["cgroup"]);
    is_survived(&mut visitas, 3000, 39_000);
    visitas.signal("KILL");
    visitas.wait_end();
    within(LIMIT, "the cgroup to be empty", || {
        fs::read_to_string(group.0.join("cgroup.procs")).is_ok_and(|pids| pids.trim().is_empty())
    });
}

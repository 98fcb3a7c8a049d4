//! Host names: looked up anew at each new connection, and without harm where no name server
//! answers.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::support::scratch::Folder;
use crate::support::{Cluster, LIMIT, Redis, Settings, Visitas, machine, skipped, within};

const DATABASE: &str = "database.visitas.example";
const CACHE: &str = "cache.visitas.example";
/// The names that a process of the test sees: files of its own in place of /etc/hosts and
/// /etc/resolv.conf, and a name server of its own that takes questions and answers none.
struct Names {
    folder: Folder,
    silent: Option<UdpSocket>,
}

impl Names {
    /// # Errors
    /// Why there can be none here.
    fn new() -> Result<Names, String> {
        // Every test asks an address of its own.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let server = Ipv4Addr::new(
            127,
            53,
            (std::process::id() % 250) as u8,
            NEXT.fetch_add(1, Ordering::Relaxed),
        );
        let names = Names {
            folder: Folder::new("names"),
            silent: UdpSocket::bind((server, 53)).ok(),
        };
        names.folder.file(
            "resolv.conf",
            &format!("nameserver {server}\noptions timeout:2 attempts:1\n"),
        );
        names.are(&[]);
        let words = names.wrapper();
        let tried = Command::new(&words[0])
            .args(&words[1..])
            .arg("/bin/true")
            .output();
        match tried {
            Ok(output) if output.status.success() => Ok(names),
            _ => Err("nobody may mount files of their own here".to_owned()),
        }
    }

    /// From now on these are all the names there are.
    fn are(&self, names: &[(&str, &str)]) {
        let lines: String = names
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"))
            .collect();
        // In its place, so that it stays the file that is mounted.
        self.folder.file("hosts", &lines);
    }

    fn wrapper(&self) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("a path of UTF-8").to_owned();
        let script = format!(
            "mount --bind {0}/hosts /etc/hosts && mount --bind {0}/resolv.conf /etc/resolv.conf && exec \"$0\" \"$@\"",
            text(self.folder.path())
        );
        ["unshare", "--mount", "/bin/sh", "-c", &script]
            .map(str::to_owned)
            .to_vec()
    }

    fn start(&self, settings: Settings) -> Visitas {
        let wrapper = self.wrapper();
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        settings
            .set("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .through(&words)
            .start()
    }
}

fn threads(visitas: &Visitas) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", visitas.pid()))
        .expect("its threads")
        .count()
}

#[test]
fn a_name_is_looked_up_anew_for_each_connection() {
    let names = match Names::new() {
        Ok(names) => names,
        Err(why) => return skipped("names of a process's own", &why),
    };
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    let at = |url: String, name: &str| url.replace("127.0.0.1", name);
    let settings = Settings::new().set("DATABASE_URL", at(database.url(), DATABASE));
    let visitas = names.start(settings.set("REDIS_URL", at(redis.url(), CACHE)));
    assert_eq!((visitas.visit().total, visitas.stats().cache), (1, Some(1)));
    // Nobody listens at the new addresses.
    names.are(&[(DATABASE, "127.0.0.66"), (CACHE, "127.0.0.66")]);
    assert_eq!(
        visitas.visit().total,
        2,
        "the connections that are there stay"
    );
    database.terminate_sessions();
    within(LIMIT, "the database to be away", || {
        visitas.try_visit().status == 503
    });
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.66")]);
    within(LIMIT, "the database at its old address", || {
        visitas.try_visit().status == 200
    });
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    within(LIMIT, "the cache to be away", || {
        visitas.visit().cache.is_none()
    });
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    within(LIMIT, "the cache at its old address", || {
        visitas.visit().cache.is_some()
    });
}

/// Scenario: the name server falls silent while both stores have to be connected to again. Bug: the
/// look-ups had no limit, and each of them would have kept a thread. Fix: a limit for each wait,
/// and one look-up at a time for each connection.
#[test]
fn a_silent_name_server_costs_neither_time_nor_threads() {
    let names = match Names::new() {
        Ok(names) if names.silent.is_some() => names,
        Ok(_) => return skipped("a silent name server", "port 53 is not to be had"),
        Err(why) => return skipped("names of a process's own", &why),
    };
    let _machine = machine();
    let (database, mut redis) = (Cluster::shared().database(), Redis::start());
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    let settings = Settings::new().set(
        "DATABASE_URL",
        database.url().replace("127.0.0.1", DATABASE),
    );
    let settings = settings
        .set("REDIS_URL", redis.url().replace("127.0.0.1", CACHE))
        .set("REQUEST_TIMEOUT", "1s");
    let visitas = names.start(settings);
    visitas.visit();
    let before = threads(&visitas);
    names.are(&[]);
    redis.stop();
    redis.restart();
    // The cache first, so that visits still come to it.
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (2, None));
    database.terminate_sessions();
    let start = Instant::now();
    assert_eq!(visitas.try_visit().status, 503);
    assert!(
        start.elapsed() <= Duration::from_millis(1100),
        "refused after {:?}",
        start.elapsed()
    );
    let mut times = Vec::new();
    while start.elapsed() < Duration::from_secs(4) {
        let visit = Instant::now();
        assert_eq!(visitas.try_visit().status, 503);
        times.push(visit.elapsed());
        let now = threads(&visitas);
        assert!(
            now <= before + 2,
            "{now} threads, {before} before: one look-up for each store at most"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort_unstable();
    assert!(
        times[times.len() / 2] <= Duration::from_millis(10),
        "refused after {:?}",
        times[times.len() / 2]
    );
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    within(LIMIT, "the database", || visitas.try_visit().status == 200);
    within(LIMIT, "the cache", || visitas.visit().cache.is_some());
    within(LIMIT, "no look-up any more", || threads(&visitas) <= before);
}

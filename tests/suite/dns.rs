//! DNS: each new connection looks its host name up, and a silent name server does no harm.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::support::scratch::Folder;
use crate::support::{Cluster, LIMIT, Redis, Settings, Visitas, machine, skipped, within};

const DATABASE: &str = "database.visitas.example";
const CACHE: &str = "cache.visitas.example";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// The DNS of one process: its own /etc/hosts and /etc/resolv.conf, and a name server that never
/// answers.
pub(crate) struct Names {
    folder: Folder,
    silent: Option<UdpSocket>,
}

impl Names {
    /// # Errors
    /// Why this is not possible here.
    pub(crate) fn new() -> Result<Names, String> {
        // Every test uses its own address.
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
            _ => Err("no files can be mounted".to_owned()),
        }
    }

    /// Sets all names.
    pub(crate) fn are(&self, names: &[(&str, &str)]) {
        let lines: String = names
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"))
            .collect();
        // Overwritten in place, so that the mounted file changes.
        self.folder.file("hosts", &lines);
    }

    fn wrapper(&self) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("a path of UTF-8").to_owned();
        let script = format!(
            "mount --bind {0}/hosts /etc/hosts && mount --bind {0}/resolv.conf /etc/resolv.conf \
             && exec \"$0\" \"$@\"",
            text(self.folder.path())
        );
        ["unshare", "--mount", "/bin/sh", "-c", &script]
            .map(str::to_owned)
            .to_vec()
    }

    pub(crate) fn start(&self, settings: Settings) -> Visitas {
        self.given_to(settings).start()
    }

    /// Settings of a process that has these names.
    pub(crate) fn given_to(&self, settings: Settings) -> Settings {
        let wrapper = self.wrapper();
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        settings
            .set("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .through(&words)
    }
}

fn threads(visitas: &Visitas) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", visitas.pid()))
        .expect("its threads")
        .count()
}

#[test]
fn each_new_connection_looks_its_name_up() {
    let names = match Names::new() {
        Ok(names) => names,
        Err(why) => return skipped("names of a process's own", &why),
    };
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    let at = |url: String, name: &str| url.replace("127.0.0.1", name);
    let settings = Settings::new()
        .set("DATABASE_URL", at(database.url(), DATABASE))
        .duration("REQUEST_TIMEOUT", REQUEST_TIMEOUT);
    let visitas = names.start(settings.set("REDIS_URL", at(redis.url(), CACHE)));
    assert_eq!((visitas.visit().total, visitas.stats().cache), (1, Some(1)));
    // No server listens at the new addresses.
    names.are(&[(DATABASE, "127.0.0.66"), (CACHE, "127.0.0.66")]);
    assert_eq!(visitas.visit().total, 2, "existing connections stay");
    database.terminate_sessions();
    within(LIMIT, "the database to be down", || {
        visitas.try_visit().status == 503
    });
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.66")]);
    within(LIMIT, "the database at its old address", || {
        visitas.try_visit().status == 200
    });
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    within(LIMIT, "Redis to be down", || {
        visitas.visit().cache.is_none()
    });
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    within(LIMIT, "Redis at its old address", || {
        visitas.visit().cache.is_some()
    });
}

/// The name server falls silent while both stores need new connections. Lookups once had no limit
/// and each one kept a thread. Now each wait has a limit, and each connection looks up once at a
/// time.
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
        .duration("REQUEST_TIMEOUT", REQUEST_TIMEOUT);
    let visitas = names.start(settings);
    visitas.visit();
    let before = threads(&visitas);
    names.are(&[]);
    redis.stop();
    redis.restart();
    // Redis first, while visits still reach it.
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (2, None));
    database.terminate_sessions();
    let start = Instant::now();
    assert_eq!(visitas.try_visit().status, 503);
    assert!(
        start.elapsed() <= 2 * REQUEST_TIMEOUT,
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
            "{now} threads, {before} before: at most one lookup per store"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort_unstable();
    assert!(
        times[times.len() / 2] <= REQUEST_TIMEOUT / 10,
        "refused after {:?}",
        times[times.len() / 2]
    );
    names.are(&[(DATABASE, "127.0.0.1"), (CACHE, "127.0.0.1")]);
    within(LIMIT, "the database", || visitas.try_visit().status == 200);
    within(LIMIT, "Redis", || visitas.visit().cache.is_some());
    within(LIMIT, "the end of the lookups", || {
        threads(&visitas) <= before
    });
}

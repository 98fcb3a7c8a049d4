//! Servers that stand for those of providers: under their names, at their ports, on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::dns::Names;
use crate::support::pgbouncer::Mode;
use crate::support::postgres::SUPERUSER;
use crate::support::scratch::Folder;
use crate::support::server::Ended;
use crate::support::{Authority, Pair, PgBouncer, Proxy, Redis, Settings, skipped};
use crate::tls::{Encrypted, check, pooler};

/// What an address leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    Server,
    /// A PgBouncer that takes no notice of `options`.
    Pooler,
    Counter,
}

/// An address as a provider shows it, and what it leads to.
pub(super) type Shown = (&'static str, Behind);

/// Makes the servers' certificate for those names.
pub(super) type Certify = fn(&Authority, &[&str]) -> Pair;

/// The parts of an address.
struct Parts {
    user: String,
    password: String,
    host: String,
    port: u16,
    database: String,
}

impl Parts {
    fn of((shown, behind): Shown) -> Parts {
        match shown.split_once("://") {
            Some((_, rest)) => Parts::of_url(rest, behind),
            None => Parts::of_pairs(shown),
        }
    }

    fn of_url(rest: &str, behind: Behind) -> Parts {
        let (login, rest) = rest.rsplit_once('@').expect("a login");
        let (user, password) = login.split_once(':').expect("a password");
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (place, _) = place.split_once('#').unwrap_or((place, ""));
        let (host, port) = match place.split_once(':') {
            Some((host, port)) => (host, port.parse().expect("a port")),
            None if behind == Behind::Counter => (place, 6379),
            None => (place, 5432),
        };
        let decoded = |text: &str| text.replace("%40", "@").replace("%3D", "=");
        Parts {
            user: decoded(user),
            password: decoded(password),
            host: host.to_owned(),
            port,
            database: path.split('?').next().unwrap_or_default().to_owned(),
        }
    }

    fn of_pairs(pairs: &str) -> Parts {
        let pairs: BTreeMap<&str, &str> = pairs
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .collect();
        Parts {
            user: pairs["user"].to_owned(),
            password: pairs["password"].to_owned(),
            host: pairs["host"].to_owned(),
            port: pairs["port"].parse().expect("a port"),
            database: pairs["dbname"].to_owned(),
        }
    }
}

/// Servers with TLS at every address.
pub(super) struct Providers {
    names: Names,
    pub(super) server: Encrypted,
    _redis: Redis,
    _pooler: (PgBouncer, Folder),
    _proxies: Vec<Proxy>,
}

impl Providers {
    /// `None`, and a line about it, where this machine cannot have them.
    pub(super) fn start(shown: &[Shown], certify: Certify) -> Option<Providers> {
        let names = match Names::new() {
            Ok(names) => names,
            Err(why) => {
                skipped("the names of providers", &why);
                return None;
            }
        };
        let all: Vec<(Parts, Behind)> = shown.iter().map(|one| (Parts::of(*one), one.1)).collect();
        let hosts: BTreeSet<&str> = all.iter().map(|(parts, _)| parts.host.as_str()).collect();
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let server = Encrypted::start(&hosts);
        let pair = certify(&server.authority, &hosts);
        server.cluster.encrypt(&pair, &server.authority);
        let ignoring = "ignore_startup_parameters = options";
        let pooler = pooler(&server.cluster, &pair, Mode::Transaction, ignoring)?;
        let mut redis = Redis::encrypted(&pair, &server.authority, false);
        redis.restart();
        let mut places = BTreeMap::new();
        for (parts, behind) in &all {
            let port = match behind {
                Behind::Server => server.cluster.port(),
                Behind::Pooler => pooler.0.port(),
                Behind::Counter => redis.encrypted_port(),
            };
            let place = (parts.host.as_str(), parts.port);
            let other = places.insert(place, port);
            assert!(other.is_none_or(|other| other == port), "{place:?}");
        }
        let proxies = listen(&names, &hosts, &places)?;
        let of = |wanted: Behind| all.iter().filter(move |(_, behind)| *behind == wanted);
        admit(&server, of(Behind::Server).map(|(parts, _)| parts));
        admit_to_counter(&redis, of(Behind::Counter).map(|(parts, _)| parts));
        Some(Providers {
            names,
            server,
            _redis: redis,
            _pooler: pooler,
            _proxies: proxies,
        })
    }

    /// Runs `visitas check` with these variables, where the names lead here.
    pub(super) fn check(&self, variables: &[(&str, String)]) -> Ended {
        let mut settings = Settings::new().set("CONNECT_ATTEMPTS", 1);
        for (name, value) in variables {
            settings = settings.set(name, value);
        }
        check(self.names.given_to(settings))
    }
}

/// Gives each host an address of its own, and passes what comes to its ports on to the servers.
fn listen(
    names: &Names,
    hosts: &[&str],
    places: &BTreeMap<(&str, u16), u16>,
) -> Option<Vec<Proxy>> {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let run = (std::process::id() % 250) as u8;
    let (mut proxies, mut addresses) = (Vec::new(), Vec::new());
    for host in hosts {
        let address = Ipv4Addr::new(127, 54, run, NEXT.fetch_add(1, Ordering::Relaxed));
        addresses.push(address.to_string());
        for ((_, port), server) in places.iter().filter(|((of, _), _)| of == host) {
            match TcpListener::bind((address, *port)) {
                Ok(listener) => proxies.push(Proxy::on(listener, *server)),
                Err(error) => {
                    skipped(
                        "the ports of providers",
                        &format!("{address}:{port}: {error}"),
                    );
                    return None;
                }
            }
        }
    }
    let addresses = addresses.iter().map(String::as_str);
    let lines: Vec<(&str, &str)> = hosts.iter().copied().zip(addresses).collect();
    names.are(&lines);
    Some(proxies)
}

/// Makes their roles and databases. All may do everything, since some share a database.
fn admit<'a>(server: &Encrypted, all: impl Iterator<Item = &'a Parts>) {
    let mut sql = server.cluster.superuser(SUPERUSER);
    let (mut roles, mut databases) = (BTreeSet::from([SUPERUSER]), BTreeSet::from([SUPERUSER]));
    for parts in all {
        let (user, password) = (&parts.user, &parts.password);
        if roles.insert(user) {
            let role = format!("CREATE ROLE \"{user}\" LOGIN SUPERUSER PASSWORD '{password}'");
            sql.batch_execute(&role).expect("a role");
        }
        if databases.insert(&parts.database) {
            let database = format!("CREATE DATABASE \"{}\"", parts.database);
            sql.batch_execute(&database).expect("a database");
        }
    }
}

/// Makes their users. The one without a name comes last: it is the one of the suite's commands, and
/// has no password until then.
fn admit_to_counter<'a>(redis: &Redis, all: impl Iterator<Item = &'a Parts>) {
    let mut users = BTreeMap::<&str, Vec<String>>::new();
    for parts in all {
        let user = match parts.user.as_str() {
            "" => "default",
            user => user,
        };
        let words = users.entry(user).or_default();
        words.push(format!(">{}", parts.password));
    }
    let default = users.remove("default").map(|words| ("default", words));
    for (user, passwords) in users.into_iter().chain(default) {
        let mut words = vec!["ACL", "SETUSER", user, "on", "~*", "&*", "+@all"];
        words.extend(passwords.iter().map(String::as_str));
        redis.command(&words);
    }
}

//! Where the server may be: each of its hosts in turn, its name looked up anew every time, and a
//! limit on every wait.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::address::{Address, Host};
use crate::visits::store::{Resolver, Timed};

/// Time for a name to be looked up. Short, so that a name server that is silent does not keep a
/// lane from its next host; an answer that comes later is taken up at the next try.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for each step of making a connection, unless the address gives more. A loaded server takes
/// less, and a lane soon tries anew, perhaps at another address.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for `check --count`, `recount`, `export` and `import`.
const COMMAND_STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the server may be, and how to log in there.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) address: Address,
    /// What is sent and not acknowledged within this time is lost.
    deadline: Duration,
    /// Time for each step of making a connection.
    pub(super) step_timeout: Duration,
    resolver: Resolver,
}

/// One address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => write!(f, "{address}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Endpoints {
    pub(super) fn new(address: &Address, deadline: Duration) -> Self {
        Endpoints {
            address: address.clone(),
            deadline,
            // Who waits longer for a TCP connection knows of a slow server.
            step_timeout: STEP_TIMEOUT.max(address.connect_timeout),
            resolver: Resolver::new(),
        }
    }

    /// For a command, which a person waits for and which has no other host to serve from.
    pub(super) fn for_command(address: &Address, deadline: Duration) -> Self {
        let mut endpoints = Endpoints::new(address, deadline);
        endpoints.step_timeout = endpoints.step_timeout.max(COMMAND_STEP_TIMEOUT);
        endpoints
    }

    /// The hosts in the order they are to be tried.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let mut hosts = self.address.hosts.clone();
        self.balance(&mut hosts);
        hosts
    }

    /// The addresses of one host in the order they are to be tried.
    ///
    /// # Errors
    /// When its name has no address, or none in time.
    pub(super) fn places(&mut self, host: &Host) -> io::Result<Vec<Place>> {
        match host {
            Host::Tcp(name, address, port) => {
                let mut addresses = match address {
                    Some(address) => vec![*address],
                    None => self.resolver.resolve(name, LOOK_UP_TIMEOUT)?,
                };
                self.balance(&mut addresses);
                let place = |address| Place::Tcp(SocketAddr::new(address, *port));
                Ok(addresses.into_iter().map(place).collect())
            }
            // PostgreSQL manual, "Connections and Authentication", `unix_socket_directories`.
            Host::Unix(folder, port) => {
                Ok(vec![Place::Unix(folder.join(format!(".s.PGSQL.{port}")))])
            }
        }
    }

    /// Another order each time, where the configuration asks for it.
    fn balance<T: ToString>(&self, places: &mut [T]) {
        if self.address.balance {
            // The standard library seeds its hashers at random.
            let order = RandomState::new();
            places.sort_by_cached_key(|place| order.hash_one(place.to_string()));
        }
    }

    /// # Errors
    /// When it cannot connect there in time.
    pub(super) fn connect(&self, place: &Place) -> io::Result<Timed> {
        place.connect(self.address.connect_timeout, self.deadline)
    }
}

impl Place {
    /// Connects within `limit`. The connection is lost where what was sent is not acknowledged for
    /// `unacknowledged`.
    ///
    /// # Errors
    /// When it cannot in time.
    pub(super) fn connect(&self, limit: Duration, unacknowledged: Duration) -> io::Result<Timed> {
        let deadline = Instant::now() + limit;
        match self {
            Place::Tcp(address) => {
                let socket = Timed::over_tcp(*address, deadline)?;
                socket.give_up_after(unacknowledged)?;
                Ok(socket)
            }
            Place::Unix(path) => Timed::over_unix(path, deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::{ChannelBinding, Encryption};
    use super::*;

    fn endpoints(hosts: &[Host], balance: bool) -> Endpoints {
        let address = Address {
            hosts: hosts.to_vec(),
            balance,
            user: "u".to_owned(),
            password: None,
            database: None,
            application_name: "visitas".to_owned(),
            options: None,
            connect_timeout: Duration::from_secs(1),
            encryption: Encryption::Never,
            direct: false,
            channel_binding: ChannelBinding::Prefer,
        };
        Endpoints::new(&address, Duration::from_secs(5))
    }

    #[test]
    fn an_address_beside_a_name_is_taken_and_a_socket_has_the_port_in_its_name() {
        let given = Host::Tcp("db1".to_owned(), "10.0.0.1".parse().ok(), 7);
        let folder = Host::Unix("/run/pg".into(), 2);
        let mut endpoints = endpoints(&[given.clone(), folder.clone()], false);
        let place = |host| {
            endpoints
                .places(host)
                .expect("no name to look up")
                .remove(0)
        };
        let places = [&given, &folder].map(place);
        assert_eq!(
            places.map(|place| place.to_string()),
            ["10.0.0.1:7", "/run/pg/.s.PGSQL.2"]
        );
    }

    #[test]
    fn a_balanced_load_begins_anywhere() {
        let hosts = ["a", "b", "c"].map(|name| Host::Tcp(name.to_owned(), None, 1));
        let endpoints = endpoints(&hosts, true);
        let firsts: std::collections::BTreeSet<String> =
            (0..100).map(|_| endpoints.hosts()[0].to_string()).collect();
        assert_eq!(firsts.len(), 3);
    }
}

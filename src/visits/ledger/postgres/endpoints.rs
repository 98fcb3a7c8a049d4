//! Where the server may be: each of its hosts in turn, its name looked up anew every time, and a
//! limit on every wait.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{self, LoadBalanceHosts, SslMode};

use super::address::Address;
use super::encryption::{self, Connector};
use crate::visits::store::Resolver;
use crate::visits::tls::Refusal;

/// Time for a name to be looked up. Short, so that a name server that is silent does not keep a
/// lane from its next host; an answer that comes later is taken up at the next try.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a TCP connection, where the configuration has none: the kernel's own is over two
/// minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

// How soon a side notices that the other has vanished while nothing is in flight (tcp(7)): a
// firewall that forgot the connection, a machine without power.
const KEEPALIVE_IDLE_S: u64 = 10;
const KEEPALIVE_INTERVAL_S: u64 = 3;
const KEEPALIVE_COUNT: u32 = 3;

/// Where the server may be, and how to log in there.
#[derive(Debug)]
pub(super) struct Endpoints {
    address: Address,
    /// Everything but the hosts and the encryption.
    login: Config,
    hosts: Vec<Host>,
    resolver: Resolver,
}

/// One host of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// A name, or an address written out; perhaps the address of that name; the port.
    Tcp(String, Option<IpAddr>, u16),
    /// The folder of a Unix socket.
    Unix(PathBuf, u16),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Tcp(_, Some(address), port) => write!(f, "{}", SocketAddr::new(*address, *port)),
            Host::Tcp(host, None, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Host::Tcp(host, None, port) => write!(f, "{host}:{port}"),
            Host::Unix(folder, port) => write!(f, "{}:{port}", folder.display()),
        }
    }
}

impl Endpoints {
    /// The endpoints of `address`. What is sent and not acknowledged within `deadline` is lost.
    pub(super) fn new(address: &Address, deadline: Duration) -> Self {
        Endpoints {
            address: address.clone(),
            login: login(&address.config, deadline),
            hosts: places(&address.config),
            resolver: Resolver::new(),
        }
    }

    /// The hosts in the order they are to be tried.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let mut hosts = self.hosts.clone();
        self.balance(&mut hosts);
        hosts
    }

    /// The configurations for one host, one for each of its addresses in the order they are to be
    /// tried: no name is left for anybody else to look up.
    ///
    /// # Errors
    /// When its name has no address, or none in time.
    pub(super) fn configs(&mut self, host: &Host) -> io::Result<Vec<Config>> {
        match host {
            Host::Tcp(name, address, port) => {
                let mut addresses = match address {
                    Some(address) => vec![*address],
                    None => self.resolver.resolve(name, LOOK_UP_TIMEOUT)?,
                };
                self.balance(&mut addresses);
                let config = |address: IpAddr| {
                    let mut config = self.login.clone();
                    config.host(address.to_string()).port(*port);
                    encryption::prepare(&mut config);
                    config
                };
                Ok(addresses.into_iter().map(config).collect())
            }
            Host::Unix(folder, port) => {
                let mut config = self.login.clone();
                config.host_path(folder).port(*port);
                config.ssl_mode(SslMode::Disable);
                Ok(vec![config])
            }
        }
    }

    /// Another order each time, where the configuration asks for it.
    fn balance<T: ToString>(&self, places: &mut [T]) {
        if self.login.get_load_balance_hosts() == LoadBalanceHosts::Random {
            // The standard library seeds its hashers at random.
            let order = RandomState::new();
            places.sort_by_cached_key(|place| order.hash_one(place.to_string()));
        }
    }

    /// The kinds of connection to try at that host, in turn.
    ///
    /// # Errors
    /// A sentence about a file that cannot be used.
    pub(super) fn connectors(&self, host: &Host) -> Result<Vec<Connector>, Refusal> {
        match host {
            Host::Tcp(name, ..) => encryption::connectors(&self.address, name),
            Host::Unix(..) => Ok(vec![encryption::plain()]),
        }
    }
}

/// The hosts of a configuration with their ports, as the library reads them: an address that is
/// given beside a name saves looking it up, and a single port is for all.
fn places(config: &Config) -> Vec<Host> {
    let (hosts, addresses, ports) = (
        config.get_hosts(),
        config.get_hostaddrs(),
        config.get_ports(),
    );
    let place = |index: usize| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let address = addresses.get(index).copied();
        match (hosts.get(index), address) {
            (Some(config::Host::Tcp(name)), address) => {
                Some(Host::Tcp(name.clone(), address, port))
            }
            (_, Some(address)) => Some(Host::Tcp(address.to_string(), Some(address), port)),
            (Some(config::Host::Unix(folder)), None) => Some(Host::Unix(folder.clone(), port)),
            (None, None) => None,
        }
    };
    (0..hosts.len().max(addresses.len()))
        .filter_map(place)
        .collect()
}

/// The configuration without its hosts, and with a limit on every wait that the network or the
/// server could cause.
fn login(config: &Config, deadline: Duration) -> Config {
    let mut login = Config::new();
    if let Some(user) = config.get_user() {
        login.user(user);
    }
    if let Some(password) = config.get_password() {
        login.password(password);
    }
    if let Some(name) = config.get_dbname() {
        login.dbname(name);
    }
    login.application_name(config.get_application_name().unwrap_or("visitas"));
    login.channel_binding(config.get_channel_binding());
    login.load_balance_hosts(config.get_load_balance_hosts());
    login.connect_timeout(
        config
            .get_connect_timeout()
            .copied()
            .unwrap_or(CONNECT_TIMEOUT),
    );
    // What was sent and not acknowledged for so long is lost, though the connection stands (tcp(7),
    // TCP_USER_TIMEOUT).
    login.tcp_user_timeout(deadline);
    login
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(KEEPALIVE_IDLE_S));
    login
        .keepalives_interval(Duration::from_secs(KEEPALIVE_INTERVAL_S))
        .keepalives_retries(KEEPALIVE_COUNT);
    // None of our own: a pooler refuses what it does not know, and nothing depends on any.
    if let Some(options) = config.get_options() {
        login.options(options);
    }
    login
}

#[cfg(test)]
mod tests {
    use super::super::address::Encryption;
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn endpoints(address: &str) -> Endpoints {
        let address = Address {
            config: address.parse().expect("an address"),
            encryption: Encryption::Never,
            direct: false,
        };
        Endpoints::new(&address, DEADLINE)
    }

    #[test]
    fn every_host_is_tried_in_its_order_at_its_own_port() {
        let endpoints = endpoints("host=db1,/run/pg,::1 port=1,2,3 user=u");
        let tcp = |name: &str, port| Host::Tcp(name.to_owned(), None, port);
        assert_eq!(
            endpoints.hosts(),
            [
                tcp("db1", 1),
                Host::Unix("/run/pg".into(), 2),
                tcp("::1", 3)
            ]
        );
        assert_eq!(
            endpoints.hosts().last().map(ToString::to_string).as_deref(),
            Some("[::1]:3")
        );
    }

    #[test]
    fn an_address_beside_a_name_is_taken_and_one_port_is_for_all() {
        let endpoints = endpoints("host=db1,db2 hostaddr=10.0.0.1,10.0.0.2 port=7 user=u");
        let tcp = |name: &str, address: [u8; 4]| {
            Host::Tcp(name.to_owned(), Some(IpAddr::from(address)), 7)
        };
        assert_eq!(
            endpoints.hosts(),
            [tcp("db1", [10, 0, 0, 1]), tcp("db2", [10, 0, 0, 2])]
        );
        assert_eq!(endpoints.hosts()[0].to_string(), "10.0.0.1:7");
    }

    #[test]
    fn a_balanced_load_begins_anywhere() {
        let endpoints = endpoints("host=a,b,c port=1 user=u load_balance_hosts=random");
        let firsts: std::collections::BTreeSet<String> =
            (0..100).map(|_| endpoints.hosts()[0].to_string()).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn nothing_of_the_login_is_lost() {
        let given = "host=127.0.0.1 port=9 user=u password=p dbname=d options='-c geqo=off' \
            application_name=a connect_timeout=7 target_session_attrs=read-write \
            channel_binding=disable";
        let mut endpoints = endpoints(given);
        let host = endpoints.hosts().remove(0);
        let mut configs = endpoints.configs(&host).expect("no name to look up");
        let config = configs.remove(0);
        assert_eq!(
            (config.get_user(), config.get_password()),
            (Some("u"), Some(&b"p"[..]))
        );
        assert_eq!(
            (config.get_dbname(), config.get_application_name()),
            (Some("d"), Some("a"))
        );
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        let given: Config = given.parse().expect("an address");
        assert_eq!(config.get_channel_binding(), given.get_channel_binding());
        assert_eq!(
            (config.get_hosts(), config.get_ports()),
            (given.get_hosts(), given.get_ports())
        );
        assert_eq!(config.get_options(), Some("-c geqo=off"));
    }
}

//! The way to the server: each of its hosts in turn, its name looked up anew every time, and a limit on every wait.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

use super::super::super::resolver::Resolver;

/// Time for a name to be looked up. Short, so that a name server that is silent does not keep a lane from its next host;
/// an answer that comes later is taken up at the next try.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a TCP connection, where the configuration has none: the kernel's own is over two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

// How soon either side finds that the other has vanished while nothing is under way (tcp(7)): a firewall that forgot
// the connection, a machine without power. The server's side frees the lane's slot and session by that.
const KEEPALIVE_IDLE_S: u64 = 10;
const KEEPALIVE_INTERVAL_S: u64 = 3;
const KEEPALIVE_COUNT: u32 = 3;

/// Where the server may be, and how to log in there.
#[derive(Debug)]
pub(super) struct Way {
    /// Everything but the hosts.
    login: Config,
    hosts: Vec<Place>,
    resolver: Resolver,
}

/// One host of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A name, or an address written out.
    Tcp(String, u16),
    /// The folder of a Unix socket.
    Unix(PathBuf, u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
            Place::Unix(folder, port) => write!(f, "{}:{port}", folder.display()),
        }
    }
}

impl Way {
    /// The way that `config` describes. No statement on it takes longer than `deadline`.
    pub(super) fn new(config: &Config, deadline: Duration) -> Self {
        Way { login: login(config, deadline), hosts: places(config), resolver: Resolver::new() }
    }

    /// The hosts in the order they are to be tried.
    pub(super) fn hosts(&self) -> Vec<Place> {
        let mut hosts = self.hosts.clone();
        if self.login.get_load_balance_hosts() == LoadBalanceHosts::Random {
            // The standard library seeds its hashers at random.
            let order = RandomState::new();
            hosts.sort_by_cached_key(|host| order.hash_one(host.to_string()));
        }
        hosts
    }

    /// The configuration for one host, in which no name is left for anybody else to look up.
    ///
    /// # Errors
    /// When its name has no address, or none in time.
    pub(super) fn to(&mut self, host: &Place) -> io::Result<Config> {
        let mut config = self.login.clone();
        match host {
            Place::Tcp(name, port) => {
                for address in self.resolver.resolve(name, LOOK_UP_TIMEOUT)? {
                    config.host(address.to_string());
                }
                config.port(*port);
            }
            Place::Unix(folder, port) => {
                config.host_path(folder).port(*port);
            }
        }
        Ok(config)
    }
}

/// The hosts of a configuration with their ports, as the library reads them: an address that is given beside a name
/// saves looking it up, and a single port is for all.
fn places(config: &Config) -> Vec<Place> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let place = |index: usize| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let address = |address: &IpAddr| Place::Tcp(address.to_string(), port);
        addresses.get(index).map(address).or_else(|| match hosts.get(index)? {
            Host::Tcp(name) => Some(Place::Tcp(name.clone(), port)),
            Host::Unix(folder) => Some(Place::Unix(folder.clone(), port)),
        })
    };
    (0..hosts.len().max(addresses.len())).filter_map(place).collect()
}

/// The configuration without its hosts, and with a limit on every wait that the network or the server could cause.
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
    login.ssl_mode(config.get_ssl_mode()).ssl_negotiation(config.get_ssl_negotiation());
    login.channel_binding(config.get_channel_binding());
    login.target_session_attrs(config.get_target_session_attrs());
    login.load_balance_hosts(config.get_load_balance_hosts());
    login.connect_timeout(config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT));
    // What was sent and not acknowledged for so long is lost, though the connection stands (tcp(7), TCP_USER_TIMEOUT).
    login.tcp_user_timeout(deadline);
    login.keepalives(true).keepalives_idle(Duration::from_secs(KEEPALIVE_IDLE_S));
    login.keepalives_interval(Duration::from_secs(KEEPALIVE_INTERVAL_S)).keepalives_retries(KEEPALIVE_COUNT);
    let own = config.get_options().unwrap_or_default();
    login.options(format!("{own} {}", session_settings(deadline)).trim_start());
    login
}

// By how much the server gives a statement up before the client does, so that the client hears that nothing was
// committed instead of having to find out; and a lock sooner still, for that says more. Longer than a packet's way.
const STATEMENT_MARGIN: Duration = Duration::from_millis(20);
const LOCK_MARGIN: Duration = Duration::from_millis(40);

/// What the server is told about the session.
fn session_settings(deadline: Duration) -> String {
    // Of a very short deadline a part must be left; 0 would mean no limit.
    let less = |margin, least: u32| deadline.saturating_sub(margin).max(deadline * least / 10).as_millis().max(1);
    let (statement, lock) = (less(STATEMENT_MARGIN, 7), less(LOCK_MARGIN, 5));
    format!(
        "-c statement_timeout={statement} -c lock_timeout={lock} -c idle_in_transaction_session_timeout={statement} \
         -c tcp_keepalives_idle={KEEPALIVE_IDLE_S} -c tcp_keepalives_interval={KEEPALIVE_INTERVAL_S} \
         -c tcp_keepalives_count={KEEPALIVE_COUNT} -c tcp_user_timeout={} \
         -c default_transaction_isolation=read\\ committed -c client_min_messages=warning -c visitas.lane=on",
        deadline.as_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn way(address: &str) -> Way {
        Way::new(&address.parse().expect("an address"), DEADLINE)
    }

    #[test]
    fn every_host_is_tried_in_its_order_at_its_own_port() {
        let way = way("host=db1,/run/pg,::1 port=1,2,3 user=u");
        let tcp = |name: &str, port| Place::Tcp(name.to_owned(), port);
        assert_eq!(way.hosts(), [tcp("db1", 1), Place::Unix("/run/pg".into(), 2), tcp("::1", 3)]);
        assert_eq!(way.hosts().last().map(ToString::to_string).as_deref(), Some("[::1]:3"));
    }

    #[test]
    fn an_address_beside_a_name_is_taken_and_one_port_is_for_all() {
        let way = way("host=db1,db2 hostaddr=10.0.0.1,10.0.0.2 port=7 user=u");
        assert_eq!(way.hosts(), [Place::Tcp("10.0.0.1".to_owned(), 7), Place::Tcp("10.0.0.2".to_owned(), 7)]);
    }

    #[test]
    fn a_balanced_load_begins_anywhere() {
        let way = way("host=a,b,c port=1 user=u load_balance_hosts=random");
        let firsts: std::collections::BTreeSet<String> = (0..100).map(|_| way.hosts()[0].to_string()).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn nothing_of_the_login_is_lost() {
        let given = "host=127.0.0.1 port=9 user=u password=p dbname=d options='-c geqo=off' application_name=a \
            connect_timeout=7 target_session_attrs=read-write channel_binding=disable sslmode=disable";
        let mut way = way(given);
        let host = way.hosts().remove(0);
        let config = way.to(&host).expect("no name to look up");
        assert_eq!((config.get_user(), config.get_password()), (Some("u"), Some(&b"p"[..])));
        assert_eq!((config.get_dbname(), config.get_application_name()), (Some("d"), Some("a")));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        let given: Config = given.parse().expect("an address");
        assert_eq!(config.get_target_session_attrs(), given.get_target_session_attrs());
        assert_eq!(config.get_channel_binding(), given.get_channel_binding());
        assert_eq!(config.get_ssl_mode(), given.get_ssl_mode());
        assert_eq!((config.get_hosts(), config.get_ports()), (given.get_hosts(), given.get_ports()));
        assert!(
            config.get_options().is_some_and(|options| options.starts_with("-c geqo=off -c statement_timeout=4980"))
        );
    }

    #[test]
    fn the_server_gives_up_before_the_client() {
        assert!(session_settings(DEADLINE).starts_with("-c statement_timeout=4980 -c lock_timeout=4960 "));
        assert!(session_settings(Duration::from_millis(40)).starts_with("-c statement_timeout=28 -c lock_timeout=20 "));
        assert!(session_settings(Duration::from_millis(1)).starts_with("-c statement_timeout=1 -c lock_timeout=1 "));
    }
}

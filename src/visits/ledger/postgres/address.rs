//! Where the database is, how to log in there, and how the way there is encrypted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::visits::store::Secret;
use crate::visits::tls::Tls;

/// What the environment says of a database.
#[derive(Debug, Clone)]
pub struct Address {
    /// At least one.
    pub hosts: Vec<Host>,
    /// Whether to try the hosts, and the addresses of each, in another order each time
    /// (`load_balance_hosts=random`).
    pub balance: bool,
    pub user: String,
    pub password: Option<Secret>,
    /// `None`: named as the user.
    pub database: Option<String>,
    pub application_name: String,
    /// For the server's command line (`options`).
    pub options: Option<String>,
    /// Time for a TCP connection.
    pub connect_timeout: Duration,
    /// The encryption of TCP connections. A Unix socket has none.
    pub encryption: Encryption,
    /// Whether TLS begins without asking the server (`sslnegotiation=direct`, PostgreSQL 17).
    pub direct: bool,
    pub channel_binding: ChannelBinding,
}

/// One host of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name, or an address written out; perhaps the address of that name; the port.
    Tcp(String, Option<IpAddr>, u16),
    /// The folder of a Unix socket, and the port, which is part of the socket's name.
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

/// libpq's `sslmode` (PostgreSQL manual, "SSL Support", "SSL Mode Descriptions").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// `disable`.
    Never,
    /// `allow`: where the server refuses a session without.
    IfAsked(Tls),
    /// `prefer`: where the server offers it, and takes a session with it.
    IfOffered(Tls),
    /// `require` and what is above.
    Always(Tls),
}

/// libpq's `channel_binding`: whether the login proves that nobody stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

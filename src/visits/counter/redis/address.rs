//! Where the server is, how to log in there, and how the way there is encrypted.

use std::fmt;
use std::path::PathBuf;

use crate::visits::store::Secret;
use crate::visits::tls::Tls;

/// What the environment says of a Redis server.
#[derive(Debug, Clone)]
pub struct Address {
    pub place: Place,
    /// `None`: the default user.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u32,
    /// `None`: the connection is plain.
    pub tls: Option<Tls>,
}

/// Where a Redis server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name, or an address written out; the port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

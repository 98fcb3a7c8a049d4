//! Where the database is, and how the way there is encrypted.

use tokio_postgres::Config;

use crate::visits::tls::Tls;

/// What the environment says of a database.
#[derive(Debug, Clone)]
pub struct Address {
    /// Everything but the encryption.
    pub config: Config,
    /// The encryption of TCP connections. A Unix socket has none.
    pub encryption: Encryption,
    /// Whether TLS begins without asking the server (`sslnegotiation=direct`, PostgreSQL 17).
    pub direct: bool,
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

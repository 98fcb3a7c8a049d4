//! How the connection to a store is encrypted, and what of the server is verified.
//!
//! The settings are here in every build; what they ask for is there with the feature `tls`.

#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod provider;
mod refusal;
#[cfg(feature = "tls")]
mod verifier;
#[cfg(feature = "tls")]
mod words;

use std::path::PathBuf;

#[cfg(feature = "tls")]
pub(in crate::visits) use certificate::end_point;
#[cfg(feature = "tls")]
pub(in crate::visits) use client::Client;
pub(in crate::visits) use refusal::Refusal;

/// Whether this build can encrypt.
pub const AVAILABLE: bool = cfg!(feature = "tls");

/// An encrypted connection: what is verified, and with which files. They are read anew for each
/// connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// What the server has to prove.
    pub verify: Verify,
    /// Who may vouch for it.
    pub roots: Roots,
    /// How this client proves who it is, where the server asks.
    pub identity: Option<Identity>,
    /// What the settings are called.
    pub settings: &'static Settings,
}

/// What the server has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: who stands between can pretend to be the server.
    Nothing,
    /// That a root vouches for its certificate.
    Chain,
    /// And that the certificate is for the host that was asked for.
    Name,
}

/// The certificates of those who may vouch for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The authorities that Mozilla trusts, as of this build.
    Public,
    /// Those in this file (PEM) alone.
    File {
        /// Its name.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
    },
}

/// A client certificate with its private key, in two files (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// Its key, not encrypted.
    pub key: PathBuf,
}

/// The names of a store's settings, for the sentences that name them.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether to encrypt, and what to verify.
    pub mode: &'static str,
    /// A value of it that verifies a certificate, but not its name.
    pub any_name: Option<&'static str>,
    /// The file of roots.
    pub roots: &'static str,
    /// The client certificate.
    pub certificate: &'static str,
    /// Its key.
    pub key: &'static str,
}

/// PostgreSQL's.
pub static POSTGRES: Settings = Settings {
    mode: "DB_SSLMODE (sslmode)",
    any_name: Some("verify-ca"),
    roots: "DB_SSLROOTCERT (sslrootcert)",
    certificate: "DB_SSLCERT (sslcert)",
    key: "DB_SSLKEY (sslkey)",
};

/// Redis'.
pub static REDIS: Settings = Settings {
    mode: "REDIS_TLS",
    any_name: None,
    roots: "REDIS_CA_FILE",
    certificate: "REDIS_CERT_FILE",
    key: "REDIS_KEY_FILE",
};

//! Encrypts a connection, as far as its address asks for it.
//!
//! libpq's `allow` and `prefer` may take two connections, one with TLS and one without.

#[cfg(feature = "tls")]
use std::io::{self, Read, Write};
use std::time::Duration;
#[cfg(feature = "tls")]
use std::time::Instant;

use super::address::{Address, Encryption};
use crate::visits::store::{Timed, Wire};
use crate::visits::tls::Refusal;
#[cfg(feature = "tls")]
use crate::visits::tls::{Client, Tls};

/// What a client sends to ask for TLS (PostgreSQL manual, "Message Formats": SSLRequest).
#[cfg(feature = "tls")]
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// A handshake ends this long before the step of which it is a part, so that the error tells where
/// it ended.
#[cfg(feature = "tls")]
const BEFORE_THE_STEP_ENDS: Duration = Duration::from_millis(500);
/// The protocol's name in a handshake (RFC 7301; PostgreSQL manual, "Protocol Flow": "SSL Session
/// Encryption").
#[cfg(feature = "tls")]
const PROTOCOL: &[u8] = b"postgresql";

/// A kind of connection.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Plain,
    #[cfg(feature = "tls")]
    Tls {
        client: Box<Client>,
        direct: bool,
        /// A server without TLS is taken as it is.
        optional: bool,
    },
}

/// The kinds of connection to try, in turn: the second one where the server, or the handshake,
/// refuses the first. Reads the files.
///
/// # Errors
/// A sentence that names the file which cannot be used.
#[cfg(feature = "tls")]
pub(super) fn kinds(address: &Address, host: &str) -> Result<Vec<Kind>, Refusal> {
    let with = |tls: &Tls, optional| {
        Ok(Kind::Tls {
            client: Box::new(Client::new(tls, host, &[PROTOCOL])?),
            direct: address.direct,
            optional,
        })
    };
    Ok(match &address.encryption {
        Encryption::Never => vec![Kind::Plain],
        Encryption::IfAsked(tls) => vec![Kind::Plain, with(tls, false)?],
        Encryption::IfOffered(tls) => vec![with(tls, true)?, Kind::Plain],
        Encryption::Always(tls) => vec![with(tls, false)?],
    })
}

/// Nothing is encrypted in a build without TLS; the configuration refuses to ask for it.
#[cfg(not(feature = "tls"))]
pub(super) fn kinds(address: &Address, host: &str) -> Result<Vec<Kind>, Refusal> {
    match &address.encryption {
        Encryption::Always(_) => Err(Refusal(format!("{host}: this program has no TLS"))),
        _ => Ok(vec![Kind::Plain]),
    }
}

impl Kind {
    /// Makes a connection of this kind, as a part of a step that may take `step`; it may be plain
    /// where TLS is optional.
    ///
    /// # Errors
    /// A sentence that names the setting.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables))]
    pub(super) fn connect(&self, socket: Timed, step: Duration) -> Result<Wire, Refusal> {
        match self {
            Kind::Plain => Ok(Wire::Plain(socket)),
            #[cfg(feature = "tls")]
            Kind::Tls {
                client,
                direct,
                optional,
            } => encrypt(client, *direct, *optional, socket, step),
        }
    }

    /// The kind for a connection beside `wire`, which is of this kind: with TLS alone where that
    /// has TLS, whatever the server then says. Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file which cannot be used.
    pub(super) fn beside(&self, wire: &Wire) -> Result<Kind, Refusal> {
        match (self, wire) {
            #[cfg(feature = "tls")]
            (Kind::Tls { client, direct, .. }, Wire::Tls(..)) => Ok(Kind::Tls {
                client: Box::new(client.anew(&[PROTOCOL])?),
                direct: *direct,
                optional: false,
            }),
            _ => Ok(Kind::Plain),
        }
    }
}

#[cfg(feature = "tls")]
fn encrypt(
    client: &Client,
    direct: bool,
    optional: bool,
    mut socket: Timed,
    step: Duration,
) -> Result<Wire, Refusal> {
    let limit = step.saturating_sub(BEFORE_THE_STEP_ENDS);
    socket.set_deadline(Instant::now() + limit);
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => client.late(limit),
        _ => client.refusal(&error),
    };
    if !direct {
        let mut answer = [0];
        socket.write_all(&SSL_REQUEST).map_err(broken)?;
        // One byte alone: whatever somebody sent behind it is no part of the encrypted session.
        socket.read_exact(&mut answer).map_err(broken)?;
        match answer[0] {
            b'S' => {}
            b'N' if optional => return Ok(Wire::Plain(socket)),
            _ => return Err(client.not_offered()),
        }
    }
    let wire =
        Wire::encrypted(socket, client.clone()).map_err(|error| match Refusal::among(&error) {
            Some(refusal) if error.kind() != io::ErrorKind::TimedOut => refusal.clone(),
            _ => broken(error),
        })?;
    if direct && wire.protocol() != Some(PROTOCOL) {
        return Err(Refusal(
            "what answers the TLS of sslnegotiation=direct is no PostgreSQL".to_owned(),
        ));
    }
    Ok(wire)
}

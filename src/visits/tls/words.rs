//! The sentences about TLS that failed: whose certificate, what is wrong with it, and the setting
//! that asks for better.

use std::io;

use rustls::{AlertDescription as Alert, CertificateError, Error, OtherError};

use super::{Refusal, Roots, Tls, Verify};

impl Refusal {
    /// What the library found.
    pub(super) fn of(error: &Error, tls: &Tls, host: &str) -> Refusal {
        let names = tls.settings;
        let mode = names.mode;
        Refusal(match error {
            Error::InvalidCertificate(error) => certificate(error, tls, host),
            Error::AlertReceived(alert) => match alert {
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnknownCA
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::AccessDenied => format!(
                    "{host} does not accept the client certificate ({alert:?}): see {} and {}",
                    names.certificate, names.key
                ),
                Alert::HandshakeFailure if tls.identity.is_none() => format!(
                    "{host} breaks off the TLS handshake ({alert:?}): it may ask for a client \
                     certificate, see {} and {}; or speak none of this client's ciphers, see {mode}",
                    names.certificate, names.key
                ),
                alert => format!("{host} breaks off the TLS that {mode} asks for ({alert:?})"),
            },
            Error::InvalidMessage(_) => {
                format!("{host} answers with something else than TLS, which {mode} asks for")
            }
            Error::PeerIncompatible(error) => {
                format!("{host} speaks neither TLS 1.2 nor 1.3 as {mode} asks for it ({error:?})")
            }
            error => format!("the TLS with {host} that {mode} asks for failed: {error}"),
        })
    }

    /// A connection that broke in the handshake.
    pub(super) fn broken(error: &io::Error, tls: &Tls, host: &str) -> Refusal {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => error.to_string(),
        };
        Refusal(format!(
            "no TLS handshake with {host}, which {} asks for: {why}",
            tls.settings.mode
        ))
    }
}

fn certificate(error: &CertificateError, tls: &Tls, host: &str) -> String {
    use CertificateError as Of;
    let names = tls.settings;
    match error {
        Of::UnknownIssuer => match &tls.roots {
            Roots::Public => format!(
                "no public authority vouches for the certificate of {host}: name its root in {}",
                names.roots
            ),
            Roots::File { path, setting } => format!(
                "none of the roots in {setting} ({}) vouches for the certificate of {host}",
                path.display()
            ),
        },
        Of::NotValidForNameContext { .. } | Of::NotValidForName => {
            // By public roots anybody has a certificate for some name.
            let advice = match (names.any_name, &tls.roots) {
                (Some(word), Roots::File { setting, .. }) if *setting == names.roots => {
                    format!(", or set {} to {word}", names.mode)
                }
                _ => String::new(),
            };
            format!(
                "{host} has another's certificate, which {} does not accept: {error}; connect by \
                 a name that it is for{advice}",
                names.mode
            )
        }
        // An error of the chain, or of the handshake.
        Of::BadSignature => format!(
            "{host} has a certificate that is not its own, or not its issuer's: {error} ({})",
            names.mode
        ),
        Of::Other(OtherError(other))
            if other.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            format!(
                "{host} has a certificate that is for an authority (CA:TRUE): give it one for a \
                 server, or name its own in {}",
                names.roots
            )
        }
        Of::Expired
        | Of::ExpiredContext { .. }
        | Of::NotValidYet
        | Of::NotValidYetContext { .. } => {
            format!(
                "{host} has a certificate of another time, which {} does not accept: {error}",
                names.mode
            )
        }
        error => {
            let asks = match tls.verify {
                Verify::Nothing => "cannot be read",
                _ => "is not accepted",
            };
            format!("the certificate of {host} {asks} ({}): {error}", names.mode)
        }
    }
}

//! The client's side of a handshake, made from the settings and their files for each connection.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, CommonState, RootCertStore};

use super::provider;
use super::verifier::Verifier;
use super::{Identity, Refusal, Roots, Tls, Verify};

/// No file of certificates is larger than this; a pipe or a device is no file.
const FILE_BYTES_AT_MOST: u64 = 8 << 20;

/// What one connection's handshake needs.
#[derive(Debug, Clone)]
pub(in crate::visits) struct Client {
    pub(in crate::visits) config: Arc<ClientConfig>,
    pub(in crate::visits) name: ServerName<'static>,
    tls: Tls,
    host: String,
}

impl Client {
    /// Reads the files. `protocols` are what to say the connection is for, in ALPN.
    ///
    /// # Errors
    /// A sentence that names the setting whose file cannot be used.
    pub(in crate::visits) fn new(
        tls: &Tls,
        host: &str,
        protocols: &[&[u8]],
    ) -> Result<Client, Refusal> {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if tls.verify == Verify::Name => {
                return Err(Refusal(format!(
                    "no certificate can be for {host:?}: it is no name and no address"
                )));
            }
            // As an address, which is never sent (RFC 6066, section 3).
            Err(_) => ServerName::from(IpAddr::from([0; 4])),
        };
        let verifier = verifier(tls)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::new()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Refusal(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = load(identity, tls)?;
                let refused = |error| {
                    Refusal(format!(
                        "{} and {} do not fit together: {error}",
                        tls.settings.certificate, tls.settings.key
                    ))
                };
                builder.with_client_auth_cert(chain, key).map_err(refused)?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // Each connection has settings of its own, so nothing could be resumed.
        config.resumption = Resumption::disabled();
        Ok(Client {
            config: Arc::new(config),
            name,
            tls: tls.clone(),
            host: host.to_owned(),
        })
    }

    /// The same with the files as they are now.
    ///
    /// # Errors
    /// As for [`Client::new`].
    pub(in crate::visits) fn anew(&self, protocols: &[&[u8]]) -> Result<Client, Refusal> {
        Client::new(&self.tls, &self.host, protocols)
    }

    /// An error of the encrypted connection, in a sentence that names the setting; `None` where the
    /// connection below it failed.
    pub(in crate::visits) fn explain(&self, error: &io::Error) -> Option<Refusal> {
        let found = error.get_ref()?.downcast_ref()?;
        Some(Refusal::of(found, &self.tls, &self.host))
    }

    /// An error of the handshake.
    pub(in crate::visits) fn refusal(&self, error: &io::Error) -> Refusal {
        self.explain(error)
            .unwrap_or_else(|| Refusal::broken(error, &self.tls, &self.host))
    }

    /// A sentence about a handshake that was not done in that time.
    pub(in crate::visits) fn late(&self, limit: Duration) -> Refusal {
        self.refusal(&io::Error::other(format!("no answer in {limit:?}")))
    }

    /// A sentence about a server that does not want to encrypt.
    pub(in crate::visits) fn not_offered(&self) -> Refusal {
        Refusal(format!(
            "{} offers no TLS, which {} asks for",
            self.host, self.tls.settings.mode
        ))
    }

    /// The protocol, the cipher, and what was verified.
    pub(in crate::visits) fn describe(&self, connection: &CommonState) -> String {
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS 1.2",
        };
        let cipher = connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("an unknown cipher");
        let roots = match &self.tls.roots {
            Roots::Public => "public roots".to_owned(),
            Roots::File { path, setting } => format!("{setting} {}", path.display()),
        };
        let verified = match self.tls.verify {
            Verify::Nothing => format!("nothing verified ({})", self.tls.settings.mode),
            Verify::Chain => format!("certificate verified by {roots}, its name not"),
            Verify::Name => format!("certificate verified by {roots}, for {}", self.host),
        };
        let own = match &self.tls.identity {
            Some(_) => ", with a client certificate",
            None => "",
        };
        format!("{version}, {cipher}, {verified}{own}")
    }

    /// Shakes hands over a blocking connection.
    ///
    /// # Errors
    /// A sentence, of the kind of the connection's own error.
    pub(in crate::visits) fn shake_hands(
        &self,
        connection: &mut ClientConnection,
        socket: &mut (impl io::Read + io::Write),
    ) -> io::Result<()> {
        while connection.is_handshaking() {
            match connection.complete_io(socket) {
                Ok(_) => {}
                Err(error) => return Err(io::Error::new(error.kind(), self.refusal(&error))),
            }
        }
        Ok(())
    }
}

fn verifier(tls: &Tls) -> Result<Verifier, Refusal> {
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    match &tls.roots {
        _ if tls.verify == Verify::Nothing => {}
        Roots::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::File { path, setting } => {
            certificates = pem_certificates(path, setting)?;
            let found = certificates.iter().cloned();
            let (usable, unusable_ones) = roots.add_parsable_certificates(found);
            tell_unusable(path, setting, unusable_ones);
            if usable == 0 {
                return Err(unusable(
                    setting,
                    path,
                    "none of its certificates can be a root",
                ));
            }
        }
    }
    Ok(Verifier {
        verify: tls.verify,
        roots,
        certificates,
        algorithms: provider::SIGNATURES,
    })
}

/// Warns of roots that do not count, once for each file until their number changes.
fn tell_unusable(path: &Path, setting: &str, count: usize) {
    static TOLD: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let before = told.insert(path.to_owned(), count).unwrap_or(0);
    if count != 0 && count != before {
        log::warn!(
            "{setting}: {count} of the certificates in {:?} cannot be roots, and do not count",
            path.display()
        );
    }
}

fn load(
    identity: &Identity,
    tls: &Tls,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Refusal> {
    let chain = pem_certificates(&identity.certificate, tls.settings.certificate)?;
    let setting = tls.settings.key;
    let text = read(&identity.key, setting)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let what = if text.windows(9).any(|word| word == b"ENCRYPTED") {
            "its key is encrypted, and it takes one that is not"
        } else {
            "it holds no private key in PEM"
        };
        unusable(setting, &identity.key, what)
    })?;
    Ok((chain, key))
}

/// The certificates in that file, at least one.
fn pem_certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let text = read(path, setting)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(unusable(setting, path, "it holds no certificate in PEM")),
    }
}

fn read(path: &Path, setting: &str) -> Result<Vec<u8>, Refusal> {
    let file = fs::metadata(path).map_err(|error| unusable(setting, path, &error.to_string()))?;
    if !file.is_file() || file.len() > FILE_BYTES_AT_MOST {
        return Err(unusable(setting, path, "it is no file of a fitting size"));
    }
    fs::read(path).map_err(|error| unusable(setting, path, &error.to_string()))
}

fn unusable(setting: &str, path: &Path, why: &str) -> Refusal {
    Refusal(format!(
        "{setting}: {:?} cannot be used: {why}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    /// The authorities that the providers of docs/operations.md name.
    #[test]
    fn the_roots_of_the_usual_providers_are_built_in() {
        for name in [
            "ISRG Root X1",
            "Amazon Root CA 1",
            "DigiCert Global Root G2",
            "Microsoft RSA Root Certificate Authority 2017",
        ] {
            let is_named = |subject: &[u8]| {
                subject
                    .windows(name.len())
                    .any(|window| window == name.as_bytes())
            };
            let mut roots = webpki_roots::TLS_SERVER_ROOTS.iter();
            assert!(roots.any(|root| is_named(&root.subject)), "{name}");
        }
    }
}

//! The verification of a server's certificate, by webpki, as far as the settings ask for it.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    verify_server_cert_signed_by_trust_anchor as verify_chain, verify_server_name,
};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};

use super::Verify;
use super::certificate::public_key;

/// A verifier for one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) verify: Verify,
    pub(super) roots: RootCertStore,
    /// The roots of a file, whole.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// A certificate that signs others stands for no server, says the verifier, which has looked at
    /// its dates by then and at nothing else. It does where it is itself, byte for byte, one of the
    /// roots, so that nobody else has to vouch for it: that is what `openssl req -x509` makes,
    /// named as its own root.
    fn vouches_for_itself(
        &self,
        certificate: &CertificateDer<'_>,
        error: Error,
    ) -> Result<(), Error> {
        match &error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(other)))
                if other.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
                    && self.certificates.contains(certificate) =>
            {
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify != Verify::Nothing {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_chain(&parsed, &self.roots, intermediates, now, algorithms)
                .or_else(|error| self.vouches_for_itself(end_entity, error))?;
            if self.verify == Verify::Name {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.verify != Verify::Nothing {
            return verify_tls12_signature(message, certificate, signature, &self.algorithms);
        }
        // The library reads no certificate of version 1. Whoever has the key is still the one whom
        // channel binding is about.
        let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        let key = webpki::RawPublicKeyEntity::try_from(&key)
            .map_err(|_| CertificateError::BadEncoding)?;
        let mut known = self.algorithms.mapping.iter();
        let (_, algorithms) = known
            .find(|(scheme, _)| *scheme == signature.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let is_good = algorithms.iter().any(|algorithm| {
            key.verify_signature(*algorithm, message, signature.signature())
                .is_ok()
        });
        is_good
            .then(HandshakeSignatureValid::assertion)
            .ok_or(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.verify != Verify::Nothing {
            return verify_tls13_signature(message, certificate, signature, &self.algorithms);
        }
        let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

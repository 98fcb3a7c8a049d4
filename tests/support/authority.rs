//! An authority of the test's own, and what it vouches for: certificates of servers and of clients.
//!
//! With `SUITE_TLS` in the environment every server of a run speaks TLS, and the addresses that the
//! suite gives ask for it.

use std::path::PathBuf;
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, date_time_ymd,
};

use super::scratch::{self, Folder};

/// An authority: who trusts it trusts what it has issued.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What vouches for every server of a run, where all of them speak TLS.
#[derive(Debug)]
pub struct Everywhere {
    pub authority: Authority,
    pub server: Pair,
    /// The file of the authority's certificate.
    pub root: PathBuf,
}

/// Whether every server of this run speaks TLS, and by which certificate.
pub fn everywhere() -> Option<&'static Everywhere> {
    static EVERYWHERE: OnceLock<Option<Everywhere>> = OnceLock::new();
    let made = EVERYWHERE.get_or_init(|| {
        std::env::var_os("SUITE_TLS")?;
        let authority = Authority::new("the run's");
        let root = scratch::fresh_path("root");
        std::fs::write(&root, authority.pem()).expect("a file for TLS");
        let server = authority.issue(&["localhost", "127.0.0.1"]);
        Some(Everywhere {
            authority,
            server,
            root,
        })
    });
    made.as_ref()
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        Authority::signing_by(name, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// One whose signatures have the hash SHA-384.
    pub fn with_sha_384(name: &str) -> Authority {
        Authority::signing_by(name, &PKCS_ECDSA_P384_SHA384)
    }

    fn signing_by(name: &str, algorithm: &'static SignatureAlgorithm) -> Authority {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let issuer = CertifiedIssuer::self_signed(authority(name), key);
        Authority {
            issuer: issuer.expect("an authority"),
        }
    }

    /// One that another vouches for.
    pub fn below(other: &Authority, name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(authority(name), key, &other.issuer);
        Authority {
            issuer: issuer.expect("an authority"),
        }
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A file of it.
    pub fn file(&self, folder: &Folder, name: &str) -> PathBuf {
        folder.file(name, &self.pem())
    }

    /// A certificate for those names and addresses.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.sign(params(names, "server"))
    }

    /// One that was good until long ago.
    pub fn expired(&self, names: &[&str]) -> Pair {
        let mut params = params(names, "server");
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    /// A certificate that nobody but itself vouches for, as `openssl req -x509` makes it.
    pub fn self_signed(names: &[&str]) -> Pair {
        let mut params = params(names, "server");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Files of both.
    pub fn files(&self, folder: &Folder, name: &str) -> (PathBuf, PathBuf) {
        (
            folder.file(&format!("{name}.crt"), &self.certificate),
            folder.file(&format!("{name}.key"), &self.key),
        )
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(&[], name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names for a certificate");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

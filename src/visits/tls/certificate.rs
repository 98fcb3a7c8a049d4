//! What a connection needs of a server's certificate beside its verification: its public key, and
//! the hash that channel binding is about.
//!
//! Reads only as much of the structure as that takes (RFC 5280, section 4.1), since certificates of
//! version 1, which the verifier refuses to read, are in use where nothing is verified.

use ring::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

/// Tag of a certificate's version, which only newer ones have.
const VERSION: u8 = 0xa0;

/// One element in DER (X.690, section 8.1), and what follows it.
struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&[_tag, first], after) = der.split_first_chunk::<2>()?;
    let (length, after) = match first {
        0..=0x7f => (usize::from(first), after),
        0x81..=0x84 => {
            let (bytes, after) = after.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
            (length, after)
        }
        _ => return None,
    };
    let (content, rest) = after.split_at_checked(length)?;
    Some(Element {
        whole: &der[..der.len() - rest.len()],
        content,
        rest,
    })
}

/// What follows so many elements.
fn skip(der: &[u8], elements: usize) -> Option<&[u8]> {
    (0..elements).try_fold(der, |der, _| Some(element(der)?.rest))
}

/// The server's public key.
pub(super) fn public_key(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let signed = element(element(certificate)?.content)?.content;
    let versions = usize::from(signed.first() == Some(&VERSION));
    // Serial number, signature, issuer, validity, subject.
    let key = element(skip(signed, versions + 5)?)?.whole;
    Some(SubjectPublicKeyInfoDer::from(key.to_vec()))
}

/// The `tls-server-end-point` of RFC 5929: the certificate's hash by the algorithm that it is
/// signed with, SHA-256 instead of those that are broken. `None` where its signature has none.
pub(in crate::visits) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let signature = element(skip(element(certificate)?.content, 1)?)?.content;
    let hash = digest::digest(signature_hash(signature)?, certificate);
    Some(hash.as_ref().to_vec())
}

/// The hash of a signature's algorithm (RFC 3279, 4055 and 5758).
fn signature_hash(algorithm: &[u8]) -> Option<&'static Algorithm> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let Element {
        content: name,
        rest: parameters,
        ..
    } = element(algorithm)?;
    if let Some(kind) = name.strip_prefix(RSA) {
        return match kind {
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            [10] => pss_hash(parameters),
            _ => None,
        };
    }
    match name.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&SHA256),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// The hash in the parameters of RSASSA-PSS (RFC 4055, section 3.1): a field of its own, SHA-1
/// where it is missing.
fn pss_hash(parameters: &[u8]) -> Option<&'static Algorithm> {
    const HASH_FIELD: u8 = 0xa0;
    const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
    /// 2.16.840.1.101.3.4.2, whose first three are of the SHA-2 family.
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let fields = element(parameters)?.content;
    if fields.first() != Some(&HASH_FIELD) {
        return Some(&SHA256);
    }
    let algorithm = element(element(fields)?.content)?.content;
    let name = element(algorithm)?.content;
    if name == SHA1 {
        return Some(&SHA256);
    }
    match name.strip_prefix(SHA2)? {
        [1] => Some(&SHA256),
        [2] => Some(&SHA384),
        [3] => Some(&SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that a server sends as its certificate ends the process.
    #[test]
    fn what_is_no_certificate_has_neither_key_nor_hash() {
        for der in [
            &b""[..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 2, 0x30, 0],
            &[0x30, 4, 0x30, 0, 0x30, 0],
            &[0xff; 64],
        ] {
            let certificate = CertificateDer::from(der);
            assert!(public_key(&certificate).is_none(), "{der:?}");
            assert!(end_point(&certificate).is_none(), "{der:?}");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let rsa = |kind| vec![6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, kind, 5, 0];
        let ecdsa = |kind| vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, kind];
        let with_parameters = |fields: &[u8]| {
            let mut whole = vec![6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10, 0x30];
            whole.push(u8::try_from(fields.len()).expect("a short length"));
            [&whole, fields].concat()
        };
        let sha2 = |kind| [0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, kind];
        let pss = |kind| with_parameters(&[&[0xa0, 13][..], &sha2(kind)].concat());
        // Its mask has a hash too, which is another's matter.
        let mask_alone = with_parameters(&[&[0xa1, 13][..], &sha2(3)].concat());
        let sha1 = with_parameters(&[0xa0, 9, 0x30, 7, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a]);
        for (algorithm, hash) in [
            (rsa(5), Some(&SHA256)),
            (rsa(11), Some(&SHA256)),
            (rsa(12), Some(&SHA384)),
            (rsa(13), Some(&SHA512)),
            (ecdsa(2), Some(&SHA256)),
            (ecdsa(3), Some(&SHA384)),
            (ecdsa(4), Some(&SHA512)),
            (pss(1), Some(&SHA256)),
            (pss(2), Some(&SHA384)),
            (pss(3), Some(&SHA512)),
            // SHA3-256.
            (pss(8), None),
            (with_parameters(&[]), Some(&SHA256)),
            (mask_alone, Some(&SHA256)),
            (sha1, Some(&SHA256)),
            // Ed25519 has none.
            (vec![6, 3, 0x2b, 0x65, 0x70], None),
        ] {
            assert_eq!(signature_hash(&algorithm), hash, "{algorithm:?}");
        }
    }
}

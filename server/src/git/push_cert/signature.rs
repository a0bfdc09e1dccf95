//! Signatures of certificates: those that SSH keys make (`gpg.format=ssh`) are verified, others are recorded unseen.
//!
//! A signature is `verified` if it is right and the key is one that may sign now. The server's own clock says what now is, not
//! the certificate's date, which is the signer's word. SHA-1 is not taken, nor a key of a security device that nobody
//! touched.
//! Source: OpenSSH's `PROTOCOL.sshsig`; git's `gpg-interface.c`.

use govc_engine::SignatureStatus;
use russh::keys::ssh_key::SshSig;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::allowed_signers::AllowedSigners;
use super::certificate::{Certificate, SignatureKind};

/// What git's signatures are made for.
pub(super) const NAMESPACE: &str = "git";

/// The longest signature that is looked at: far more than the largest key makes.
const SIGNATURE_LEN_MAX: usize = 64 << 10;

/// Behind the signature that a security device makes: a byte of flags and a counter.
const DEVICE_TRAILER_LEN: usize = 5;

/// Whether somebody touched the device.
const TOUCHED: u8 = 1;

/// What is known of a signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) status: SignatureStatus,
    /// The fingerprint of the key, or nothing.
    pub(super) key: String,
    /// Whose key it is, if it is verified.
    pub(super) signer: String,
}

/// Looks at a certificate's signature, at a time in seconds since the epoch.
pub(super) fn check(certificate: &Certificate, signers: Option<&AllowedSigners>, now_seconds: i64) -> Found {
    match certificate.kind() {
        SignatureKind::Ssh => ssh(certificate.signed(), certificate.signature(), signers, now_seconds),
        SignatureKind::OpenPgp | SignatureKind::X509 => found(SignatureStatus::Unchecked, String::new()),
    }
}

fn ssh(signed: &[u8], signature: &[u8], signers: Option<&AllowedSigners>, now_seconds: i64) -> Found {
    let read = Some(signature.trim_ascii()).filter(|signature| signature.len() <= SIGNATURE_LEN_MAX);
    let Some(signature) = read.and_then(|signature| SshSig::from_pem(signature).ok()) else {
        return found(SignatureStatus::Bad, String::new());
    };
    let key = PublicKey::new(signature.public_key().clone(), "");
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    if !is_known(&key.algorithm()) {
        return found(SignatureStatus::Unchecked, fingerprint);
    }
    if !is_taken(&signature) || key.verify(NAMESPACE, signed, &signature).is_err() {
        return found(SignatureStatus::Bad, fingerprint);
    }
    match signers.and_then(|signers| signers.find(&key, now_seconds)) {
        Some(signer) => Found { status: SignatureStatus::Verified, key: fingerprint, signer },
        None => found(SignatureStatus::Untrusted, fingerprint),
    }
}

fn found(status: SignatureStatus, key: String) -> Found {
    Found { status, key, signer: String::new() }
}

/// Whether what a key of this kind signs can be verified.
fn is_known(algorithm: &Algorithm) -> bool {
    use Algorithm::{Ecdsa, Ed25519, Rsa, SkEcdsaSha2NistP256, SkEd25519};
    matches!(algorithm, Ed25519 | Ecdsa { .. } | Rsa { .. } | SkEd25519 | SkEcdsaSha2NistP256)
}

/// Whether the signature is made in a way that is taken.
fn is_taken(signature: &SshSig) -> bool {
    match signature.algorithm() {
        Algorithm::Rsa { hash } => hash.is_some(),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            let bytes = signature.signature_bytes();
            let flags = bytes.len().checked_sub(DEVICE_TRAILER_LEN).and_then(|at| bytes.get(at));
            flags.is_some_and(|flags| flags & TOUCHED != 0)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::Ed25519Keypair;
    use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
    use russh::keys::ssh_key::{LineEnding, Signature};
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::git::pkt::Reader;
    use crate::git::push_request::PushRequest;

    const TEXT: &[u8] = b"certificate version 0.1\n";

    fn key(number: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
    }

    fn pem(signature: &SshSig) -> String {
        signature.to_pem(LineEnding::LF).unwrap()
    }

    fn signers(key: &PrivateKey) -> (tempfile::TempDir, AllowedSigners) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signers");
        std::fs::write(&path, format!("ada@example.org {}\n", key.public_key().to_openssh().unwrap())).unwrap();
        let signers = AllowedSigners::open(path).unwrap();
        (folder, signers)
    }

    #[test]
    fn a_signature_is_of_one_text_and_for_git() {
        let (_folder, signers) = signers(&key(1));
        let sign = |number, namespace: &str| pem(&key(number).sign(namespace, HashAlg::Sha512, TEXT).unwrap());
        let status = |text: &[u8], signature: &str, signers| ssh(text, signature.as_bytes(), signers, 0).status;
        let good = sign(1, NAMESPACE);
        let verified = ssh(TEXT, good.as_bytes(), Some(&signers), 0);
        assert_eq!((verified.status, &*verified.signer), (SignatureStatus::Verified, "ada@example.org"));
        assert_eq!(verified.key, key(1).public_key().fingerprint(HashAlg::Sha256).to_string());
        assert_eq!(status(TEXT, &good, None), SignatureStatus::Untrusted);
        assert_eq!(status(TEXT, &sign(2, NAMESPACE), Some(&signers)), SignatureStatus::Untrusted);
        assert_eq!(status(b"certificate version 0.1\nx", &good, Some(&signers)), SignatureStatus::Bad);
        assert_eq!(status(TEXT, &sign(1, "file"), Some(&signers)), SignatureStatus::Bad);
        for bad in
            [String::new(), good.replace("SSH", "PGP"), good.replace('A', "B"), good.replace("-----END", "-----")]
        {
            assert_eq!(status(TEXT, &bad, Some(&signers)), SignatureStatus::Bad, "{bad}");
        }
        let long = good.replace("\n-----END", &format!("\n{}\n-----END", "A".repeat(SIGNATURE_LEN_MAX)));
        assert_eq!(status(TEXT, &long, Some(&signers)), SignatureStatus::Bad);
    }

    /// Certificates that OpenSSH has signed with keys of each kind, and then with any byte of the signature another one.
    #[test]
    fn what_is_changed_is_never_right() {
        for kind in ["ed25519", "ecdsa", "rsa"] {
            let seed = format!("{}/../fuzz/seeds/pkt_line/v0-signed-{kind}", env!("CARGO_MANIFEST_DIR"));
            let mut request = PushRequest::default();
            request.read(&mut Reader::new(&std::fs::read(seed).unwrap()[..]), 10).unwrap();
            let certificate = request.certificate.unwrap();
            let (signed, signature) = (certificate.signed(), certificate.signature());
            assert_eq!(ssh(signed, signature, None, 0).status, SignatureStatus::Untrusted, "{kind}");
            let armor = signature.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let body: Vec<usize> = (armor..signature.len() - 31).filter(|at| signature[*at] != b'\n').collect();
            for (at, letter) in body.iter().zip(b"AQghwx49+/".iter().cycle()) {
                let mut changed = signature.to_vec();
                changed[*at] = if changed[*at] == *letter { b'B' } else { *letter };
                let status = ssh(signed, &changed, None, 0).status;
                assert!(matches!(status, SignatureStatus::Bad | SignatureStatus::Unchecked), "{kind} {at}: {status:?}");
            }
        }
    }

    #[test]
    fn a_security_device_must_have_been_touched() {
        let pair = Ed25519Keypair::from_seed(&[3; 32]);
        let public = KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(pair.public.0), "ssh:"));
        let sign = |flags: u8| {
            let message = SshSig::signed_data(NAMESPACE, HashAlg::Sha256, TEXT).unwrap();
            let trailer = [flags, 0, 0, 0, 9];
            let data = [&Sha256::digest(b"ssh:")[..], &trailer, &Sha256::digest(&message)[..]].concat();
            let raw = russh::keys::signature::Signer::try_sign(&PrivateKey::from(pair.clone()), &data).unwrap();
            let raw = [raw.as_bytes(), &trailer].concat();
            let signature = Signature::new(Algorithm::SkEd25519, raw).unwrap();
            pem(&SshSig::new(public.clone(), NAMESPACE, HashAlg::Sha256, signature).unwrap())
        };
        assert_eq!(ssh(TEXT, sign(1).as_bytes(), None, 0).status, SignatureStatus::Untrusted);
        assert_eq!(ssh(TEXT, sign(0).as_bytes(), None, 0).status, SignatureStatus::Bad);
    }
}

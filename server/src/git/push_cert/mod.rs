//! Push certificates: what a client signs that pushes with `--signed`, and what that is worth.
//!
//! | file | owns |
//! |---|---|
//! | `certificate` | the text, and what it says |
//! | `nonce` | that it was made for this repository, and now |
//! | `signature` | whether the signature is of this text, and by which key |
//! | `allowed_signers` | whose key that is |
//!
//! A certificate is judged once, when it comes, and recorded with the version that the push makes, whatever the judgement:
//! a repository's rules say which pushes are refused for it, as git leaves it to hooks.
//! Source: git's `Documentation/gitprotocol-pack`, "Push Certificate", and `builtin/receive-pack.c`.

mod allowed_signers;
mod certificate;
mod nonce;
mod signature;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use govc_engine::{Certified, NonceStatus, RepoName, SignatureStatus, SignedPush, Store};

use crate::config::SigningConfig;
use allowed_signers::AllowedSigners;
pub(crate) use allowed_signers::fuzz as fuzz_allowed_signers;
pub(crate) use certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use nonce::Nonces;

/// Judges certificates.
pub(crate) struct PushCerts {
    nonces: Nonces,
    signers: Option<AllowedSigners>,
}

impl PushCerts {
    /// With the store's seed and the file of those who may sign, if one is set. Blocks.
    ///
    /// # Errors
    /// When that file cannot be read, or the store's seed cannot be read or made; the text names which.
    pub(crate) fn open(config: &SigningConfig, store: &Store) -> Result<Self, String> {
        let signers = config.allowed_signers.as_deref().map(|path: &Path| {
            AllowedSigners::open(path.to_owned())
                .map_err(|error| format!("git.allowed_signers: the file {} cannot be read: {error}", path.display()))
        });
        Ok(Self { nonces: Nonces::open(store, config.nonce_slop)?, signers: signers.transpose()? })
    }

    /// A nonce for a push that is about to begin.
    pub(crate) fn nonce(&self, repo: &RepoName) -> String {
        self.nonces.make(repo, millis_of(SystemTime::now()))
    }

    /// What a certificate of a push to `repo` is worth that came at that time. `given` is the nonce that this very client got,
    /// where the connection tells.
    pub(crate) fn judge(
        &self,
        repo: &RepoName,
        certificate: &Certificate,
        given: Option<&str>,
        came: SystemTime,
    ) -> Certified {
        let came = millis_of(came);
        let found = signature::check(certificate, self.signers.as_ref(), came.div_euclid(1000));
        Certified {
            text: Bytes::clone(&certificate.text),
            nonce: self.nonces.check(repo, certificate.nonce(), given, came),
            signature: found.status,
            key: found.key.into(),
            signer: found.signer.into(),
        }
    }

    /// Why a push is not what a repository wants; `None` if it is.
    pub(crate) fn refusal(&self, wanted: SignedPush, judged: Option<&Certified>) -> Option<String> {
        if wanted == SignedPush::None {
            return None;
        }
        let Some(judged) = judged else { return Some("a signed push is required (git push --signed)".to_owned()) };
        let reason = match (judged.nonce, judged.signature, wanted) {
            (NonceStatus::Missing, ..) => "the push certificate has no nonce".to_owned(),
            (NonceStatus::Bad, ..) => "the push certificate was not made for this push".to_owned(),
            (NonceStatus::Slop(_), ..) => "the push certificate is too old; push again".to_owned(),
            (_, SignatureStatus::Bad, _) => "the push certificate's signature is wrong".to_owned(),
            (_, SignatureStatus::Verified, _) | (_, _, SignedPush::None | SignedPush::Recorded) => return None,
            (_, SignatureStatus::Unchecked, _) => {
                "signatures of this kind are not verified here; sign with SSH".to_owned()
            }
            (_, SignatureStatus::Untrusted, _) if self.signers.is_none() => {
                "this server knows nobody who may sign (git.allowed_signers)".to_owned()
            }
            (_, SignatureStatus::Untrusted, _) => format!("the key {} may not sign pushes here", judged.key),
        };
        Some(reason)
    }
}

/// Looks at a certificate's signature, which nobody here can have made.
pub(super) fn fuzz_certificate(certificate: &Certificate) {
    let found = signature::check(certificate, None, 0);
    assert_ne!(found.status, SignatureStatus::Verified, "nobody may sign");
}

fn millis_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

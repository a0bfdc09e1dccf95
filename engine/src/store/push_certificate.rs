//! Push certificates: what somebody has signed that pushed, kept with the version that the push made.
//!
//! The text is a blob of the repository, as git keeps it, so it is stored, copied and counted like every other object; nothing
//! but the version leads to it, and it goes when the version is forgotten. What was found out about it when it came
//! stands in the version itself: keys are withdrawn later, and what they have signed stays signed.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Error, Result,
    backend::key::{Reader, put_bytes, put_varint},
    object::{ObjectFormat, Oid},
};

/// A certificate of a push, and what it was found to be when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushCertificate {
    /// The blob of its text.
    pub oid: Oid,
    /// Whose nonce it has.
    pub nonce: NonceStatus,
    /// What its signature is worth.
    pub signature: SignatureStatus,
    /// The fingerprint of the key that signed it; empty if the signature does not say.
    pub key: Arc<str>,
    /// Whose key that is; empty unless the signature is verified.
    pub signer: Arc<str>,
}

/// A certificate on its way into a version, with what it was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The text with its signature.
    pub text: Bytes,
    /// As [`PushCertificate::nonce`].
    pub nonce: NonceStatus,
    /// As [`PushCertificate::signature`].
    pub signature: SignatureStatus,
    /// As [`PushCertificate::key`].
    pub key: Arc<str>,
    /// As [`PushCertificate::signer`].
    pub signer: Arc<str>,
}

/// Whether a certificate was made for this server, repository and moment. The words are git's (`GIT_PUSH_CERT_NONCE_STATUS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceStatus {
    /// The nonce was given out here, not long ago.
    Ok,
    /// It was given out here, so many milliseconds before the push; below zero if a server did whose clock is ahead.
    Slop(i64),
    /// It was not given out for this repository.
    Bad,
    /// There is none.
    Missing,
}

/// What is known of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureStatus {
    /// It is right, and the key is somebody's who may sign here.
    Verified = 0,
    /// It is right, and nothing says whose key it is, or that the key may sign now.
    Untrusted = 1,
    /// It is not of this text.
    Bad = 2,
    /// It is of a kind that is not looked at.
    Unchecked = 3,
}

impl NonceStatus {
    /// Git's word for it, in small letters.
    pub fn as_str(self) -> &'static str {
        match self {
            NonceStatus::Ok => "ok",
            NonceStatus::Slop(_) => "slop",
            NonceStatus::Bad => "bad",
            NonceStatus::Missing => "missing",
        }
    }
}

impl SignatureStatus {
    const ALL: [Self; 4] = [Self::Verified, Self::Untrusted, Self::Bad, Self::Unchecked];

    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            SignatureStatus::Verified => "verified",
            SignatureStatus::Untrusted => "untrusted",
            SignatureStatus::Bad => "bad",
            SignatureStatus::Unchecked => "unchecked",
        }
    }
}

impl PushCertificate {
    /// Bytes of memory that it takes, about.
    pub(super) fn resident_bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.signer.len() + 64
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.oid.as_bytes());
        match self.nonce {
            NonceStatus::Ok => out.push(0),
            NonceStatus::Slop(millis) => {
                out.push(1);
                put_varint(out, millis as u64);
            }
            NonceStatus::Bad => out.push(2),
            NonceStatus::Missing => out.push(3),
        }
        out.push(self.signature as u8);
        put_bytes(out, self.key.as_bytes());
        put_bytes(out, self.signer.as_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>, format: ObjectFormat) -> Result<Self> {
        let unknown = || Error::corrupt("a stored push certificate has unknown parts");
        let oid = reader.oid(format)?;
        let nonce = match reader.byte()? {
            0 => NonceStatus::Ok,
            1 => NonceStatus::Slop(reader.varint()? as i64),
            2 => NonceStatus::Bad,
            3 => NonceStatus::Missing,
            _ => return Err(unknown()),
        };
        let signature = reader.byte()?;
        let signature = SignatureStatus::ALL.into_iter().find(|status| *status as u8 == signature);
        let signature = signature.ok_or_else(unknown)?;
        Ok(Self { oid, nonce, signature, key: reader.string()?.into(), signer: reader.string()?.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_as_they_were_written() {
        for nonce in
            [NonceStatus::Ok, NonceStatus::Slop(-90), NonceStatus::Slop(5), NonceStatus::Bad, NonceStatus::Missing]
        {
            let each = |signature| ObjectFormat::ALL.map(|format| (signature, format));
            for (signature, format) in SignatureStatus::ALL.into_iter().flat_map(each) {
                let (key, signer) = ("SHA256:abc".into(), "ada@example.org".into());
                let certificate = PushCertificate { oid: format.empty_tree(), nonce, signature, key, signer };
                let mut out = Vec::new();
                certificate.write(&mut out);
                let mut reader = Reader::new(&out);
                assert_eq!(PushCertificate::read(&mut reader, format).expect("what was written"), certificate);
                assert!(reader.is_empty());
                for cut in 0..out.len() {
                    assert!(PushCertificate::read(&mut Reader::new(&out[..cut]), format).is_err(), "{cut}");
                }
            }
        }
        let mut out = ObjectFormat::Sha1.empty_tree().as_bytes().to_vec();
        out.extend_from_slice(&[0, 4, 0, 0]);
        assert!(PushCertificate::read(&mut Reader::new(&out), ObjectFormat::Sha1).is_err());
    }
}

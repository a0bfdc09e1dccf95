//! Who the server is: a certificate chain and its private key, read from two PEM files and fit to be used together.
//!
//! Reading and judging are apart: [`Files::read`] touches the disk, [`Identity::new`] is a pure function of the two texts.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error as TlsError, InconsistentKeys, ServerConfig};
use x509_cert::der::Decode as _;

/// Far more than a chain takes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is offered to clients, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The two files of an identity.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The certificate and what leads from it to an authority, in PEM.
    pub(super) cert: PathBuf,
    /// The certificate's private key, in PEM.
    pub(super) key: PathBuf,
}

/// What the files hold.
pub(super) struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    /// Whether everybody on the machine may read the key.
    key_is_open: bool,
}

/// A certificate that can be shown to clients.
pub(super) struct Identity {
    /// How connections are secured with it.
    pub(super) config: Arc<ServerConfig>,
    /// When it begins to be valid.
    pub(super) not_before: SystemTime,
    /// When it ceases to be valid.
    pub(super) not_after: SystemTime,
}

/// Which file is at fault, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Cert(String),
    Key(String),
}

impl Files {
    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// When one is missing, cannot be read or is too large for what it should be.
    pub(super) fn read(&self) -> Result<Texts, Fault> {
        let (cert, _) = read(&self.cert).map_err(|error| Fault::Cert(format!("cannot be read: {error}")))?;
        let (key, mode) = read(&self.key).map_err(|error| Fault::Key(format!("cannot be read: {error}")))?;
        Ok(Texts { cert, key, key_is_open: mode & 0o007 != 0 })
    }

    /// The fault in the words of the settings.
    pub(super) fn describe(&self, fault: &Fault) -> String {
        match fault {
            Fault::Cert(reason) => format!("server.tls_cert: the file {} {reason}", self.cert.display()),
            Fault::Key(reason) => format!("server.tls_key: the file {} {reason}", self.key.display()),
        }
    }
}

fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok((text, mode))
}

impl Texts {
    /// Whether the key's file is open to everybody on the machine.
    pub(super) fn key_is_open(&self) -> bool {
        self.key_is_open
    }

    /// Tells these texts from others, without keeping a private key's.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.cert, &self.key).hash(&mut hasher);
        hasher.finish()
    }
}

impl Identity {
    /// The identity that the texts make.
    ///
    /// # Errors
    /// When a text is not PEM or lacks what it should hold, and when the key is not the certificate's.
    pub(super) fn new(texts: &Texts) -> Result<Self, Fault> {
        let chain = CertificateDer::pem_slice_iter(&texts.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| Fault::Cert(format!("is not PEM: {error}")))?;
        let first = chain.first().ok_or_else(|| Fault::Cert("holds no certificate (BEGIN CERTIFICATE)".to_owned()))?;
        let parsed = x509_cert::Certificate::from_der(first)
            .map_err(|error| Fault::Cert(format!("begins with a certificate that cannot be read: {error}")))?;
        let validity = parsed.tbs_certificate.validity;
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|error| key_fault(&error, &texts.key))?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::Cert(format!("cannot be used: {error}")))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    Fault::Key("holds the key of another certificate than server.tls_cert has".to_owned())
                }
                TlsError::InvalidCertificate(reason) => {
                    Fault::Cert(format!("begins with a certificate that cannot be used: {reason:?}"))
                }
                other => Fault::Key(format!("holds a key that cannot be used: {other}")),
            })?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // Sessions are resumed by tickets, so that clients that come again cost no memory meanwhile.
        config.ticketer = rustls::crypto::ring::Ticketer::new()
            .map_err(|error| Fault::Key(format!("cannot be used, because there are no random numbers: {error}")))?;
        Ok(Self {
            config: Arc::new(config),
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
        })
    }

    /// Why clients will refuse the certificate at `now`, if they will.
    pub(super) fn complaint(&self, now: SystemTime) -> Option<&'static str> {
        if now > self.not_after {
            Some("the certificate has expired")
        } else if now < self.not_before {
            Some("the certificate is not valid yet")
        } else {
            None
        }
    }
}

fn key_fault(error: &PemError, text: &[u8]) -> Fault {
    let is_encrypted = text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
    Fault::Key(match error {
        PemError::NoItemsFound if is_encrypted => {
            "holds an encrypted private key; it must be stored without a passphrase".to_owned()
        }
        PemError::NoItemsFound => "holds no private key (BEGIN PRIVATE KEY)".to_owned(),
        error => format!("is not PEM: {error}"),
    })
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::time::Duration;

    /// A self-signed certificate of `localhost` and its key, in PEM.
    pub(crate) fn pair(valid: Option<(i32, i32)>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        if let Some((from, to)) = valid {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        }
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn identity(cert: &str, key: &str) -> Result<Identity, Fault> {
        Identity::new(&Texts { cert: cert.into(), key: key.into(), key_is_open: false })
    }

    #[test]
    fn a_pair_offers_both_protocols() {
        let (cert, key) = pair(None);
        let identity = identity(&cert, &key).unwrap();
        assert_eq!(identity.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(identity.complaint(SystemTime::now()), None);
    }

    #[test]
    fn times_outside_of_the_validity_are_told() {
        let (cert, key) = pair(Some((2001, 2002)));
        let identity = identity(&cert, &key).unwrap();
        let at = |year: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600 + 86_400 * 30);
        assert_eq!(identity.complaint(at(2000)), Some("the certificate is not valid yet"));
        assert_eq!(identity.complaint(at(2001)), None);
        assert_eq!(identity.complaint(at(2003)), Some("the certificate has expired"));
    }

    #[test]
    fn what_does_not_fit_is_told_by_file() {
        let (cert, key) = pair(None);
        let (other, _) = pair(None);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let cases: [(&str, &str, bool, &str); 8] = [
            ("", &key, true, "no certificate"),
            (&key, &key, true, "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAA", &key, true, "not PEM"),
            (garbage, &key, true, "cannot be read"),
            (&cert, "", false, "no private key"),
            (&cert, &cert, false, "no private key"),
            (&cert, encrypted, false, "passphrase"),
            (&other, &key, false, "another certificate"),
        ];
        for (cert, key, of_cert, words) in cases {
            let fault = identity(cert, key).expect_err(words);
            let reason = match &fault {
                Fault::Cert(reason) if of_cert => reason,
                Fault::Key(reason) if !of_cert => reason,
                other => panic!("{words}: {other:?}"),
            };
            assert!(reason.contains(words), "{reason:?} does not say {words:?}");
        }
    }
}

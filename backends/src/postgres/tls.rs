//! Encryption: which server is trusted, in libpq's words.
//!
//! | `sslmode` | encrypted | checked |
//! |---|---|---|
//! | `disable` | no | nothing |
//! | `prefer` (as if absent) | if the server can | nothing |
//! | `require` | yes | the chain, if `sslrootcert` is given; else nothing |
//! | `verify-ca` | yes | the chain up to `sslrootcert` |
//! | `verify-full` | yes | the chain, and that the certificate is the host's |
//!
//! The cryptography is ring's: its assembly comes ready-made and needs only the C compiler that RocksDB needs
//! anyway, where aws-lc-rs would ask for cmake on some systems.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What sets up TLS for each connection.
pub(super) type Tls = MakeRustlsConnect;

/// Which servers are trusted.
pub(super) enum Trust {
    /// Nothing is encrypted.
    None,
    /// Any, encrypted if it can be.
    Prefer,
    /// Any, encrypted.
    Any,
    /// One whose certificate is signed by an authority of this file.
    Chain(PathBuf),
    /// Such a one, if the certificate names the host.
    ChainAndName(PathBuf),
}

impl Trust {
    pub(super) fn of(mode: Option<&str>, root: Option<PathBuf>) -> BackendResult<Self> {
        let failed = |message: String| BackendError::new(BackendErrorKind::Failed, message);
        match (mode.unwrap_or("prefer"), root) {
            ("disable", _) => Ok(Self::None),
            ("prefer", _) => Ok(Self::Prefer),
            ("require", None) => Ok(Self::Any),
            // As in libpq: who names an authority wants it asked.
            ("require" | "verify-ca", Some(root)) => Ok(Self::Chain(root)),
            ("verify-full", Some(root)) => Ok(Self::ChainAndName(root)),
            (mode @ ("verify-ca" | "verify-full"), None) => Err(failed(format!(
                "sslmode={mode} needs sslrootcert=FILE with the certificates of the authorities to trust, in PEM"
            ))),
            (mode, _) => {
                Err(failed(format!("sslmode={mode:?} is unknown: disable, prefer, require, verify-ca or verify-full")))
            }
        }
    }

    pub(super) fn connector(&self) -> BackendResult<Tls> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Trust::None | Trust::Prefer | Trust::Any => Arc::new(Lenient { chain: None, provider: provider.clone() }),
            Trust::Chain(file) => {
                Arc::new(Lenient { chain: Some(strict(file, &provider)?), provider: provider.clone() })
            }
            Trust::ChainAndName(file) => strict(file, &provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| BackendError::new(BackendErrorKind::Failed, format!("cannot set up TLS: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

fn strict(file: &Path, provider: &Arc<CryptoProvider>) -> BackendResult<Arc<WebPkiServerVerifier>> {
    let failed = |words: String| {
        let message = format!("cannot use the certificates in {} (sslrootcert): {words}", file.display());
        BackendError::new(BackendErrorKind::Failed, message)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| failed(error.to_string()))
}

/// Checks the chain if there is one to check, and never the name. The handshake's signatures are checked always.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name, so this error says that the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

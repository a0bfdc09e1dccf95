//! Push certificates: what was signed of a push, and what that was worth when it came.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use govc_engine::{At, ErrorKind, Kind, NonceStatus, PushCertificate};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer,
    extract::{InRepo, RestText},
    problem::{Code, Problem},
    versions::{numbered, publication},
};
use crate::{app::App, git::push_cert::Certificate};

/// What a push certificate was worth when it came.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertificateInfo {
    /// The id of its text, a blob.
    hash: String,
    /// `verified`: right, and signed by somebody who might; `untrusted`: right, and nothing said whose key it was;
    /// `bad`: not of this text; `unchecked`: of a kind that is not looked at.
    #[schema(value_type = String, example = "verified")]
    signature: &'static str,
    /// The fingerprint of the SSH key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Who may sign with that key, as the server's list of signers had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// `ok`: made for this repository, not long ago; `slop`: longer ago than the server allows; `bad`: for something else;
    /// `missing`.
    #[schema(value_type = String, example = "ok")]
    nonce_status: &'static str,
    /// How old the nonce was, in milliseconds, if that was too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce_slop_ms: Option<i64>,
}

/// A push certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertificateText {
    /// The version that the push made.
    version: u64,
    #[serde(flatten)]
    info: CertificateInfo,
    /// `ssh`, `openpgp` or `x509`.
    #[schema(value_type = String, example = "ssh")]
    format: &'static str,
    /// Who pushed, and when, as the client said.
    pusher: String,
    /// Where to, as the client said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pushee: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    push_options: Vec<String>,
    /// In bytes.
    size: usize,
    /// How `content` says the bytes: `utf-8` or `base64`.
    #[schema(value_type = String, example = "utf-8")]
    encoding: &'static str,
    /// The certificate as it came, with its signature.
    content: String,
}

impl From<&PushCertificate> for CertificateInfo {
    fn from(certificate: &PushCertificate) -> Self {
        let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            hash: certificate.oid.to_string(),
            signature: certificate.signature.as_str(),
            key: given(&certificate.key),
            signer: given(&certificate.signer),
            nonce_status: certificate.nonce.as_str(),
            nonce_slop_ms: match certificate.nonce {
                NonceStatus::Slop(millis) => Some(millis),
                NonceStatus::Ok | NonceStatus::Bad | NonceStatus::Missing => None,
            },
        }
    }
}

/// Show the certificate of a signed push
///
/// It is kept with its version, and as long as that.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/versions/{n}/push-cert", tag = "versions", operation_id = "get_push_cert",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("n" = u64, Path, description = "The version's number"),
    ),
    responses((status = 200, description = "The certificate", body = CertificateText)),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
) -> Result<Response, Problem> {
    let number = numbered(rest.strip_suffix("/push-cert").unwrap_or(&rest))?;
    let found = publication(&app, repo.clone(), At::Version(number)).await?;
    let Some(certificate) = found.certificate else {
        let text = format!("version {number} was not made by a signed push");
        return Err(Problem::new(Code::CertificateNotFound, text));
    };
    let read = move || {
        let text = repo.snapshot().object_of(&certificate.oid, Kind::Blob);
        let text = text.map_err(|error| match error.kind() {
            // It expired meanwhile.
            ErrorKind::NotFound => Problem::new(Code::VersionGone, format!("version {number} is no longer kept")),
            _ => Problem::from(error),
        })?;
        Ok::<_, Problem>(answer::ok(&described(number, &certificate, text)?))
    };
    app.work.run(read).await?
}

fn described(version: u64, recorded: &PushCertificate, text: Bytes) -> Result<CertificateText, Problem> {
    // It was one when it was recorded.
    let certificate = Certificate::parse(text).map_err(|error| Problem::new(Code::Corrupt, error.message()))?;
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (encoding, content) = match std::str::from_utf8(&certificate.text) {
        Ok(text) => ("utf-8", text.to_owned()),
        Err(_) => ("base64", STANDARD.encode(&certificate.text)),
    };
    Ok(CertificateText {
        version,
        info: CertificateInfo::from(recorded),
        format: certificate.kind().as_str(),
        pusher: shown(certificate.pusher()),
        pushee: certificate.pushee().map(shown),
        nonce: certificate.nonce().map(shown),
        push_options: certificate.options().iter().map(|option| shown(option)).collect(),
        size: certificate.text.len(),
        encoding,
        content,
    })
}

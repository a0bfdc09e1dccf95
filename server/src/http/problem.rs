//! Errors as answers: `application/problem+json` (RFC 9457), and the one place that gives errors HTTP statuses.
//!
//! A [`Problem`] is made from a [`Code`] and words; the code decides the status. Clients decide by `code`, people
//! read `detail` (repeated as `error`), and a conflict carries what was `expected` and what is `actual`. What
//! went wrong inside is logged here, once, where the error is consumed.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use govc_engine::{Error, ErrorKind, RefConflict};
use serde::Serialize;
use utoipa::ToSchema;

use crate::work::WorkError;

/// What went wrong, as a word that clients may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidRequest,
    InvalidJson,
    NotAFile,
    NotOwner,
    NotFound,
    RouteNotFound,
    RepoNotFound,
    BranchNotFound,
    TagNotFound,
    RefNotFound,
    FileNotFound,
    VersionNotFound,
    CertificateNotFound,
    RealityNotFound,
    TransactionNotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    AlreadyExists,
    RepoExists,
    BranchExists,
    TagExists,
    Conflict,
    Gone,
    VersionGone,
    RealityGone,
    TransactionGone,
    RealityExists,
    LimitExceeded,
    IdempotencyKeyInUse,
    IdempotencyAnswerLost,
    PreconditionFailed,
    BodyTooLarge,
    ObjectTooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    IdempotencyKeyReused,
    ContentTooLarge,
    Unprocessable,
    Internal,
    Corrupt,
    Busy,
    DeadlineExceeded,
    StoreClosed,
    StorageFull,
    StorageUnavailable,
    OutOfMemoryBudget,
}

impl Code {
    /// The status and the word.
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Code::InvalidRequest => (StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
            Code::InvalidJson => (StatusCode::BAD_REQUEST, "INVALID_JSON"),
            Code::NotAFile => (StatusCode::BAD_REQUEST, "NOT_A_FILE"),
            Code::NotOwner => (StatusCode::FORBIDDEN, "NOT_OWNER"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::RouteNotFound => (StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND"),
            Code::RepoNotFound => (StatusCode::NOT_FOUND, "REPO_NOT_FOUND"),
            Code::BranchNotFound => (StatusCode::NOT_FOUND, "BRANCH_NOT_FOUND"),
            Code::TagNotFound => (StatusCode::NOT_FOUND, "TAG_NOT_FOUND"),
            Code::RefNotFound => (StatusCode::NOT_FOUND, "REF_NOT_FOUND"),
            Code::FileNotFound => (StatusCode::NOT_FOUND, "FILE_NOT_FOUND"),
            Code::CertificateNotFound => (StatusCode::NOT_FOUND, "CERTIFICATE_NOT_FOUND"),
            Code::VersionNotFound => (StatusCode::NOT_FOUND, "VERSION_NOT_FOUND"),
            Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Code::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE"),
            Code::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT"),
            Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
            Code::RepoExists => (StatusCode::CONFLICT, "REPO_EXISTS"),
            Code::BranchExists => (StatusCode::CONFLICT, "BRANCH_EXISTS"),
            Code::TagExists => (StatusCode::CONFLICT, "TAG_EXISTS"),
            Code::Conflict => (StatusCode::CONFLICT, "CONFLICT"),
            Code::RealityNotFound => (StatusCode::NOT_FOUND, "REALITY_NOT_FOUND"),
            Code::TransactionNotFound => (StatusCode::NOT_FOUND, "TRANSACTION_NOT_FOUND"),
            Code::TransactionGone => (StatusCode::GONE, "TRANSACTION_GONE"),
            Code::RealityGone => (StatusCode::GONE, "REALITY_GONE"),
            Code::RealityExists => (StatusCode::CONFLICT, "REALITY_EXISTS"),
            Code::LimitExceeded => (StatusCode::PAYLOAD_TOO_LARGE, "LIMIT_EXCEEDED"),
            Code::Gone => (StatusCode::GONE, "GONE"),
            Code::VersionGone => (StatusCode::GONE, "VERSION_GONE"),
            Code::IdempotencyKeyInUse => (StatusCode::CONFLICT, "IDEMPOTENCY_KEY_IN_USE"),
            Code::IdempotencyAnswerLost => (StatusCode::CONFLICT, "IDEMPOTENCY_ANSWER_LOST"),
            Code::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED"),
            Code::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE"),
            Code::ObjectTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "OBJECT_TOO_LARGE"),
            Code::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE"),
            Code::RangeNotSatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_NOT_SATISFIABLE"),
            Code::IdempotencyKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED"),
            Code::ContentTooLarge => (StatusCode::UNPROCESSABLE_ENTITY, "CONTENT_TOO_LARGE"),
            Code::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE"),
            Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
            Code::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "CORRUPT"),
            Code::Busy => (StatusCode::SERVICE_UNAVAILABLE, "BUSY"),
            Code::DeadlineExceeded => (StatusCode::SERVICE_UNAVAILABLE, "DEADLINE_EXCEEDED"),
            Code::StoreClosed => (StatusCode::SERVICE_UNAVAILABLE, "STORE_CLOSED"),
            Code::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "STORAGE_FULL"),
            Code::StorageUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "STORAGE_UNAVAILABLE"),
            Code::OutOfMemoryBudget => (StatusCode::INSUFFICIENT_STORAGE, "OUT_OF_MEMORY_BUDGET"),
        }
    }

    /// The status that goes with the code.
    pub(crate) fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The code's word.
    pub(crate) fn as_str(self) -> &'static str {
        self.parts().1
    }
}

/// The document of an error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument {
    /// Always `about:blank`: `code` tells problems apart.
    #[schema(example = "about:blank")]
    r#type: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What went wrong, for people.
    #[schema(example = "no repository demo")]
    detail: String,
    /// The same as `detail`.
    error: String,
    /// What went wrong, for programs.
    #[schema(example = "REPO_NOT_FOUND")]
    code: String,
    /// In a conflict, the reference that stood in the way.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// In a conflict, the id that was expected; null if the reference was to be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    expected: Option<Option<String>>,
    /// In a conflict, the id that is there; null if the reference is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    actual: Option<Option<String>>,
    /// In a conflict of changes that were to be redone, the paths that both sides changed; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    conflict: Option<Box<RefConflict>>,
    /// For an unsatisfiable range, the length of the whole in bytes.
    whole_bytes: Option<u64>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), conflict: None, whole_bytes: None }
    }

    /// A request that breaks a rule.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// A reference that is not what `code`'s precondition asked for.
    pub(crate) fn conflict(code: Code, conflict: RefConflict) -> Self {
        let detail = format!("reference {} is not what was expected", conflict.name);
        Self { code, detail, conflict: Some(Box::new(conflict)), whole_bytes: None }
    }

    /// A range outside a content of `whole_bytes`.
    pub(crate) fn unsatisfiable_range(whole_bytes: u64) -> Self {
        let detail = format!("the range lies outside the content's {whole_bytes} bytes");
        Self { whole_bytes: Some(whole_bytes), ..Self::new(Code::RangeNotSatisfiable, detail) }
    }

    /// The same problem, where a conflict came from a condition that a header stated.
    pub(crate) fn of_precondition(mut self) -> Self {
        if self.code == Code::Conflict {
            self.code = Code::PreconditionFailed;
        }
        self
    }

    /// What went wrong.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What went wrong, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The JSON of it.
    pub(super) fn document(&self) -> ProblemDocument {
        let status = self.code.status();
        let hex = |oid: Option<govc_engine::Oid>| oid.map(|oid| oid.to_string());
        ProblemDocument {
            r#type: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            error: self.detail.clone(),
            code: self.code.as_str().to_owned(),
            name: self.conflict.as_ref().map(|conflict| conflict.name.clone()),
            expected: self.conflict.as_ref().map(|conflict| hex(conflict.expected)),
            actual: self.conflict.as_ref().map(|conflict| hex(conflict.actual)),
            paths: self.conflict.as_ref().map(|conflict| conflict.paths.clone()).unwrap_or_default(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code = self.code.as_str(), detail = %self.detail, "request failed");
        } else if status.is_server_error() {
            tracing::warn!(code = self.code.as_str(), detail = %self.detail, "request refused");
        }
        let body = serde_json::to_vec(&self.document()).unwrap_or_else(|_| b"{}".to_vec());
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(range) = self.whole_bytes.and_then(|bytes| format!("bytes */{bytes}").parse().ok()) {
            headers.insert(CONTENT_RANGE, range);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Invalid => Code::InvalidRequest,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Gone => Code::Gone,
            ErrorKind::Exists => Code::AlreadyExists,
            ErrorKind::Conflict(_) => Code::Conflict,
            ErrorKind::TooLarge => Code::ObjectTooLarge,
            ErrorKind::LimitExceeded => Code::LimitExceeded,
            ErrorKind::StorageFull => Code::StorageFull,
            ErrorKind::Unavailable => Code::StorageUnavailable,
            ErrorKind::OutOfBudget => Code::OutOfMemoryBudget,
            ErrorKind::Corrupt => Code::Corrupt,
            ErrorKind::Closed => Code::StoreClosed,
            ErrorKind::Cancelled => Code::DeadlineExceeded,
            _ => Code::Internal,
        };
        let conflict = match error.kind() {
            ErrorKind::Conflict(conflict) => Some(conflict.clone()),
            _ => None,
        };
        Self { code, detail: error.message().to_owned(), conflict, whole_bytes: None }
    }
}

impl From<WorkError> for Problem {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Busy => Self::new(Code::Busy, "the server is busy; try again"),
            WorkError::Panicked => Self::new(Code::Internal, "the request failed inside the server"),
        }
    }
}

/// What a call to the engine was about, where its error alone cannot say.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Thing {
    Repo,
    Branch,
    Tag,
    Rev,
    File,
    Version,
    Reality,
}

/// Makes an engine's error a problem that names what is missing, or there already.
pub(crate) fn about(thing: Thing) -> impl Fn(Error) -> Problem {
    move |error| {
        let mut problem = Problem::from(error);
        problem.code = match (problem.code, thing) {
            (Code::NotFound, Thing::Repo) => Code::RepoNotFound,
            (Code::NotFound, Thing::Branch) => Code::BranchNotFound,
            (Code::NotFound, Thing::Tag) => Code::TagNotFound,
            (Code::NotFound, Thing::Rev) => Code::RefNotFound,
            (Code::NotFound, Thing::File) => Code::FileNotFound,
            (Code::NotFound, Thing::Version) => Code::VersionNotFound,
            (Code::Gone, Thing::Version) => Code::VersionGone,
            (Code::NotFound, Thing::Reality) => Code::RealityNotFound,
            (Code::Gone, Thing::Reality) => Code::RealityGone,
            (Code::AlreadyExists, Thing::Reality) => Code::RealityExists,
            (Code::AlreadyExists, Thing::Repo) => Code::RepoExists,
            (Code::AlreadyExists, Thing::Branch) => Code::BranchExists,
            (Code::AlreadyExists, Thing::Tag) => Code::TagExists,
            (code, _) => code,
        };
        problem
    }
}

/// Answers a path that no route has.
pub(crate) async fn route_not_found(uri: axum::http::Uri) -> Problem {
    Problem::new(Code::RouteNotFound, format!("no such route: {}", uri.path()))
}

/// Answers a method that the path's route does not have; the router adds `Allow`.
pub(crate) async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{method} is not allowed on {}", uri.path()))
}

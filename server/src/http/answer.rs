//! Successful answers, and the text forms that all of them share: ids, paths that are not UTF-8, locations.

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    conditional::ETag,
    problem::{Code, Problem},
};

/// Where the API begins; the routes' own paths repeat it, so that each can be found by its full text.
const API: &str = "/api/v1";

/// All but the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const SEGMENTS: &AsciiSet = &SEGMENT.remove(b'/');

/// Which header says which commit a content was read at: a body alone would change with every commit,
/// and its `ETag` with it.
const GOVC_COMMIT: HeaderName = HeaderName::from_static("govc-commit");

/// 200 with JSON.
pub(crate) fn ok(body: &impl Serialize) -> Response {
    json(StatusCode::OK, body)
}

/// 201 with JSON and where the new thing is.
pub(crate) fn created(location: &str, etag: Option<&ETag>, body: &impl Serialize) -> Response {
    let mut response = json(StatusCode::CREATED, body);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    match etag {
        Some(etag) => tagged(response, etag),
        None => response,
    }
}

/// 202 with JSON.
pub(crate) fn accepted(body: &impl Serialize) -> Response {
    json(StatusCode::ACCEPTED, body)
}

/// 204.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 304 for a client that has this representation already.
pub(crate) fn not_modified(etag: &ETag) -> Response {
    tagged(StatusCode::NOT_MODIFIED.into_response(), etag)
}

/// The status of an answer with a part of the content.
pub(crate) fn partial(body: Body) -> Response {
    (StatusCode::PARTIAL_CONTENT, body).into_response()
}

/// The same answer with an entity tag.
pub(crate) fn tagged(mut response: Response, etag: &ETag) -> Response {
    if let Ok(value) = HeaderValue::from_str(etag.as_str()) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// The same answer with the commit that it was read at.
pub(crate) fn at_commit(mut response: Response, commit: &govc_engine::Oid) -> Response {
    if let Ok(value) = HeaderValue::from_str(&commit.to_string()) {
        response.headers_mut().insert(GOVC_COMMIT, value);
    }
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response(),
        Err(error) => Problem::new(Code::Internal, format!("the answer is not JSON: {error}")).into_response(),
    }
}

/// Bytes as text, and as Base64 if the text does not say them exactly.
pub(crate) fn lossy(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

/// The path of a repository, or of something in it: `rest` is empty or begins with a slash.
pub(crate) fn location(repo: &str, rest: &str) -> String {
    format!("{API}/repos/{}{}", utf8_percent_encode(repo, SEGMENT), utf8_percent_encode(rest, SEGMENTS))
}

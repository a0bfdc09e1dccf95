//! Answers and refusals in the media type of Git LFS.

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, EXPECT},
    },
    response::{IntoResponse as _, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    app::App,
    git,
    http::problem::{Code, Problem},
};

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// The largest request that is JSON.
const BODY_BYTES_MAX: usize = 4 << 20;

/// An error's document.
#[derive(Serialize)]
struct Refusal<'a> {
    message: &'a str,
    /// The lock that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<super::lock::LockInfo>,
}

/// 200 with a document.
pub(super) fn ok(body: &impl Serialize) -> Response {
    json(StatusCode::OK, body)
}

/// 201 with a document.
pub(super) fn created(body: &impl Serialize) -> Response {
    json(StatusCode::CREATED, body)
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], bytes).into_response(),
        Err(error) => refuse(Problem::new(Code::Internal, format!("the answer is not JSON: {error}"))),
    }
}

/// An error, with the status and headers that it has everywhere.
pub(super) fn refuse(problem: Problem) -> Response {
    refuse_for(problem, None)
}

/// The same, because of a lock.
pub(super) fn refuse_for(problem: Problem, lock: Option<super::lock::LockInfo>) -> Response {
    let body = serde_json::to_vec(&Refusal { message: problem.detail(), lock });
    let mut response = problem.into_response();
    *response.body_mut() = Body::from(body.unwrap_or_else(|_| b"{}".to_vec()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// Lets a client finish sending what nobody reads, unless it waits for leave to begin.
pub(super) fn discard(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        git::discard(request.into_body());
    }
}

/// Refuses a client that does not take the media type.
pub(super) fn check_accept(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let takes = |range: &str| {
        let essence = essence(range);
        matches!(essence.as_str(), "*/*" | "application/*" | "application/json") || essence == MEDIA_TYPE
    };
    if values.flat_map(|value| value.split(',')).any(takes) {
        return Ok(());
    }
    Err(Problem::new(Code::NotAcceptable, format!("answers are {MEDIA_TYPE}, which Accept does not name")))
}

fn essence(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a request's document.
///
/// # Errors
/// [`Code::UnsupportedMediaType`], [`Code::BodyTooLarge`], [`Code::InvalidJson`]; [`Code::Unprocessable`] for another
/// document than the one that is wanted.
pub(super) async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Problem> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = matches!(essence(content_type).as_str(), MEDIA_TYPE | "application/json");
    let length = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let too_large = || Problem::new(Code::BodyTooLarge, format!("the request has more than {BODY_BYTES_MAX} bytes"));
    let refusal = match () {
        () if !is_json => Some(Problem::new(Code::UnsupportedMediaType, format!("the body must be {MEDIA_TYPE}"))),
        () if length.is_some_and(|length| length > BODY_BYTES_MAX) => Some(too_large()),
        () => None,
    };
    if let Some(refusal) = refusal {
        discard(request);
        return Err(refusal);
    }
    let body = app.bodies.read(request.into_body()).await?;
    if body.bytes.len() > BODY_BYTES_MAX {
        return Err(too_large());
    }
    parse(&body.bytes)
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            Problem::new(Code::Unprocessable, format!("the request is not valid: {error}"))
        } else {
            Problem::new(Code::InvalidJson, format!("the request is not JSON: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header::ACCEPT};

    use super::check_accept;

    #[test]
    fn clients_that_take_the_media_type_are_told_from_others() {
        let accepts = |value: &'static str| {
            check_accept(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))])).is_ok()
        };
        assert!(check_accept(&HeaderMap::new()).is_ok());
        for value in [
            "application/vnd.git-lfs+json",
            "application/vnd.git-lfs+json; charset=utf-8",
            "text/html, application/vnd.git-lfs+json;q=0.5",
            "*/*",
            "application/*",
        ] {
            assert!(accepts(value), "{value}");
        }
        for value in ["text/html", "application/xml", "image/*"] {
            assert!(!accepts(value), "{value}");
        }
    }
}

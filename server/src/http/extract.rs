//! What handlers take from a request, with problems for answers: the repository, the rest of the path, the query,
//! the body.
//!
//! Paths are read from the request's own text, not from the router's parameters: a repository's id is one
//! segment in which `%2F` stands for the slash, and a file's path may hold bytes that are not UTF-8.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, header::CONTENT_TYPE, request::Parts},
};
use govc_engine::{Repo, RepoName};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{
    INLINE_BYTES_MAX,
    body::{Held, HeldBody},
    problem::{Code, Problem, Thing, about},
};
use crate::app::App;

/// Which segment of `/api/v1/repos/{id}/…` is the id, and how many stand before the rest.
const ID_SEGMENT: usize = 4;
const SEGMENTS_BEFORE_REST: usize = 6;

/// The name that the path's id spells, whether or not such a repository exists.
pub(crate) struct Named(pub(crate) RepoName);

/// The repository that the path names.
pub(crate) struct InRepo(pub(crate) Repo);

/// What follows the segment behind the id, decoded; empty if nothing does.
pub(crate) struct Rest(pub(crate) Vec<u8>);

/// The same as text.
pub(crate) struct RestText(pub(crate) String);

/// The query.
pub(crate) struct Params<T>(pub(crate) T);

/// A body that says it is JSON, not parsed yet: a large one is parsed where it does not hold up others.
pub(crate) struct RawJson(HeldBody);

/// A parsed body, and the memory that it may take, which must live as long.
pub(crate) struct JsonBody<T>(pub(crate) T, pub(crate) Arc<Held>);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let segment = parts.uri.path().split('/').nth(ID_SEGMENT).unwrap_or_default();
        let name = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| Problem::invalid("the repository id is not UTF-8"))?;
        Ok(Self(RepoName::new(&name)?))
    }
}

impl FromRequestParts<Arc<App>> for InRepo {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Named(name) = Named::from_request_parts(parts, app).await?;
        app.store.repo(&name).map(Self).map_err(about(Thing::Repo))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Rest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(rest(parts.uri.path())))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RestText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        String::from_utf8(rest(parts.uri.path())).map(Self).map_err(|_| Problem::invalid("the name is not UTF-8"))
    }
}

fn rest(path: &str) -> Vec<u8> {
    percent_decode_str(path.splitn(SEGMENTS_BEFORE_REST + 1, '/').nth(SEGMENTS_BEFORE_REST).unwrap_or_default())
        .collect()
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Problem::invalid(format!("the query is not valid: {}", rejection.body_text()))),
        }
    }
}

impl FromRequest<Arc<App>> for RawJson {
    type Rejection = Problem;

    async fn from_request(mut request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            return Err(Problem::new(Code::UnsupportedMediaType, "the body must be application/json"));
        }
        // Who had to see the body before has left it there.
        match request.extensions_mut().remove::<HeldBody>() {
            Some(body) => Ok(Self(body)),
            None => app.bodies.read(request.into_body()).await.map(Self),
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let body = RawJson::from_request(request, app).await?;
        if body.len() <= INLINE_BYTES_MAX { body.parse() } else { app.work.run(move || body.parse()).await? }
    }
}

impl RawJson {
    /// The body's length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Parses the body.
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<JsonBody<T>, Problem> {
        let HeldBody { bytes, held } = self.0;
        let parsed = serde_json::from_slice(&bytes).map_err(|error| {
            if error.is_data() {
                Problem::invalid(format!("the body is not valid: {error}"))
            } else {
                Problem::new(Code::InvalidJson, format!("the body is not JSON: {error}"))
            }
        })?;
        Ok(JsonBody(parsed, held))
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads a yes or no of a query: `true`, `1`, `yes` or nothing after the name; `false`, `0`, `no`.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(serde::de::Error::custom(format!("{text:?} is neither true nor false"))),
    }
}

/// Reads a member that may be absent, null or a value: absent is `None`, null is `Some(None)`.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

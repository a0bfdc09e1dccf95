//! Which contents there are, and where a client fetches or sends them.

use std::collections::BTreeMap;

use axum::{
    extract::Request,
    http::{HeaderValue, header::AUTHORIZATION},
    response::Response,
};
use govc_engine::{LfsOid, Repo};
use serde::{Deserialize, Serialize};

use super::{answer, route::Call};
use crate::http::{
    links::base_url,
    problem::{Code, Problem},
};

/// Contents that one request may name.
const OBJECTS_MAX: usize = 10_000;
const HASH: &str = "sha256";
const TRANSFER: &str = "basic";

#[derive(Deserialize)]
struct BatchRequest {
    operation: String,
    transfers: Option<Vec<String>>,
    #[serde(default)]
    objects: Vec<Named>,
    hash_algo: Option<String>,
}

/// A content that a client names.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Named {
    pub(super) oid: String,
    pub(super) size: i64,
}

#[derive(Serialize)]
struct BatchAnswer {
    transfer: &'static str,
    objects: Vec<ObjectAnswer>,
    hash_algo: &'static str,
}

#[derive(Serialize)]
struct ObjectAnswer {
    oid: String,
    size: i64,
    /// Clients need not look for credentials: the links have what they need.
    authenticated: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    actions: BTreeMap<&'static str, Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ObjectError>,
}

#[derive(Clone, Serialize)]
struct Action {
    href: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct ObjectError {
    code: u16,
    message: String,
}

/// What the links of an answer have in common.
struct Links {
    /// The address of the repository's LFS.
    base: String,
    header: BTreeMap<&'static str, String>,
    /// Whether the header is all that a proxy in front of this server may ask for.
    authenticated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Download,
    Upload,
}

/// `POST objects/batch`.
pub(super) async fn batch(call: Call, request: Request) -> Result<Response, Problem> {
    answer::check_accept(request.headers())?;
    let url = base_url(call.app.config.server.public_url.as_deref(), &request)?;
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::to_str).transpose();
    let authorization = authorization.ok().flatten().map(str::to_owned);
    let wanted: BatchRequest = answer::read(&call.app, request).await?;
    let operation = check(&wanted)?;
    let links = Links {
        base: format!("{url}/{}.git/info/lfs", call.target.name()),
        authenticated: authorization.as_deref().is_none_or(can_be_repeated),
        header: authorization
            .filter(|value| can_be_repeated(value))
            .map(|value| ("Authorization", value))
            .into_iter()
            .collect(),
    };
    let bytes_max = call.app.config.lfs.object_bytes_max;
    let (app, target) = (call.app.clone(), call.target);
    let look = move || -> Result<Vec<ObjectAnswer>, Problem> {
        let repo = target.repo();
        wanted.objects.into_iter().map(|object| links.answer(repo, operation, object, bytes_max)).collect()
    };
    let objects = app.work.run(look).await??;
    if operation == Operation::Upload && !objects.is_empty() && objects.iter().all(|object| object.is_invalid()) {
        let first = objects.into_iter().find_map(|object| object.error);
        let detail = first.map_or_else(String::new, |error| error.message);
        return Err(Problem::new(Code::Unprocessable, format!("no object is valid: {detail}")));
    }
    Ok(answer::ok(&BatchAnswer { transfer: TRANSFER, objects, hash_algo: HASH }))
}

/// Whether credentials are good for other requests, too: those of Negotiate, NTLM and Digest are for one alone.
fn can_be_repeated(authorization: &str) -> bool {
    let scheme = authorization.split(' ').next().unwrap_or_default();
    ["basic", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// What is wanted, if it is something that there is.
fn check(request: &BatchRequest) -> Result<Operation, Problem> {
    let operation = match request.operation.as_str() {
        "download" => Operation::Download,
        "upload" => Operation::Upload,
        _ => return Err(Problem::new(Code::Unprocessable, "the operation is neither download nor upload")),
    };
    if request.hash_algo.as_deref().is_some_and(|hash| hash != HASH) {
        return Err(Problem::new(Code::Conflict, format!("objects are named by {HASH} and no other hash")));
    }
    let transfers = request.transfers.as_deref().unwrap_or_default();
    if !transfers.is_empty() && !transfers.iter().any(|transfer| transfer == TRANSFER) {
        return Err(Problem::new(Code::Unprocessable, format!("there is no other transfer than {TRANSFER}")));
    }
    if request.objects.len() > OBJECTS_MAX {
        return Err(Problem::new(Code::LimitExceeded, format!("a batch has at most {OBJECTS_MAX} objects")));
    }
    Ok(operation)
}

impl Named {
    /// The content's id and size.
    pub(super) fn checked(&self) -> Result<(LfsOid, u64), Problem> {
        let invalid = |detail: String| Problem::new(Code::Unprocessable, detail);
        let oid = self.oid.parse::<LfsOid>().map_err(|error| invalid(error.message().to_owned()))?;
        let size = u64::try_from(self.size).map_err(|_| invalid(format!("{} is no size", self.size)))?;
        Ok((oid, size))
    }
}

impl Links {
    fn answer(
        &self,
        repo: Option<&Repo>,
        operation: Operation,
        object: Named,
        bytes_max: u64,
    ) -> Result<ObjectAnswer, Problem> {
        let actions = self.actions(repo, operation, &object, bytes_max);
        let (actions, error) = match actions {
            Ok(actions) => (actions, None),
            // What concerns all of them is no answer to one.
            Err(problem) if problem.code().status().is_server_error() => return Err(problem),
            Err(problem) => {
                let error =
                    ObjectError { code: problem.code().status().as_u16(), message: problem.detail().to_owned() };
                (BTreeMap::new(), Some(error))
            }
        };
        Ok(ObjectAnswer { oid: object.oid, size: object.size, authenticated: self.authenticated, actions, error })
    }

    fn actions(
        &self,
        repo: Option<&Repo>,
        operation: Operation,
        object: &Named,
        bytes_max: u64,
    ) -> Result<BTreeMap<&'static str, Action>, Problem> {
        let (oid, size) = object.checked()?;
        let stored = repo.map(|repo| repo.lfs_object(&oid)).transpose()?.flatten();
        if let Some(stored) = stored.filter(|stored| stored.size() != size) {
            let detail = format!("object {oid} has {} bytes, not {size}", stored.size());
            return Err(Problem::new(Code::Unprocessable, detail));
        }
        let action = |path: String| Action { href: format!("{}/{path}", self.base), header: self.header.clone() };
        let content = || action(format!("objects/{oid}"));
        match (operation, stored) {
            (Operation::Download, Some(_)) => Ok(BTreeMap::from([("download", content())])),
            (Operation::Download, None) => Err(Problem::new(Code::NotFound, format!("object {oid} does not exist"))),
            (Operation::Upload, Some(_)) => Ok(BTreeMap::new()),
            (Operation::Upload, None) if size > bytes_max => {
                let detail = format!("object {oid} is larger than the limit of {bytes_max} bytes");
                Err(Problem::new(Code::Unprocessable, detail))
            }
            (Operation::Upload, None) => {
                Ok(BTreeMap::from([("upload", content()), ("verify", action("verify".to_owned()))]))
            }
        }
    }
}

impl ObjectAnswer {
    fn is_invalid(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.code == Code::Unprocessable.status().as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::can_be_repeated;

    #[test]
    fn credentials_for_one_request_are_not_repeated() {
        for value in ["Basic YQ==", "basic YQ==", "Bearer abc"] {
            assert!(can_be_repeated(value), "{value}");
        }
        for value in ["Negotiate YQ==", "NTLM YQ==", "Digest a=b", ""] {
            assert!(!can_be_repeated(value), "{value}");
        }
    }
}

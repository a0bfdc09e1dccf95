//! Locks: who has reserved a path. They are the repository's, whatever branch a client names with them.

use axum::{
    extract::{Query, Request},
    http::{HeaderMap, header::AUTHORIZATION},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use govc_engine::{Error, ErrorKind, LfsLock, Repo};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{answer, route::Call};
use crate::http::{
    problem::{Code, Problem},
    time::Moment,
};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;
/// The owner of what is locked without a name.
const NOBODY: &str = "anonymous";
const OWNER_BYTES_MAX: usize = 256;

/// A lock as clients see it.
#[derive(Debug, Serialize)]
pub(super) struct LockInfo {
    id: String,
    path: String,
    locked_at: String,
    owner: Owner,
}

#[derive(Debug, Serialize)]
struct Owner {
    name: String,
}

#[derive(Deserialize)]
struct CreateRequest {
    path: String,
}

#[derive(Deserialize)]
struct ListParams {
    path: Option<String>,
    id: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct VerifyRequest {
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct UnlockRequest {
    #[serde(default)]
    force: bool,
}

/// A page of locks.
#[derive(Default)]
struct Page {
    locks: Vec<LfsLock>,
    next_cursor: Option<String>,
}

/// `POST locks`.
pub(super) async fn create(call: Call, request: Request) -> Result<Response, Problem> {
    answer::check_accept(request.headers())?;
    let owner = caller(request.headers());
    let wanted: CreateRequest = answer::read(&call.app, request).await?;
    let target = call.target;
    // What reserves a path publishes nothing, so it makes no repository.
    let locked = call.app.work.run(move || target.required()?.lfs_lock(&wanted.path, &owner).map_err(unprocessable));
    match locked.await?? {
        Ok(lock) => Ok(answer::created(&json!({ "lock": LockInfo::from(lock) }))),
        Err(lock) => {
            let problem = Problem::new(Code::AlreadyExists, format!("{:?} is locked by {}", lock.path, lock.owner));
            Ok(answer::refuse_for(problem, Some(lock.into())))
        }
    }
}

/// `GET locks`.
pub(super) async fn list(call: Call, request: Request) -> Result<Response, Problem> {
    answer::check_accept(request.headers())?;
    let params = Query::<ListParams>::try_from_uri(request.uri());
    let Query(params) =
        params.map_err(|error| Problem::invalid(format!("the query is not valid: {}", error.body_text())))?;
    let (path, id) = (params.path.filter(|path| !path.is_empty()), params.id.filter(|id| !id.is_empty()));
    let page = page(&call, params.cursor, params.limit, move |repo| {
        let found = match (&path, &id) {
            (None, None) => return Ok(None),
            (Some(path), _) => repo.lfs_lock_on(path)?,
            (None, Some(id)) => match number(id) {
                Some(number) => repo.lfs_lock_numbered(number)?,
                None => None,
            },
        };
        let is_wanted = |lock: &LfsLock| id.as_ref().is_none_or(|id| *id == lock.number.to_string());
        Ok(Some(found.filter(is_wanted).into_iter().collect()))
    });
    let page = page.await?;
    let locks: Vec<_> = page.locks.into_iter().map(LockInfo::from).collect();
    Ok(answer::ok(&with_cursor(json!({ "locks": locks }), page.next_cursor)))
}

/// `POST locks/verify`.
pub(super) async fn verify(call: Call, request: Request) -> Result<Response, Problem> {
    answer::check_accept(request.headers())?;
    let caller = caller(request.headers());
    let wanted: VerifyRequest = answer::read(&call.app, request).await?;
    let page = page(&call, wanted.cursor, wanted.limit, |_| Ok(None)).await?;
    let (ours, theirs): (Vec<_>, Vec<_>) = page.locks.into_iter().partition(|lock| lock.owner == caller);
    let shapes = |locks: Vec<LfsLock>| locks.into_iter().map(LockInfo::from).collect::<Vec<_>>();
    Ok(answer::ok(&with_cursor(json!({ "ours": shapes(ours), "theirs": shapes(theirs) }), page.next_cursor)))
}

/// `POST locks/{id}/unlock`.
pub(super) async fn unlock(call: Call, id: &str, request: Request) -> Result<Response, Problem> {
    answer::check_accept(request.headers())?;
    let caller = caller(request.headers());
    let missing = Problem::new(Code::NotFound, "there is no such lock");
    let number = number(id);
    let wanted: UnlockRequest = answer::read(&call.app, request).await?;
    let (Some(repo), Some(number)) = (call.target.repo().cloned(), number) else { return Err(missing) };
    let unlocked = call.app.work.run(move || {
        let mut other = None;
        let unlocked = repo.lfs_unlock(number, |lock| {
            if wanted.force || lock.owner == caller {
                return Ok(());
            }
            other = Some(lock.owner.clone());
            Err(Error::invalid("it is another's lock"))
        });
        match other {
            Some(owner) => Err(Problem::new(Code::NotOwner, format!("the lock is {owner}'s; force removes it"))),
            None => unlocked.map_err(Problem::from),
        }
    });
    let lock = unlocked.await??;
    Ok(answer::ok(&json!({ "lock": LockInfo::from(lock) })))
}

/// A page of a repository's locks, or of those that `filter` finds.
async fn page(
    call: &Call,
    cursor: Option<String>,
    limit: Option<usize>,
    filter: impl FnOnce(&Repo) -> govc_engine::Result<Option<Vec<LfsLock>>> + Send + 'static,
) -> Result<Page, Problem> {
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let after = match cursor.filter(|cursor| !cursor.is_empty()) {
        Some(cursor) => {
            let malformed = || Problem::new(Code::Unprocessable, "the cursor is not one that a page ended with");
            Some(number(&cursor).ok_or_else(malformed)?)
        }
        None => None,
    };
    // Of a repository that is not there yet, nothing is locked.
    let Some(repo) = call.target.repo().cloned() else { return Ok(Page::default()) };
    let found = move || -> govc_engine::Result<Page> {
        if let Some(locks) = filter(&repo)? {
            return Ok(Page { locks, next_cursor: None });
        }
        let mut locks = repo.lfs_locks(after, limit.saturating_add(1))?;
        let more = locks.len() > limit;
        locks.truncate(limit);
        let next_cursor = locks.last().filter(|_| more).map(|lock| lock.number.to_string());
        Ok(Page { locks, next_cursor })
    };
    Ok(call.app.work.run(found).await??)
}

fn with_cursor(mut body: serde_json::Value, cursor: Option<String>) -> serde_json::Value {
    if let (Some(cursor), Some(members)) = (cursor, body.as_object_mut()) {
        members.insert("next_cursor".to_owned(), cursor.into());
    }
    body
}

/// The number of a lock, which is also where a page ends.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// The name that a client gives with its credentials.
fn caller(headers: &HeaderMap) -> String {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, credentials) = value.split_once(' ')?;
        let credentials = STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let name = credentials.split(|byte| *byte == b':').next().unwrap_or_default();
        String::from_utf8(name.to_vec()).ok()
    });
    let is_name = |name: &String| !name.is_empty() && name.len() <= OWNER_BYTES_MAX && !name.contains(char::is_control);
    given.filter(is_name).unwrap_or_else(|| NOBODY.to_owned())
}

fn unprocessable(error: Error) -> Problem {
    match error.kind() {
        ErrorKind::Invalid => Problem::new(Code::Unprocessable, error.message()),
        _ => Problem::from(error),
    }
}

impl From<LfsLock> for LockInfo {
    fn from(lock: LfsLock) -> Self {
        let locked_at = Moment { seconds: lock.millis.div_euclid(1000), offset_minutes: 0 }.to_text();
        Self { id: lock.number.to_string(), path: lock.path, locked_at, owner: Owner { name: lock.owner } }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

    use super::{caller, number};

    #[test]
    fn a_caller_has_the_name_of_its_credentials() {
        let of = |value: &str| {
            caller(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"))]))
        };
        assert_eq!(of("Basic YWRhOnNlY3JldA=="), "ada");
        assert_eq!(of("basic YWRhOg=="), "ada");
        for nobody in ["Bearer YWRhOg==", "Basic !", "Basic", "Basic OnNlY3JldA==", "Basic CjpzZWNyZXQ="] {
            assert_eq!(of(nobody), "anonymous", "{nobody}");
        }
        assert_eq!(caller(&HeaderMap::new()), "anonymous");
    }

    #[test]
    fn ids_are_numbers_as_they_are_written() {
        assert_eq!(number("17"), Some(17));
        for other in ["", "017", "+17", "-1", "x", "4294967296"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}

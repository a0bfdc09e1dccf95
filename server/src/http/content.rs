//! What a commit contains: directories, files as JSON, files as bytes.
//!
//! Entity tags are object ids, so a client that has a content is told so before it is read. Small objects are read
//! where the request is; large ones, and recursive lists, on the pool of blocking threads, and within the budget for
//! what clients hold. Which commit answered is in the header `Govc-Commit`: in the body it would make every answer
//! new with every commit.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, Uri,
        header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RANGE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use govc_engine::{EntryMode, ListOptions, ListedEntry, Oid, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    INLINE_BYTES_MAX, answer,
    conditional::{self, ETag},
    extract::{Params, Rest, flag},
    page,
    problem::{Code, Problem, Thing, about},
    range::Wanted,
    revision,
    versions::{AtParams, View},
};
use crate::app::App;

/// The largest file that is put into JSON, in bytes; larger ones are for `raw`.
const READ_BYTES_MAX: u64 = 16 << 20;
/// How much of a file decides whether it is text.
const TEXT_CHECK_BYTES: usize = 8000;

/// One entry of a directory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntryInfo {
    #[schema(example = "main.rs")]
    name: String,
    /// From the repository's root.
    #[schema(example = "src/main.rs")]
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `blob` (a file or link), `tree` (a directory) or `commit` (a submodule).
    #[schema(value_type = String, example = "blob")]
    r#type: &'static str,
    #[schema(example = "100644")]
    mode: String,
    hash: String,
    /// A file's size in bytes.
    size: Option<u64>,
}

/// A directory's entries in git's order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TreePage {
    path: String,
    /// The directory's tree.
    hash: String,
    entries: Vec<EntryInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// A file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FileContent {
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    hash: String,
    #[schema(example = "100644")]
    mode: String,
    /// In bytes.
    size: usize,
    /// How `content` says the bytes: `utf-8` or `base64`.
    #[schema(value_type = String, example = "utf-8")]
    encoding: &'static str,
    content: String,
}

/// Which commit.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RefParams {
    /// A branch, tag or commit; the default branch if absent.
    #[serde(rename = "ref")]
    rev: Option<String>,
}

/// Which commit, and which part of a directory.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TreeParams {
    /// A branch, tag or commit; the default branch if absent.
    #[serde(rename = "ref")]
    rev: Option<String>,
    /// Whether to list all files below instead of the directory's own entries.
    #[serde(default, deserialize_with = "flag")]
    recursive: bool,
    /// The page before's `next_cursor`.
    cursor: Option<String>,
    /// How many entries at most; 50 if absent, at most 1000.
    limit: Option<usize>,
}

/// List the root directory
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/tree", tag = "content", operation_id = "list_root",
    params(("id" = String, Path, description = "The repository, percent-encoded"), TreeParams, AtParams),
    responses((status = 200, description = "A page of the directory", body = TreePage)),
)]
pub(super) async fn root(
    state: State<Arc<App>>,
    view: View,
    params: Params<TreeParams>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    tree(state, view, Rest(Vec::new()), params, uri, headers).await
}

/// List a directory
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/tree/{*path}", tag = "content", operation_id = "list_directory",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("path" = String, Path, description = "The directory; slashes may stand as they are"),
        TreeParams,
        AtParams,
    ),
    responses((status = 200, description = "A page of the directory", body = TreePage)),
)]
pub(super) async fn tree(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    Rest(path): Rest,
    Params(params): Params<TreeParams>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let after = page::key(params.cursor.as_deref())?;
    let path = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
    let found = Found::find(&app, &snapshot, params.rev.as_deref(), &path).await?;
    if !found.mode.is_tree() {
        return Err(Problem::invalid(format!("{} is not a directory", String::from_utf8_lossy(&path))));
    }
    let etag = ETag::of(&found.oid);
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(answer::at_commit(response, &found.commit));
    }
    let options = ListOptions { recursive: params.recursive, after, limit };
    let root = snapshot.commit(&found.commit)?.tree;
    let (listing, path) = if params.recursive {
        app.work.run(move || (snapshot.list(root, &path, options), path)).await?
    } else {
        (snapshot.list(root, &path, options), path)
    };
    let listing = listing.map_err(about(Thing::File))?;
    let next_cursor = listing.entries.last().filter(|_| listing.more).map(|entry| page::cursor(&entry.path));
    let entries: Vec<_> = listing.entries.iter().map(EntryInfo::from).collect();
    let (path, _) = answer::lossy(&path);
    let body = TreePage { path, hash: found.oid.to_string(), count: entries.len(), entries, next_cursor };
    let response = answer::at_commit(answer::tagged(answer::ok(&body), &etag), &found.commit);
    Ok(page::with_next(response, &uri, body.next_cursor.as_deref()))
}

/// Read a file as JSON
///
/// The content is a text if it is UTF-8, else Base64. Files of more than 16 MiB are for `raw`.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/read/{*path}", tag = "content", operation_id = "read_file",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("path" = String, Path, description = "The file; slashes may stand as they are"),
        RefParams,
        AtParams,
    ),
    responses((status = 200, description = "The file", body = FileContent)),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    Rest(path): Rest,
    Params(params): Params<RefParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = Found::file(&app, &snapshot, params.rev.as_deref(), &path).await?;
    let etag = ETag::of_file(&found.oid, found.mode);
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(answer::at_commit(response, &found.commit));
    }
    let size = found.size(&snapshot)?;
    if size > READ_BYTES_MAX {
        let detail = format!("the file has {size} bytes, too many for JSON; use raw instead of read");
        return Err(Problem::new(Code::ContentTooLarge, detail));
    }
    // The content, and the answer that is made of it.
    let held = app.bodies.hold(size.saturating_mul(2)).await?;
    let oid = found.oid;
    let respond = move || {
        let data = snapshot.object(&oid)?.data;
        Ok::<_, Problem>(answer::ok(&FileContent::new(&path, &found, &data)))
    };
    let mut response = if fits_inline(size) { respond()? } else { app.work.run(respond).await?? };
    held.keep_with(&mut response);
    Ok(answer::at_commit(answer::tagged(response, &etag), &found.commit))
}

/// Read a file's bytes
///
/// Honours `Range` with one range of bytes, `If-Range` and `If-None-Match`.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/raw/{*path}", tag = "content", operation_id = "raw_file",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("path" = String, Path, description = "The file; slashes may stand as they are"),
        RefParams,
        AtParams,
    ),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The wanted part", body = Vec<u8>, content_type = "application/octet-stream"),
    ),
)]
pub(super) async fn raw(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    Rest(path): Rest,
    Params(params): Params<RefParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = Found::file(&app, &snapshot, params.rev.as_deref(), &path).await?;
    let etag = ETag::of(&found.oid);
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(answer::at_commit(response, &found.commit));
    }
    let size = found.size(&snapshot)?;
    let held = app.bodies.hold(size).await?;
    let oid = found.oid;
    let object =
        if fits_inline(size) { snapshot.object(&oid)? } else { app.work.run(move || snapshot.object(&oid)).await?? };
    let range = headers.get(RANGE).filter(|_| conditional::range_applies(&headers, &etag));
    let range = range.and_then(|value| value.to_str().ok());
    let mut response = bytes_or_part(object.data, range)?;
    held.keep_with(&mut response);
    Ok(answer::at_commit(answer::tagged(response, &etag), &found.commit))
}

/// The answer with the wanted part of a file's bytes.
fn bytes_or_part(data: Bytes, range: Option<&str>) -> Result<Response, Problem> {
    let kind = if is_text(&data) { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let whole = data.len();
    let mut response = match range.map_or(Wanted::Whole, |range| Wanted::read(range, whole)) {
        Wanted::Whole => Body::from(data).into_response(),
        Wanted::Unsatisfiable => return Err(Problem::unsatisfiable_range(whole as u64)),
        Wanted::Part(part) => {
            let shown = format!("bytes {}-{}/{whole}", part.start, part.end.saturating_sub(1));
            let mut response = answer::partial(Body::from(data.slice(part)));
            if let Ok(value) = HeaderValue::from_str(&shown) {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            response
        }
    };
    // A repository's files are foreign: a browser must neither guess their type nor run what they contain.
    let fixed: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, kind),
        (ACCEPT_RANGES, "bytes"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Whether the beginning of a file is UTF-8 without NUL. A character that the beginning cuts in two is none amiss.
fn is_text(data: &[u8]) -> bool {
    let beginning = data.get(..TEXT_CHECK_BYTES).unwrap_or(data);
    let cut = beginning.len() < data.len();
    !beginning.contains(&0) && std::str::from_utf8(beginning).map_or_else(|e| cut && e.error_len().is_none(), |_| true)
}

fn fits_inline(size: u64) -> bool {
    size <= INLINE_BYTES_MAX as u64
}

/// What a path is at a commit.
#[derive(Debug, Clone, Copy)]
struct Found {
    commit: Oid,
    mode: EntryMode,
    oid: Oid,
}

impl Found {
    async fn find(app: &App, snapshot: &Snapshot, rev: Option<&str>, path: &[u8]) -> Result<Self, Problem> {
        let commit = revision::commit(app, snapshot, rev.unwrap_or("HEAD")).await?;
        match snapshot.entry(commit, path).map_err(about(Thing::File))? {
            Some(entry) => Ok(Self { commit, mode: entry.mode, oid: entry.oid }),
            None => {
                let detail = format!("no path {:?} at {commit}", String::from_utf8_lossy(path));
                Err(Problem::new(Code::FileNotFound, detail))
            }
        }
    }

    async fn file(app: &App, snapshot: &Snapshot, rev: Option<&str>, path: &[u8]) -> Result<Self, Problem> {
        let found = Self::find(app, snapshot, rev, path).await?;
        if found.mode.is_blob() {
            return Ok(found);
        }
        let what = if found.mode.is_submodule() { "a submodule" } else { "a directory" };
        Err(Problem::new(Code::NotAFile, format!("{:?} is {what}", String::from_utf8_lossy(path))))
    }

    /// A file's size in bytes.
    fn size(&self, snapshot: &Snapshot) -> Result<u64, Problem> {
        match snapshot.header(&self.oid)? {
            Some((_, size)) => Ok(size),
            None => Err(Problem::new(Code::Corrupt, format!("object {} is missing", self.oid))),
        }
    }
}

impl FileContent {
    fn new(path: &[u8], found: &Found, data: &[u8]) -> Self {
        let (path, path_base64) = answer::lossy(path);
        let (encoding, content) = match std::str::from_utf8(data) {
            Ok(text) => ("utf-8", text.to_owned()),
            Err(_) => ("base64", STANDARD.encode(data)),
        };
        let (hash, mode) = (found.oid.to_string(), found.mode.to_octal());
        Self { path, path_base64, hash, mode, size: data.len(), encoding, content }
    }
}

impl From<&ListedEntry> for EntryInfo {
    fn from(entry: &ListedEntry) -> Self {
        let (path, path_base64) = answer::lossy(&entry.path);
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            path,
            path_base64,
            r#type: entry.kind.as_str(),
            mode: entry.mode.to_octal(),
            hash: entry.oid.to_string(),
            size: entry.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::{TEXT_CHECK_BYTES, bytes_or_part, is_text};

    #[test]
    fn text_is_told_from_bytes() {
        assert!(is_text(b""));
        assert!(is_text("grün".as_bytes()));
        assert!(!is_text(b"a\0b"));
        assert!(!is_text(b"\xff\xfe"));
        assert!(!is_text(b"gr\xc3"), "a character that the file itself cuts in two");
        let long = format!("{}é…", "x".repeat(TEXT_CHECK_BYTES - 1));
        assert!(is_text(long.as_bytes()), "a character that the check cuts in two");
    }

    #[test]
    fn parts_say_what_they_are() {
        let data = Bytes::from_static(b"0123456789");
        let part = bytes_or_part(data.clone(), Some("bytes=-3")).expect("a part");
        assert_eq!(part.headers().get("content-range").expect("a range"), "bytes 7-9/10");
        assert_eq!(part.headers().get("x-content-type-options").expect("a header"), "nosniff");
        let whole = bytes_or_part(data.clone(), None).expect("all of it");
        assert!(whole.headers().get("content-range").is_none());
        assert!(bytes_or_part(data, Some("bytes=10-")).is_err());
    }
}

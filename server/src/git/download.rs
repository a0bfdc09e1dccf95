//! What fetches are pointed at, by plain HTTP: `GET …/info/packs/{file}`, kept packs as they are or as bundles, and
//! `GET …/info/bundles`, which bundle there is.
//!
//! A file's bytes never change, so that downloads can be resumed and caches on the way can keep it, for as long as it is
//! promised: after that it is asked again whether it may be had. Each piece of a pack is checked before it goes out.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use govc_engine::{Repo, Result};

use super::bundle_uri;
use super::cache::KeptPack;
use super::pointers::{self, FileForm, FileName, Pointers};
use super::route::{answer, method_not_allowed, refuse, repo_of};
use crate::App;
use crate::http::conditional::ETag;
use crate::http::download::{Download, Readable};
use crate::http::problem::{Code, Problem};

const BUNDLES: &str = "/info/bundles";
const PACKS: &str = "/info/packs/";
const GET_OR_HEAD: &str = "GET, HEAD";

/// `GET …/info/bundles`: a bundle list, as `git clone --bundle-uri` takes it.
pub(super) async fn bundles(State(app): State<Arc<App>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed(GET_OR_HEAD, request);
    }
    let repo = match repo_of(&app, request.uri().path(), BUNDLES) {
        Ok(repo) => repo,
        Err(missing) => return missing.refuse(),
    };
    let pointers = Pointers::over_http(&app, &request, &repo.name());
    drop(request);
    let work_app = Arc::clone(&app);
    let list = app.work.run(move || bundle_uri::list_file(&work_app, &repo.snapshot(), &pointers)).await;
    match list.map_err(Problem::from).and_then(|list| list.map_err(Problem::from)) {
        Ok(list) => answer(Body::from(list), "text/plain; charset=utf-8"),
        Err(problem) => refuse_with_detail(problem),
    }
}

/// `GET …/info/packs/{file}`, whole or in part.
pub(super) async fn pack(State(app): State<Arc<App>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed(GET_OR_HEAD, request);
    }
    let Some((path, name)) = request.uri().path().rsplit_once(PACKS) else { return refuse_with_detail(missing()) };
    let repo = match repo_of(&app, path, "") {
        Ok(repo) => repo,
        Err(missing) => return missing.refuse(),
    };
    let Some(name) = FileName::parse(name) else { return refuse_with_detail(missing()) };
    let (method, headers) = (request.method().clone(), request.headers().clone());
    drop(request);
    send(&app, repo, name, &method, &headers).await.unwrap_or_else(refuse_with_detail)
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "there is no such pack here, or not any more: fetch again")
}

fn refuse_with_detail(problem: Problem) -> Response {
    let detail = problem.detail().to_owned();
    refuse(problem, &detail)
}

async fn send(
    app: &Arc<App>,
    repo: Repo,
    name: FileName,
    method: &Method,
    headers: &HeaderMap,
) -> std::result::Result<Response, Problem> {
    let finding = Arc::clone(app);
    let bytes = app.work.run(move || find(&finding, &repo, name)).await??.ok_or_else(missing)?;
    let (etag, content_type) = match name.form {
        FileForm::Pack => (name.checksum.to_string(), "application/x-git-packed-objects"),
        FileForm::Bundle => (format!("bundle-{}", name.checksum), "application/x-git-bundle"),
    };
    let download = Download { size: bytes.len(), bytes, etag: ETag::of_text(&etag), content_type };
    Ok(with_caching(app, download.answer(app, method, headers).await?))
}

/// The bytes behind a link never change; but when references are gone, what they led to is to go from caches as well.
fn with_caching(app: &App, mut response: Response) -> Response {
    let seconds = app.config.git.uri_lifetime.as_secs();
    if let Ok(value) = HeaderValue::from_str(&format!("max-age={seconds}, immutable")) {
        response.headers_mut().insert(CACHE_CONTROL, value);
    }
    response
}

/// A file that a client may have.
fn find(app: &Arc<App>, repo: &Repo, name: FileName) -> Result<Option<File>> {
    let Some(pack) = app.packs.find(repo.id(), &name.checksum) else { return Ok(None) };
    let snapshot = repo.snapshot();
    let is_part_of_a_fetch = name.form == FileForm::Pack && pack.is_part_of_a_fetch();
    if !is_part_of_a_fetch && !pointers::is_visible(app, &snapshot, &pack, app.work.deadline())? {
        return Ok(None);
    }
    let head = match name.form {
        FileForm::Pack => Bytes::new(),
        FileForm::Bundle => bundle_uri::header(&snapshot, &pack)?,
    };
    Ok(Some(File { app: Arc::clone(app), pack, head }))
}

/// A kept pack with what stands before it, and its checksum behind.
struct File {
    app: Arc<App>,
    pack: Arc<KeptPack>,
    head: Bytes,
}

impl File {
    /// Its bytes.
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.pack.len() + self.pack.checksum().as_bytes().len() as u64
    }

    /// Fills `out`, which must lie within the file, from `at`.
    ///
    /// # Errors
    /// When the pack cannot be read, or has changed.
    fn read_exact_at(&self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        let (mut pack, checksum) = (self.pack.checked(), self.pack.checksum());
        let mut start = 0;
        for (part, len) in [
            (Part::Bytes(&self.head), self.head.len() as u64),
            (Part::Pack, self.pack.len()),
            (Part::Bytes(checksum.as_bytes()), checksum.as_bytes().len() as u64),
        ] {
            let end = start + len;
            if at < end && !out.is_empty() {
                let within = at - start;
                let here = usize::try_from(end - at).unwrap_or(usize::MAX).min(out.len());
                let (now, later) = out.split_at_mut(here);
                match part {
                    Part::Pack => pack.read_exact_at(within, now)?,
                    Part::Bytes(bytes) => {
                        let from = usize::try_from(within).unwrap_or(usize::MAX);
                        let found = bytes.get(from..from.saturating_add(here)).ok_or(io::ErrorKind::UnexpectedEof)?;
                        now.copy_from_slice(found);
                    }
                }
                at += here as u64;
                out = later;
            }
            start = end;
        }
        if out.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

enum Part<'a> {
    Bytes(&'a [u8]),
    Pack,
}

impl Readable for File {
    fn read(&self, at: u64, len: usize) -> std::result::Result<Bytes, Problem> {
        let mut chunk = BytesMut::zeroed(len);
        self.read_exact_at(at, &mut chunk).map_err(|error| {
            self.app.packs.drop_pack(&self.pack);
            Problem::new(Code::Corrupt, format!("a kept pack is damaged ({error}); fetch again"))
        })?;
        Ok(chunk.freeze())
    }
}

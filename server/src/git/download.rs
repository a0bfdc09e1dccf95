//! What fetches are pointed at, by plain HTTP: `GET …/info/packs/{file}`, kept packs as they are or as bundles, and
//! `GET …/info/bundles`, which bundle there is.
//!
//! A file's bytes never change, so that downloads can be resumed and caches on the way can keep it, for as long as it is
//! promised: after that it is asked again whether it may be had. A pack's own checksum is looked at whenever all of it is
//! sent. A download holds about two chunks of memory, within the budget for what clients hold, and a thread only while a
//! chunk is read.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use govc_engine::{Repo, Result, object::PackHasher};
use parking_lot::Mutex;

use super::bundle_uri;
use super::cache::KeptPack;
use super::pointers::{self, FileForm, FileName, Pointers};
use super::route::{answer, method_not_allowed, refuse, repo_of};
use crate::App;
use crate::http::answer as shapes;
use crate::http::body::{self, Held};
use crate::http::conditional::{self, ETag};
use crate::http::problem::{Code, Problem};
use crate::http::range::Wanted;
use crate::pauses::Pauses;

const BUNDLES: &str = "/info/bundles";
const PACKS: &str = "/info/packs/";
const GET_OR_HEAD: &str = "GET, HEAD";
/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// In which pieces they are handed to a connection.
const PIECE_BYTES: usize = 64 << 10;

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
    let is_head = *request.method() == Method::HEAD;
    let headers = request.headers().clone();
    drop(request);
    send(&app, repo, name, &headers, is_head).await.unwrap_or_else(refuse_with_detail)
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
    headers: &HeaderMap,
    is_head: bool,
) -> std::result::Result<Response, Problem> {
    let finding = Arc::clone(app);
    let file = app.work.run(move || find(&finding, &repo, name)).await??.ok_or_else(missing)?;
    let etag = ETag::of_text(&match name.form {
        FileForm::Pack => name.checksum.to_string(),
        FileForm::Bundle => format!("bundle-{}", name.checksum),
    });
    if let Some(response) = conditional::not_modified(headers, &etag) {
        return Ok(with_caching(app, response));
    }
    let size = usize::try_from(file.len()).map_err(|_| Problem::new(Code::Internal, "the pack is too large"))?;
    let range = headers.get(RANGE).filter(|_| conditional::range_applies(headers, &etag));
    let wanted = range.and_then(|range| range.to_str().ok()).map_or(Wanted::Whole, |range| Wanted::read(range, size));
    let part = match &wanted {
        Wanted::Whole => 0..size,
        Wanted::Part(part) => part.clone(),
        Wanted::Unsatisfiable => return Err(Problem::unsatisfiable_range(size as u64)),
    };
    let length = part.len();
    let body = match is_head {
        true => Body::empty(),
        false => body::sized(pieces(app, Reading::new(file, part.start, part.end)).await?, length as u64),
    };
    let mut response = if wanted == Wanted::Whole { body.into_response() } else { shapes::partial(body) };
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Wanted::Part(part) = wanted
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1)))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    let content_type = match name.form {
        FileForm::Pack => "application/x-git-packed-objects",
        FileForm::Bundle => "application/x-git-bundle",
    };
    let fixed: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, content_type), (ACCEPT_RANGES, "bytes"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(with_caching(app, shapes::tagged(response, &etag)))
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
fn find(app: &App, repo: &Repo, name: FileName) -> Result<Option<File>> {
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
    Ok(Some(File { pack, head }))
}

/// A kept pack with what stands before it, and its checksum behind.
struct File {
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
    /// When the pack cannot be read.
    fn read_exact_at(&self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        let checksum = self.pack.checksum();
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
                    Part::Pack => self.pack.read_exact_at(within, now)?,
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

    /// What of the bytes from `at` on is the pack's that its checksum is of.
    fn checked<'b>(&self, at: u64, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.head.len() as u64;
        let within = |place: u64| usize::try_from(place.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        bytes.get(within(start)..within(start + self.pack.len())).unwrap_or_default()
    }
}

enum Part<'a> {
    Bytes(&'a [u8]),
    Pack,
}

/// A file that is being sent.
struct Reading {
    file: Arc<File>,
    /// Which bytes are still to be sent.
    at: u64,
    end: u64,
    /// What of them is at hand.
    chunk: Bytes,
    /// Of all that was read, if that is all of the file. Taken when the pack has been read to its end.
    hasher: Arc<Mutex<Option<PackHasher>>>,
}

impl Reading {
    fn new(file: File, start: usize, end: usize) -> Self {
        let (at, end) = (start as u64, end as u64);
        let is_all = at == 0 && end == file.len();
        let hasher = Arc::new(Mutex::new(is_all.then(PackHasher::default)));
        Self { file: Arc::new(file), at, end, chunk: Bytes::new(), hasher }
    }

    /// The next bytes; `None` at the end.
    async fn piece(&mut self, app: &Arc<App>) -> std::result::Result<Option<Bytes>, Problem> {
        if self.at == self.end {
            return Ok(None);
        }
        self.fill(app).await?;
        // A copy: a slice would keep the whole chunk for as long as the connection keeps the slice.
        let piece = self.chunk.split_to(self.chunk.len().min(PIECE_BYTES));
        self.at = self.at.saturating_add(piece.len() as u64);
        Ok(Some(Bytes::copy_from_slice(&piece)))
    }

    async fn fill(&mut self, app: &Arc<App>) -> std::result::Result<(), Problem> {
        if !self.chunk.is_empty() {
            return Ok(());
        }
        let len = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut pauses = Pauses::new(app);
        self.chunk = loop {
            let (file, hasher, at) = (Arc::clone(&self.file), Arc::clone(&self.hasher), self.at);
            match app.work.run(move || read(&file, &hasher, at, len)).await {
                Err(error) => pauses.after(error).await?,
                Ok(Ok(chunk)) => break chunk,
                Ok(Err(why)) => {
                    app.packs.drop_pack(&self.file.pack);
                    let detail = format!("a kept pack is damaged ({why}); fetch again");
                    return Err(Problem::new(Code::Corrupt, detail));
                }
            }
        };
        Ok(())
    }
}

/// The next bytes of a file; why the pack is no good, if it is not.
fn read(file: &File, hasher: &Mutex<Option<PackHasher>>, at: u64, len: usize) -> std::result::Result<Bytes, String> {
    let mut chunk = BytesMut::zeroed(len);
    file.read_exact_at(at, &mut chunk).map_err(|error| error.to_string())?;
    let mut hasher = hasher.lock();
    if let Some(hasher) = &mut *hasher {
        hasher.update(file.checked(at, &chunk));
    }
    let pack_end = file.head.len() as u64 + file.pack.len();
    if at.saturating_add(len as u64) >= pack_end
        && let Some(hasher) = hasher.take()
        && hasher.finish().map_err(|error| error.to_string())? != file.pack.checksum()
    {
        return Err("its checksum has changed".to_owned());
    }
    Ok(chunk.freeze())
}

async fn pieces(app: &Arc<App>, mut reading: Reading) -> std::result::Result<Body, Problem> {
    let held = app.bodies.hold(reading.end.saturating_sub(reading.at).min(CHUNK_BYTES as u64)).await?;
    // Before the answer begins: what cannot be read has a status then.
    reading.fill(app).await?;
    let state = (Arc::clone(app), reading, held);
    let pieces = stream::unfold(Some(state), |state| async move {
        let (app, mut reading, held): (Arc<App>, Reading, Held) = state?;
        match reading.piece(&app).await {
            Ok(Some(piece)) => Some((Ok(piece), Some((app, reading, held)))),
            Ok(None) => None,
            Err(problem) => {
                tracing::warn!(code = problem.code().as_str(), detail = problem.detail(), "a download was broken off");
                Some((Err(io::Error::other("the pack cannot be read on")), None))
            }
        }
    });
    Ok(app.bodies.made(pieces))
}

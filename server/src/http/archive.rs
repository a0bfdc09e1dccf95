//! The files of a commit as one tar or zip file.
//!
//! The answer is made while it is sent: a step runs on a thread of the work pool and makes a piece of some 64 KiB, and the
//! next one waits until the client has taken that. Between steps an archive holds no thread, and of memory what it has of
//! the budget for what clients hold. A client that takes nothing for `server.body_timeout` loses its answer.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    answer,
    body::Held,
    conditional::{self, ETag},
    extract::{Params, RestText},
    problem::{Code, Problem, Thing, about},
    revision,
    versions::{AtParams, View},
};
use crate::{
    app::App,
    archive::{Archive, Contents, Format, Step},
};

/// Changes with every change of what an archive of the same commit consists of, also with one of the compressor's.
const EDITION: u32 = 1;
/// How long a step that found no thread waits before it asks again, and how often it does.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
const BUSY_TRIES: usize = 20;
/// The longest name of a file that is offered to a client, without its ending.
const NAME_BYTES_MAX: usize = 150;

/// What goes in, and under which names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ArchiveParams {
    /// Stands before every path; a directory if it ends in a slash. Nothing if absent.
    prefix: Option<String>,
    /// The only directory or file that goes in, under its whole path; everything if absent.
    path: Option<String>,
}

/// Download the files of a commit
///
/// `name` is a branch, tag or commit, its slashes as they are, followed by `.tar.gz`, `.tgz`, `.tar` or `.zip`. The
/// same commit gives the same bytes; a tar file has those of `git archive`. Files with the attribute `export-ignore`
/// are left out.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/archive/{*name}", tag = "content", operation_id = "archive",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "A revision and the format, such as `main.tar.gz`"),
        ArchiveParams,
        AtParams,
    ),
    responses(
        (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/gzip"),
        (status = 304, description = "The client has it already"),
    ),
)]
pub(super) async fn archive(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    RestText(name): RestText,
    Params(params): Params<ArchiveParams>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (rev, format) = Format::split(&name).ok_or_else(|| {
        Problem::invalid(format!("{name:?} is no revision with .tar.gz, .tgz, .tar or .zip behind it"))
    })?;
    let commit = revision::commit(&app, &snapshot, rev).await?;
    let contents = Contents {
        commit,
        prefix: params.prefix.unwrap_or_default().into_bytes(),
        path: params.path.as_deref().unwrap_or_default().trim_matches('/').as_bytes().to_vec(),
    };
    if snapshot.entry(commit, &contents.path).map_err(about(Thing::File))?.is_none() {
        let path = String::from_utf8_lossy(&contents.path).into_owned();
        return Err(Problem::new(Code::FileNotFound, format!("no path {path:?} at {commit}")));
    }
    let etag = etag(&contents, format)?;
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(answer::at_commit(response, &commit));
    }
    let repo = snapshot.repo().name();
    let file = file_name(repo.as_str(), rev, &contents.path, format);
    let archive = Archive::new(snapshot, &contents, format)?;
    // How long it would be is not known, which an empty body would say.
    let body = match method {
        Method::HEAD => Body::from_stream(stream::empty::<io::Result<Bytes>>()),
        _ => body(&app, archive).await?,
    };
    let mut response = body.into_response();
    let fixed: [(HeaderName, &'static str); 2] =
        [(CONTENT_TYPE, format.content_type()), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{file}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    Ok(answer::at_commit(answer::tagged(response, &etag), &commit))
}

/// The tag of an archive: of all that its bytes depend on.
fn etag(contents: &Contents, format: Format) -> Result<ETag, Problem> {
    let Contents { commit, prefix, path } = contents;
    let mut text = format!("archive {EDITION} {commit} {} {} ", format.ending(), prefix.len()).into_bytes();
    text.extend_from_slice(prefix);
    text.extend_from_slice(path);
    ETag::of_bytes(&text)
}

/// The name that a client may give the file: letters, digits, dots, dashes, whatever the revision is called.
fn file_name(repo: &str, rev: &str, path: &[u8], format: Format) -> String {
    let repo = repo.rsplit('/').next().unwrap_or(repo);
    let path = String::from_utf8_lossy(path);
    let name = [repo, rev, &path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).take(NAME_BYTES_MAX).collect();
    format!("{}.{}", name.trim_start_matches(['.', '-']), format.ending())
}

/// An archive that is being sent.
struct Sending {
    app: Arc<App>,
    archive: Arc<Mutex<Archive>>,
    held: Held,
    /// How often it is tried again where the server is busy.
    busy_tries: usize,
}

/// The body, whose first piece is made before the answer begins: most that can go wrong has a status then.
async fn body(app: &Arc<App>, archive: Archive) -> Result<Body, Problem> {
    let archive = Arc::new(Mutex::new(archive));
    let mut sending = Sending { app: Arc::clone(app), archive, held: Held::default(), busy_tries: 0 };
    let Some(first) = sending.piece().await? else { return Ok(Body::empty()) };
    // What was promised with a status is not taken back for a moment's load.
    sending.busy_tries = BUSY_TRIES;
    let rest = stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        match sending.piece().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(sending))),
            Ok(None) => None,
            Err(problem) => {
                tracing::warn!(code = problem.code().as_str(), detail = problem.detail(), "an archive was broken off");
                Some((Err(io::Error::other("the archive cannot be read on")), None))
            }
        }
    });
    Ok(app.bodies.made(stream::iter([Ok(first)]).chain(rest)))
}

impl Sending {
    /// The next bytes; `None` at the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut tries = 0;
        loop {
            let archive = Arc::clone(&self.archive);
            let step = self.app.work.run_piece(move || {
                let mut archive = archive.lock();
                archive.step().map(|step| (step, archive.held_bytes()))
            });
            let (step, held_bytes) = match step.await {
                Ok(step) => step?,
                Err(crate::WorkError::Busy) if tries < self.busy_tries && !self.app.is_draining() => {
                    tries += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match step {
                Step::Needs(bytes) => self.hold(bytes).await?,
                Step::Pause => {}
                Step::Piece(piece) => {
                    self.held.shrink(held_bytes);
                    self.archive.lock().grant(held_bytes);
                    return Ok(Some(piece));
                }
                Step::End => return Ok(None),
            }
        }
    }

    /// Takes so much of the budget and lets the archive use it.
    async fn hold(&mut self, bytes: u64) -> Result<(), Problem> {
        let mut tries = 0;
        while let Err(problem) = self.app.bodies.grow(&mut self.held, bytes).await {
            if tries >= self.busy_tries {
                return Err(problem);
            }
            tries += 1;
        }
        self.archive.lock().grant(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Contents, Format, etag, file_name};

    #[test]
    fn names_of_files_are_harmless() {
        let check = |repo: &str, rev: &str, path: &str, expected: &str| {
            assert_eq!(file_name(repo, rev, path.as_bytes(), Format::TarGzip), expected);
        };
        check("ada/hello", "main", "", "hello-main.tar.gz");
        check("hello", "topic/x", "src/deep", "hello-topic-x-src-deep.tar.gz");
        check("hello", "a\"; x=\r\né", "", "hello-a---x----.tar.gz");
        check("h", &"x".repeat(500), "", &format!("h-{}.tar.gz", "x".repeat(148)));
    }

    #[test]
    fn a_tag_is_that_of_all_that_goes_in() {
        let commit = "a".repeat(40).parse().expect("an id");
        let of = |prefix: &str, path: &str, format| {
            let contents = Contents { commit, prefix: prefix.as_bytes().to_vec(), path: path.as_bytes().to_vec() };
            etag(&contents, format).expect("a tag").as_str().to_owned()
        };
        let tags = [
            of("", "", Format::Tar),
            of("", "", Format::Zip),
            of("", "", Format::TarGzip),
            of("a", "", Format::Tar),
            of("", "a", Format::Tar),
            of("a", "b", Format::Tar),
            of("ab", "", Format::Tar),
        ];
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags.iter().skip(at + 1).any(|other| other == tag), "{at}");
        }
        assert_eq!(of("a", "b", Format::Tar), of("a", "b", Format::Tar));
    }
}

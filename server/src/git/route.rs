//! Git's paths, headers and refusals.
//!
//! `GET /{repo}[.git]/info/refs?service=…` and `POST /{repo}[.git]/git-upload-pack` or `…/git-receive-pack`, where a
//! repository is one to three segments; and for what fetches point at, `GET /{repo}[.git]/info/bundles` and
//! `…/info/packs/{file}`. Refusals are plain text, which git shows; what can be told within the
//! protocol is, with status 200, by the services themselves.
//! Source: git's `Documentation/gitprotocol-http`, `http-backend.c`.

use std::io::{self, Cursor};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, EXPIRES, HeaderName, PRAGMA,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::any};
use govc_engine::{Error, ErrorKind, Repo, RepoName, Result};
use percent_encoding::percent_decode_str;

use super::advertise::{self, Service, Version};
use super::arrival::{self, Commands, Lent, Push};
use super::bridge::{self, Failure, Flow, Limited};
use super::inlet::Inlet;
use super::pointers::Pointers;
use super::receive_pack::{ACTOR, Target};
use super::{command, download, pkt, upload_pack};
use crate::App;
use crate::http::problem::{Code, Problem, Thing, about};
use crate::telemetry::ServerOptions;

/// The most that a fetch may send, uncompressed: far more than a million haves.
pub(super) const FETCH_BYTES_MAX: u64 = 128 << 20;

/// What a push may send besides its pack, in bytes.
pub(super) const COMMANDS_BYTES_MAX: u64 = 64 << 20;

/// So many bytes of a body, or all of it, are here before a thread is asked for.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;

/// Up to this many references are listed where the request is served, without a thread of the pool.
pub(super) const INLINE_REFERENCES_MAX: usize = 1000;

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");

/// All routes of Git's protocol.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for repo in ["/{a}", "/{a}/{b}", "/{a}/{b}/{c}"] {
        router = router
            .route(&format!("{repo}/info/refs"), any(info_refs))
            .route(&format!("{repo}/git-upload-pack"), any(upload_pack))
            .route(&format!("{repo}/git-receive-pack"), any(receive_pack))
            .route(&format!("{repo}/info/bundles"), any(download::bundles))
            .route(&format!("{repo}/info/packs/{{file}}"), any(download::pack));
    }
    // Of a repository by the name of `…/info/packs`.
    router = router
        .route("/{a}/info/packs/git-upload-pack", any(upload_pack))
        .route("/{a}/info/packs/git-receive-pack", any(receive_pack));
    router.with_state(app)
}

async fn info_refs(State(app): State<Arc<App>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD", request);
    }
    let mut services = request.uri().query().unwrap_or_default().split('&');
    let Some(named) = services.find_map(|pair| pair.strip_prefix("service=")) else {
        let text = "this server speaks Git's smart HTTP protocol only; a client of git 1.6.6 or newer is needed";
        return refuse(Problem::invalid(text), text);
    };
    let Some(service) = Service::from_name(named) else {
        let text = format!("unsupported service: '{}'", pkt::one_line(named));
        return refuse(Problem::invalid(text.as_str()), &text);
    };
    let version = version_of(request.headers());
    let content_type = match service {
        Service::UploadPack => "application/x-git-upload-pack-advertisement",
        Service::ReceivePack => "application/x-git-receive-pack-advertisement",
    };
    let nonce_for = |name: &RepoName| (service == Service::ReceivePack).then(|| app.push_certs.nonce(name));
    let repo = match repo_of(&app, request.uri().path(), "/info/refs") {
        Ok(repo) => repo,
        // Looking creates nothing: only a push that brings something does.
        Err(Missing::Repo(name)) if service == Service::ReceivePack && app.config.git.create_on_push => {
            let (nonce, mut out) = (nonce_for(&name), Vec::new());
            return answer_inline(
                advertise::unborn(app.config.git.default_object_format, version, nonce.as_deref(), &mut out),
                out,
                content_type,
            );
        }
        Err(missing) => return missing.refuse(),
    };
    let snapshot = repo.snapshot();
    if service == Service::UploadPack && version == Version::V2 {
        let mut out = Vec::new();
        let pointers = Pointers::over_http(&app, &request, &repo.name());
        let written = advertise::capabilities_v2(repo.object_format(), &pointers, &mut out).map_err(pkt::input_error);
        return answer_inline(written, out, content_type);
    }
    let nonce = nonce_for(&repo.name());
    if snapshot.reference_count() <= INLINE_REFERENCES_MAX {
        let mut out = Vec::new();
        let written = advertise::references(&snapshot, service, version, nonce.as_deref(), &mut out);
        return answer_inline(written, out, content_type);
    }
    let stall_max = app.config.server.body_timeout;
    let response = bridge::start(&app, stall_max, Arc::default(), move |_, out| {
        advertise::references(&snapshot, service, version, nonce.as_deref(), out).map(|()| None)
    });
    respond(response, content_type).await
}

async fn upload_pack(State(app): State<Arc<App>>, request: Request) -> Response {
    serve(app, Service::UploadPack, request).await
}

async fn receive_pack(State(app): State<Arc<App>>, request: Request) -> Response {
    serve(app, Service::ReceivePack, request).await
}

/// Answers a request of a service.
async fn serve(app: Arc<App>, service: Service, request: Request) -> Response {
    let (ending, request_type, result_type, bytes_max) = match service {
        Service::UploadPack => (
            "/git-upload-pack",
            "application/x-git-upload-pack-request",
            "application/x-git-upload-pack-result",
            FETCH_BYTES_MAX,
        ),
        Service::ReceivePack => (
            "/git-receive-pack",
            "application/x-git-receive-pack-request",
            "application/x-git-receive-pack-result",
            arrival::request_bytes_max(&app),
        ),
    };
    if request.method() != Method::POST {
        return method_not_allowed("POST", request);
    }
    let found = match repo_of(&app, request.uri().path(), ending) {
        Err(Missing::Repo(name)) if service == Service::ReceivePack && app.config.git.create_on_push => {
            let draft = app.store.draft(&name, app.config.new_repo_settings(), ACTOR);
            draft.map(|repo| (repo, true)).map_err(Missing::Store)
        }
        found => found.map(|repo| (repo, false)),
    };
    let headers = check_headers(request.headers(), request_type, bytes_max);
    let checked = found.map_err(|missing| Box::new(missing.refuse())).and_then(|found| Ok((found, headers?)));
    let ((repo, is_draft), headers) = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            discard(request);
            return *refusal;
        }
    };
    let version = version_of(request.headers());
    let server_options = request.extensions().get::<ServerOptions>().cloned().unwrap_or_default();
    let pointers = Pointers::over_http(&app, &request, &repo.name());
    let flow = Arc::new(Flow::noting(server_options).pointing(pointers));
    let stall_max = app.config.server.body_timeout;
    let BodyHeaders { gzip, wire_bytes } = headers;
    let input = match Inlet::of_body(request.into_body(), gzip, wire_bytes, stall_max, &flow).await {
        Ok(input) => input,
        Err(error) => return refuse_failure(Failure::of_input(error)),
    };
    let response = match service {
        Service::UploadPack => fetch(&app, repo, version, input, flow).await,
        Service::ReceivePack => {
            let target = Target { repo, is_draft, actor: ACTOR.into(), is_live: false, nonce: None };
            push(&app, target, input, flow).await
        }
    };
    match response {
        Ok(Answer::Made(response)) => respond(response, result_type).await,
        Ok(Answer::Whole(out)) => answer(Body::from(out), result_type),
        Err(failure) => refuse_failure(failure),
    }
}

enum Answer {
    Whole(Vec<u8>),
    Made(bridge::Response),
}

/// Answers a fetch, the most frequent of all requests at once.
async fn fetch(
    app: &Arc<App>,
    repo: Repo,
    version: Version,
    mut input: Inlet,
    flow: Arc<Flow>,
) -> std::result::Result<Answer, Failure> {
    let (beginning, is_whole) = input.beginning(SMALL_BYTES_MAX).await.map_err(Failure::of_input)?;
    if is_whole
        && version == Version::V2
        && command::lists_references(&beginning)
        && repo.snapshot().reference_count() <= INLINE_REFERENCES_MAX
    {
        let mut out = Vec::new();
        let served = upload_pack::serve(app, &repo, version, &mut Cursor::new(beginning), &mut out, &flow);
        return served.map(|_| Answer::Whole(out)).map_err(Failure::Engine);
    }
    input.unread(beginning);
    let work_flow = Arc::clone(&flow);
    Ok(Answer::Made(bridge::start(app, app.config.server.body_timeout, flow, move |app, out| {
        let mut input = Limited::new(input, FETCH_BYTES_MAX);
        upload_pack::serve(app, &repo, version, &mut input, out, &work_flow)
    })))
}

/// Answers a push.
async fn push(
    app: &Arc<App>,
    target: Target,
    mut input: Inlet,
    flow: Arc<Flow>,
) -> std::result::Result<Answer, Failure> {
    let commands = Commands::read(app, target.repo.object_format(), &mut input).await?;
    let Some(commands) = commands else { return Ok(Answer::Whole(Vec::new())) };
    if commands.awaits_pack() {
        let (beginning, _) = input.beginning(SMALL_BYTES_MAX).await.map_err(Failure::of_input)?;
        input.unread(beginning);
    }
    let (input, _) = Lent::new(input);
    Ok(Answer::Made(Push { target, commands, input }.start(app, flow)))
}

/// What the headers say of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BodyHeaders {
    gzip: bool,
    /// The length on the wire, if it was said.
    wire_bytes: Option<u64>,
}

fn check_headers(
    headers: &HeaderMap,
    request_type: &str,
    bytes_max: u64,
) -> std::result::Result<BodyHeaders, Box<Response>> {
    let text_of = |name: HeaderName| headers.get(name).map_or(Ok(""), HeaderValue::to_str).unwrap_or("?");
    let refuse = |code, text: String| Err(Box::new(refuse(Problem::new(code, text.as_str()), &text)));
    let content_type = text_of(CONTENT_TYPE);
    if content_type != request_type {
        let content_type = pkt::one_line(content_type);
        let text = format!("expected POST with Content-Type '{request_type}', but received '{content_type}' instead");
        return refuse(Code::UnsupportedMediaType, text);
    }
    let encoding = text_of(CONTENT_ENCODING);
    let gzip = ["gzip", "x-gzip"].iter().any(|name| encoding.eq_ignore_ascii_case(name));
    if !gzip && !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let text = format!("content encoding '{}' is not supported, gzip is", pkt::one_line(encoding));
        return refuse(Code::UnsupportedMediaType, text);
    }
    let wire_bytes: Option<u64> = text_of(CONTENT_LENGTH).parse().ok();
    if wire_bytes.is_some_and(|bytes| bytes > bytes_max) {
        let text = format!("the request is larger than the limit of {bytes_max} bytes");
        return refuse(Code::BodyTooLarge, text);
    }
    Ok(BodyHeaders { gzip, wire_bytes })
}

fn version_of(headers: &HeaderMap) -> Version {
    let header = headers.get(GIT_PROTOCOL).and_then(|value| value.to_str().ok());
    Version::from_header(header.unwrap_or_default())
}

/// Why a path leads to no repository.
pub(super) enum Missing {
    /// The name is valid, and nothing has it.
    Repo(RepoName),
    /// The name cannot be one.
    Name(Error),
    /// The store does not answer.
    Store(Error),
}

impl Missing {
    pub(super) fn refuse(self) -> Response {
        let (problem, text) = match self {
            Missing::Repo(name) => {
                let text = format!("repository '{name}' does not exist");
                (Problem::new(Code::RepoNotFound, text.as_str()), text)
            }
            Missing::Name(error) => {
                let text = format!("there is no such repository: {}", error.message());
                (Problem::new(Code::RepoNotFound, text.as_str()), text)
            }
            Missing::Store(error) => {
                let text = error.message().to_owned();
                (about(Thing::Repo)(error), text)
            }
        };
        refuse(problem, &text)
    }
}

pub(super) fn repo_of(app: &App, path: &str, ending: &str) -> std::result::Result<Repo, Missing> {
    let name = repo_name(path, ending).map_err(Missing::Name)?;
    app.store.repo(&name).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Missing::Repo(name),
        _ => Missing::Store(error),
    })
}

/// The repository that a path names, with or without `.git`.
pub(crate) fn repo_name(path: &str, ending: &str) -> Result<RepoName> {
    let encoded = path.strip_suffix(ending).unwrap_or(path).trim_start_matches('/');
    let decoded = percent_decode_str(encoded).decode_utf8();
    let name = decoded.map_err(|_| Error::invalid("the name is not UTF-8"))?;
    RepoName::new(name.strip_suffix(".git").unwrap_or(&name))
}

/// Answers with the first chunk at hand, or with the reason why there is none.
async fn respond(mut response: bridge::Response, content_type: &'static str) -> Response {
    match response.next().await {
        Some(Ok(first)) => answer(response.into_body(first), content_type),
        Some(Err(failure)) => refuse_failure(failure),
        None => answer(Body::empty(), content_type),
    }
}

fn answer_inline(served: Result<()>, out: Vec<u8>, content_type: &'static str) -> Response {
    match served {
        Ok(()) => answer(Body::from(out), content_type),
        Err(error) => refuse_failure(Failure::Engine(error)),
    }
}

pub(super) fn answer(body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    forbid_caching(response.headers_mut());
    response
}

fn forbid_caching(headers: &mut HeaderMap) {
    headers.insert(EXPIRES, HeaderValue::from_static("Fri, 01 Jan 1980 00:00:00 GMT"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0, must-revalidate"));
}

/// A refusal with the problem's status and headers, and a text in place of its document: git shows plain text.
pub(super) fn refuse(problem: Problem, text: &str) -> Response {
    let mut response = problem.into_response();
    *response.body_mut() = Body::from(format!("{text}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    forbid_caching(response.headers_mut());
    response
}

fn refuse_failure(failure: Failure) -> Response {
    let text = failure.to_string();
    let problem = match failure {
        Failure::Engine(error) => match bridge::client_failure(&error) {
            Some(io::ErrorKind::TimedOut) => Problem::new(Code::RequestTimeout, text.as_str()),
            Some(_) => Problem::invalid(text.as_str()),
            None => about(Thing::Repo)(error),
        },
        Failure::Work(error) => Problem::from(error),
        Failure::Stopping => Problem::new(Code::Busy, text.as_str()),
    };
    refuse(problem, &text)
}

pub(super) fn method_not_allowed(allowed: &'static str, request: Request) -> Response {
    let text = format!("{} is not allowed here", pkt::one_line(request.method().as_str()));
    discard(request);
    let mut response = refuse(Problem::new(Code::MethodNotAllowed, text.as_str()), &text);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Lets the client finish sending, unless it waits for leave to begin.
fn discard(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        bridge::discard(request.into_body());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_one_name_with_and_without_its_ending() {
        let name = |path| repo_name(path, "/info/refs").map(|name| name.as_str().to_owned());
        for (path, expected) in [
            ("/demo.git/info/refs", "demo"),
            ("/demo/info/refs", "demo"),
            ("/a/b/c.git/info/refs", "a/b/c"),
            ("/d%65mo.git/info/refs", "demo"),
        ] {
            assert_eq!(name(path).unwrap(), expected, "{path}");
        }
        for path in
            ["/a.git/b.git/info/refs", "/../x/info/refs", "/.git/info/refs", "/%ff/info/refs", "/a%00/info/refs"]
        {
            assert!(name(path).is_err(), "{path}");
        }
    }

    const UPLOAD: &str = "application/x-git-upload-pack-request";

    fn check(headers: &[(HeaderName, &'static str)]) -> std::result::Result<BodyHeaders, u16> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        check_headers(&headers, UPLOAD, 1000).map_err(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn headers_of_a_body_are_checked() {
        let typed = (CONTENT_TYPE, UPLOAD);
        let plain = BodyHeaders { gzip: false, wire_bytes: None };
        assert_eq!(check(std::slice::from_ref(&typed)), Ok(plain));
        assert_eq!(
            check(&[typed.clone(), (CONTENT_LENGTH, "1000")]),
            Ok(BodyHeaders { wire_bytes: Some(1000), ..plain })
        );
        assert_eq!(check(&[typed.clone(), (CONTENT_ENCODING, "x-gzip")]), Ok(BodyHeaders { gzip: true, ..plain }));
        assert_eq!(check(&[]), Err(415));
        assert_eq!(check(&[(CONTENT_TYPE, "text/plain")]), Err(415));
        assert_eq!(check(&[typed.clone(), (CONTENT_ENCODING, "br")]), Err(415));
        assert_eq!(check(&[typed, (CONTENT_LENGTH, "1001")]), Err(413));
    }

    #[test]
    fn a_client_that_was_too_slow_is_told_so() {
        let refusal = |kind| refuse_failure(Failure::Engine(pkt::input_error(std::io::Error::from(kind))));
        assert_eq!(refusal(std::io::ErrorKind::TimedOut).status().as_u16(), 408);
        assert_eq!(refusal(std::io::ErrorKind::ConnectionAborted).status().as_u16(), 400);
    }

    #[test]
    fn refusals_are_plain_text_that_nobody_caches() {
        let response = Missing::Repo(RepoName::new("demo").unwrap()).refuse();
        assert_eq!(response.status().as_u16(), 404);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert!(response.headers()[CACHE_CONTROL].to_str().unwrap().starts_with("no-cache"));
    }
}

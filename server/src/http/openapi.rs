//! The OpenAPI document: made from the routes themselves, so it cannot say what the server does not do.
//!
//! Handlers describe their successes; what can go wrong follows from an operation's shape (does it name a
//! repository, has it a body, does it write) and is added here, with the statuses that `problem` gives.

use axum::{
    body::Bytes,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi,
    openapi::{
        self, Content, Ref, ResponseBuilder,
        path::{Operation, PathItem},
    },
};

use super::{
    problem::{Code, ProblemDocument},
    versions::is_reading_post,
};

/// What the document says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "govc",
        description = "Git repositories in a memory-first database.\n\n\
            A repository's id has one to three segments joined by `/` and stands in paths as one segment, \
            percent-encoded: `team%2Fsite`. Lists come in pages: follow the `Link` header, or give `next_cursor` \
            back as `cursor`. Reads carry an `ETag` and honour `If-None-Match`; writes honour `If-Match`, and \
            `Idempotency-Key`, whose answers are kept for 24 hours in the memory of the process. Errors are \
            `application/problem+json`; programs decide by `code`."
    ),
    tags(
        (name = "repositories", description = "Create, list, change, delete"),
        (name = "commits", description = "Make commits from JSON, read histories"),
        (name = "branches", description = "List, create, delete"),
        (name = "tags", description = "List, create, delete"),
        (name = "content", description = "Directories and files at a commit"),
        (name = "search", description = "Find lines"),
        (name = "compaction", description = "Store repositories smaller"),
        (name = "system", description = "Health and version"),
    ),
    components(schemas(ProblemDocument)),
)]
struct Base;

/// The document before the routes are added.
pub(super) fn base() -> openapi::OpenApi {
    Base::openapi()
}

/// The finished document as JSON.
pub(super) fn finish(mut document: openapi::OpenApi) -> Bytes {
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        describe_problems(&path, &mut item);
        // OpenAPI has no name for a parameter that spans several segments.
        document.paths.paths.insert(path.replace("{*", "{"), item);
    }
    Bytes::from(document.to_json().expect("a document made of strings and maps is JSON"))
}

/// Answers with the document.
pub(super) fn serve(document: Bytes) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], document).into_response()
}

fn describe_problems(path: &str, item: &mut PathItem) {
    if !path.starts_with("/api/") {
        return;
    }
    let names_repository = path.contains("{id}");
    let only_reads = is_reading_post(path);
    let operations = [
        (&mut item.get, false),
        (&mut item.post, !only_reads),
        (&mut item.put, true),
        (&mut item.patch, true),
        (&mut item.delete, true),
    ];
    for (operation, writes) in operations {
        let Some(operation) = operation else { continue };
        add(operation, Code::InvalidRequest, "The request breaks a rule, which the answer names");
        add(operation, Code::Busy, "The server is busy, or the store takes no writes; try again");
        if names_repository {
            add(operation, Code::RepoNotFound, "The repository, or what is named in it, is not there");
        }
        if operation.request_body.is_some() {
            add(operation, Code::RequestTimeout, "The body did not arrive in time");
            add(operation, Code::BodyTooLarge, "The body, or an object in it, is too large");
            add(operation, Code::UnsupportedMediaType, "The body is not JSON");
        }
        if writes {
            let conflict = "A thing of that name is there, or a reference is not at what was expected";
            add(operation, Code::Conflict, conflict);
            add(operation, Code::PreconditionFailed, "What If-Match names is not there any more");
            add(operation, Code::IdempotencyKeyReused, "The idempotency key was used with another body");
            add(operation, Code::StorageFull, "The storage is full; nothing was stored, reads go on");
            add(operation, Code::StorageUnavailable, "The storage cannot be reached for now; nothing was stored");
        }
        let other = problem("Any other problem");
        operation.responses.responses.entry("default".to_owned()).or_insert_with(|| other.into());
    }
}

fn add(operation: &mut Operation, code: Code, description: &str) {
    let status = code.status().as_u16().to_string();
    operation.responses.responses.entry(status).or_insert_with(|| problem(description).into());
}

fn problem(description: &str) -> openapi::Response {
    let content = Content::builder().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

//! Tags: list, create (lightweight, or annotated when there is a message), show, delete.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use govc_engine::{Expected, Kind, Oid, RefName, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ACTOR, answer,
    branches::{deletable, missing, named, names_after},
    conditional::{self, ETag},
    extract::{InRepo, JsonBody, Params, Rest},
    page,
    people::{self, PersonInfo, PersonInput},
    problem::{Code, Problem, Thing, about},
    repos::PageParams,
    revision,
    time::Moment,
    versions::{AtParams, View},
};
use crate::app::App;

/// Where tags are among the references.
const TAGS: &[u8] = b"refs/tags/";

/// A tag.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TagInfo {
    #[schema(example = "v1.0.0")]
    name: String,
    /// The name's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    /// What the reference holds: the tag object of an annotated tag, else the tagged object.
    hash: String,
    /// What is tagged, behind all tag objects.
    target: String,
    /// `commit`, `tree` or `blob`.
    #[schema(value_type = String, example = "commit")]
    target_type: &'static str,
    annotated: bool,
    /// The message of an annotated tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Who made an annotated tag; old ones name nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    tagger: Option<PersonInfo>,
}

/// Tags in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TagPage {
    tags: Vec<TagInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// A tag to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTag {
    #[schema(example = "v1.0.0")]
    name: String,
    /// A branch, tag, commit or other object; the default branch if absent.
    target: Option<String>,
    /// Makes the tag an annotated one.
    message: Option<String>,
    /// Who makes an annotated tag; `govc <govc@localhost>` if absent.
    tagger: Option<PersonInput>,
    /// The address of a tagger that is a text.
    email: Option<String>,
}

/// List tags
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/tags", tag = "tags", operation_id = "list_tags",
    params(("id" = String, Path, description = "The repository, percent-encoded"), PageParams, AtParams),
    responses((status = 200, description = "A page of tags", body = TagPage)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    Params(params): Params<PageParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    // Each annotated tag is an object to be read, which may be on disk.
    let body = app
        .work
        .run(move || {
            let (names, more) = names_after(&snapshot, TAGS, params.cursor.as_deref(), limit)?;
            let next_cursor = names.last().filter(|_| more).map(|(name, _)| page::cursor(name.as_bytes()));
            let read = |(name, oid): &(RefName, Oid)| TagInfo::read(&snapshot, name, oid);
            let tags = names.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Problem>(TagPage { count: tags.len(), tags, next_cursor })
        })
        .await??;
    Ok(page::with_next(answer::ok(&body), &uri, body.next_cursor.as_deref()))
}

/// Create a tag
///
/// With a message the tag is an annotated one, an object of its own; without, just a name for its target.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/tags", tag = "tags", operation_id = "create_tag",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = NewTag,
    responses((status = 201, description = "The new tag", body = TagInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    JsonBody(new, _held): JsonBody<NewTag>,
) -> Result<Response, Problem> {
    let name = RefName::tag(&new.name)?;
    let target = revision::object(&app, &repo.snapshot(), new.target.as_deref().unwrap_or("HEAD")).await?;
    let (oid, published) = match &new.message {
        Some(message) => {
            let (now, email) = (Moment::now(), new.email.as_deref());
            let tagger = match &new.tagger {
                Some(person) => person.sign(email, now)?,
                None => people::nobody(email, now)?,
            };
            repo.create_tag(&name, target, tagger, message, ACTOR).map_err(about(Thing::Tag))?
        }
        None if new.tagger.is_some() || new.email.is_some() => {
            return Err(Problem::invalid("a tag without a message has no tagger"));
        }
        None => (target, repo.create_ref(name.clone(), target, ACTOR).map_err(about(Thing::Tag))?),
    };
    published.ticket.await?;
    let info = TagInfo::read(&repo.snapshot(), &name, &oid)?;
    let location = answer::location(repo.name().as_str(), &format!("/tags/{}", name.short()));
    Ok(answer::created(&location, Some(&ETag::of(&oid)), &info))
}

/// Show a tag
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/tags/{*name}", tag = "tags", operation_id = "get_tag",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The tag; slashes may stand as they are"),
        AtParams,
    ),
    responses((status = 200, description = "The tag", body = TagInfo)),
)]
pub(super) async fn show(View(snapshot): View, Rest(short): Rest, headers: HeaderMap) -> Result<Response, Problem> {
    let name = named(TAGS, &short)?;
    let oid = snapshot.reference(&name).ok_or_else(|| missing(Code::TagNotFound, &name))?;
    let etag = ETag::of(&oid);
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(response);
    }
    Ok(answer::tagged(answer::ok(&TagInfo::read(&snapshot, &name, &oid)?), &etag))
}

/// Delete a tag
///
/// `If-Match` with the id that the tag holds deletes it only if it still does.
#[utoipa::path(
    delete, path = "/api/v1/repos/{id}/tags/{*name}", tag = "tags", operation_id = "delete_tag",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The tag; slashes may stand as they are"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(InRepo(repo): InRepo, Rest(short): Rest, headers: HeaderMap) -> Result<Response, Problem> {
    let name = named(TAGS, &short)?;
    let expected = deletable(&repo.snapshot(), &headers, &name, Code::TagNotFound)?;
    let published = repo.delete_ref(name, expected, ACTOR).map_err(|error| {
        let problem = about(Thing::Tag)(error);
        if expected == Expected::Any { problem } else { problem.of_precondition() }
    })?;
    published.ticket.await?;
    Ok(answer::no_content())
}

impl TagInfo {
    fn read(snapshot: &Snapshot, name: &RefName, oid: &Oid) -> Result<Self, Problem> {
        let (text, name_base64) = answer::lossy(name.as_bytes().strip_prefix(TAGS).unwrap_or_default());
        let (target, target_kind) = snapshot.peel(*oid)?;
        let annotation = match snapshot.header(oid)? {
            Some((Kind::Tag, _)) => Some(snapshot.tag(oid)?),
            _ => None,
        };
        Ok(Self {
            name: text,
            name_base64,
            hash: oid.to_string(),
            target: target.to_string(),
            target_type: target_kind.as_str(),
            annotated: annotation.is_some(),
            message: annotation.as_ref().map(|tag| String::from_utf8_lossy(&tag.message).into_owned()),
            tagger: annotation.and_then(|tag| tag.tagger).map(|tagger| PersonInfo::from(&tagger)),
        })
    }
}

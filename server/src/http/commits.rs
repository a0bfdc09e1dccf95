//! Commits: make one from JSON, show one, list a history.
//!
//! Making one is a memory operation and the wait for its ticket; only a large body, or one of many changes, is parsed,
//! hashed and committed on the pool of blocking threads. The acknowledgement is sent after the ticket, so what was
//! answered is durable as the repository promises.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use govc_engine::{
    Change, ChangeSet, ChangeStatus, Commit, CommitRequest, Committed, Content, EntryMode, Expected, FileChange,
    LogCursor, LogOptions, ObjectFormat, Oid, OnConflict, RefConflict, RefName, Repo, Signature, Snapshot,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ACTOR, answer,
    conditional::{self, ETag},
    extract::{InRepo, JsonBody, Params, RawJson, RestText, present},
    page,
    people::{self, PersonInfo, PersonInput},
    problem::{Code, Problem, Thing, about},
    revision,
    time::Moment,
    versions::{AtParams, View},
};
use crate::app::App;

/// How many changed files of a commit are listed.
pub(super) const FILES_MAX: usize = 3000;

/// Up to this size, in bytes, and with so many changes, a commit is made where its request is served.
const INLINE_COMMIT_BYTES_MAX: usize = 64 << 10;
const INLINE_CHANGES_MAX: usize = 16;

/// A commit to be made: any number of changes, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCommit {
    /// The default branch if absent.
    #[schema(example = "main")]
    branch: Option<String>,
    message: String,
    /// `govc <govc@localhost>` if absent.
    author: Option<PersonInput>,
    /// The address of an author that is a text.
    email: Option<String>,
    /// The author, now, if absent.
    committer: Option<PersonInput>,
    #[serde(default)]
    changes: Vec<ChangeInput>,
    /// The commit that the branch must be at, else 409. Null: the branch must not exist. Absent: anything goes.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    expected_head: Option<Option<String>>,
    /// What to do when the branch is somewhere else, and was at `expected_head`, or moves meanwhile: `fail`, `rebase` (redo
    /// the changes on the new head) or `merge` (merge them into it). 409 if the branch has changed the same paths.
    /// `fail` if absent.
    on_conflict: Option<OnConflictInput>,
    /// Where a branch that does not exist begins: a branch, tag or commit.
    create_branch_from: Option<String>,
    /// Whether a commit that changes nothing may be made.
    #[serde(default)]
    allow_empty: bool,
}

/// What becomes of a commit whose branch has moved.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnConflictInput {
    /// 409.
    Fail,
    /// The changes are redone on the new head.
    Rebase,
    /// The changes are merged into the new head.
    Merge,
}

/// One change of a file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeInput {
    op: ChangeOp,
    #[schema(example = "src/main.rs")]
    path: String,
    /// For `put`, and for `move` if the content changes: a text,
    content: Option<String>,
    /// or bytes in Base64,
    content_base64: Option<String>,
    /// or the id of a blob that the repository has.
    blob: Option<String>,
    /// For `move`: where the file is.
    from: Option<String>,
    /// `100644`, `100755` (executable) or `120000` (link); what it was if absent, for a new file `100644`.
    #[schema(example = "100644")]
    mode: Option<String>,
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChangeOp {
    /// Creates or replaces a file.
    Put,
    /// Removes a file or a directory.
    Delete,
    /// Renames a file or a directory.
    Move,
    /// Changes a file's mode.
    Chmod,
}

/// A commit that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommitMade {
    hash: String,
    tree: String,
    parents: Vec<String>,
    /// The repository's version that the commit is in.
    version: u64,
    branch: String,
    message: String,
    author: PersonInfo,
    committer: PersonInfo,
}

/// A commit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommitInfo {
    hash: String,
    tree: String,
    parents: Vec<String>,
    author: PersonInfo,
    committer: PersonInfo,
    message: String,
    /// The message's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_base64: Option<String>,
}

/// Commits, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommitPage {
    commits: Vec<CommitInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// A commit with what it changed against its first parent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommitDetail {
    #[serde(flatten)]
    commit: CommitInfo,
    files: Vec<FileInfo>,
    stats: CommitStats,
}

/// How much a commit changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommitStats {
    /// How many files are listed.
    files: usize,
    additions: u64,
    deletions: u64,
    /// Whether more files changed than are listed and counted.
    truncated: bool,
}

/// A changed file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FileInfo {
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `added`, `deleted`, `modified` or `type_changed`.
    #[schema(value_type = String, example = "modified")]
    status: &'static str,
    old_mode: Option<String>,
    new_mode: Option<String>,
    old_hash: Option<String>,
    new_hash: Option<String>,
    /// Added lines; null if the file is binary or too large to compare.
    additions: Option<u64>,
    /// Removed lines; null if the file is binary or too large to compare.
    deletions: Option<u64>,
}

/// Which part of a history.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// A branch, tag or commit; the default branch if absent.
    #[serde(rename = "ref")]
    rev: Option<String>,
    /// Only commits that change this file or directory.
    path: Option<String>,
    /// The page before's `next_cursor`; it goes on from the same commit even if the branch has moved since.
    cursor: Option<String>,
    /// How many commits at most; 50 if absent, at most 1000.
    limit: Option<usize>,
}

/// Make a commit
///
/// Any number of files, all or none, and nothing else is needed: no clone, no staging. State `expected_head` (or
/// `If-Match` with the commit's id; if both are there, both must hold) to be sure that nobody was faster, and
/// `on_conflict` to have the changes redone when somebody was.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/commits", tag = "commits", operation_id = "create_commit",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = NewCommit,
    responses((status = 201, description = "The commit is durable as the repository promises", body = CommitMade)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    headers: HeaderMap,
    body: RawJson,
) -> Result<Response, Problem> {
    commit(&app, repo, headers, body, None).await
}

/// Makes a commit on `target`, or on the branch that the body names.
pub(super) async fn commit(
    app: &App,
    repo: Repo,
    headers: HeaderMap,
    body: RawJson,
    target: Option<RefName>,
) -> Result<Response, Problem> {
    let (repo, of) = (repo.clone(), repo);
    let deadline = app.work.deadline();
    let made = if body.len() > INLINE_COMMIT_BYTES_MAX {
        let work = move || {
            let JsonBody(new, _held) = body.parse()?;
            make(&repo, &headers, new, target, deadline)
        };
        app.work.run(work).await??
    } else {
        let JsonBody(new, _held) = body.parse::<NewCommit>()?;
        if new.is_quick(repo.object_format()) {
            make(&repo, &headers, new, target, deadline)?
        } else {
            app.work.run(move || make(&repo, &headers, new, target, deadline)).await??
        }
    };
    let Made { committed, branch, message, author, committer } = made;
    self::made(&of, committed, &branch, message, &author, &committer).await
}

/// Answers with a commit once it is as durable as its repository promises.
pub(super) async fn made(
    repo: &Repo,
    committed: Committed,
    branch: &RefName,
    message: String,
    author: &Signature,
    committer: &Signature,
) -> Result<Response, Problem> {
    let version = committed.published.version;
    committed.published.ticket.await?;
    let answer = CommitMade {
        hash: committed.oid.to_string(),
        tree: committed.tree.to_string(),
        parents: committed.parents.iter().map(Oid::to_string).collect(),
        version,
        branch: branch.short().into_owned(),
        message,
        author: PersonInfo::from(author),
        committer: PersonInfo::from(committer),
    };
    let location = answer::location(repo.name().as_str(), &format!("/commits/{}", answer.hash));
    Ok(answer::created(&location, Some(&ETag::of(&committed.oid)), &answer))
}

/// List commits, newest first
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/commits", tag = "commits", operation_id = "list_commits",
    params(("id" = String, Path, description = "The repository, percent-encoded"), LogParams, AtParams),
    responses((status = 200, description = "A page of the history; empty before the first commit", body = CommitPage)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    Params(params): Params<LogParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let deadline = app.work.deadline();
    let page = app.work.run(move || log(&snapshot, &params, limit, deadline)).await??;
    Ok(page::with_next(answer::ok(&page), &uri, page.next_cursor.as_deref()))
}

/// Show a commit and the files that it changed
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/commits/{rev}", tag = "commits", operation_id = "get_commit",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("rev" = String, Path, description = "A commit, branch or tag, percent-encoded"),
        AtParams,
    ),
    responses((status = 200, description = "The commit", body = CommitDetail)),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    RestText(rev): RestText,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let oid = revision::commit(&app, &snapshot, &rev).await?;
    let etag = ETag::of(&oid);
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(response);
    }
    let deadline = app.work.deadline();
    let detail = app
        .work
        .run(move || {
            let commit = snapshot.commit(&oid)?;
            let changes = snapshot.changes(oid, FILES_MAX, Some(deadline))?;
            Ok::<_, Problem>(CommitDetail::new(&oid, &commit, &changes))
        })
        .await??;
    Ok(answer::tagged(answer::ok(&detail), &etag))
}

/// What was made of a request, before it is durable.
struct Made {
    committed: Committed,
    branch: RefName,
    message: String,
    author: Signature,
    committer: Signature,
}

fn make(
    repo: &Repo,
    headers: &HeaderMap,
    new: NewCommit,
    target: Option<RefName>,
    deadline: Instant,
) -> Result<Made, Problem> {
    check_message(&new.message)?;
    let snapshot = repo.snapshot();
    let branch = match (target, &new.branch) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("the path says where the commit goes, so branch must be absent"));
        }
        (Some(target), None) => target,
        (None, Some(name)) => RefName::branch(name)?,
        (None, None) => snapshot.head().clone(),
    };
    let (author, committer) = people(new.author.as_ref(), new.email.as_deref(), new.committer.as_ref())?;
    let from = new.create_branch_from.as_deref().map(|rev| snapshot.resolve_commit_until(rev, Some(deadline)));
    let current = snapshot.reference(&branch);
    // What can be missing or in the way: a file of a branch that is there, else the branch.
    let thing = match current {
        Some(_) => Thing::File,
        None if branch.is_reality() => Thing::Reality,
        None => Thing::Branch,
    };
    let format = snapshot.object_format();
    let stated = expected_head(format, new.expected_head)?;
    let demanded = conditional::demanded(headers, &branch, current)?;
    let by_header = demanded.is_some();
    let request = CommitRequest {
        message: new.message.clone(),
        author: author.clone(),
        committer: committer.clone(),
        expected_head: both(demanded, stated, &branch, current)?,
        on_conflict: new.on_conflict.map_or(OnConflict::Fail, OnConflict::from),
        create_branch_from: from.transpose().map_err(about(Thing::Rev))?,
        changes: new.changes.into_iter().map(|change| change.into_change(format)).collect::<Result<_, _>>()?,
        allow_empty: new.allow_empty,
        actor: ACTOR.to_owned(),
        deadline: Some(deadline),
        branch: branch.clone(),
    };
    let committed = repo.commit(request).map_err(|error| {
        let problem = about(thing)(error);
        if by_header { problem.of_precondition() } else { problem }
    })?;
    Ok(Made { committed, branch, message: new.message, author, committer })
}

/// Refuses what is no commit's message.
pub(super) fn check_message(message: &str) -> Result<(), Problem> {
    if message.trim().is_empty() {
        return Err(Problem::invalid("message is empty"));
    }
    if message.contains('\0') {
        return Err(Problem::invalid("message contains NUL, which git cannot store"));
    }
    Ok(())
}

/// The author and the committer of a request that may name neither; `email` stands beside the author.
pub(super) fn people(
    author: Option<&PersonInput>,
    email: Option<&str>,
    committer: Option<&PersonInput>,
) -> Result<(Signature, Signature), Problem> {
    let now = Moment::now();
    let author = match author {
        Some(person) => person.sign(email, now)?,
        None => people::nobody(email, now)?,
    };
    let committer = match committer {
        Some(person) => person.sign(None, now)?,
        None => Signature { seconds: now.seconds, offset_minutes: now.offset_minutes, ..author.clone() },
    };
    Ok((author, committer))
}

fn expected_head(format: ObjectFormat, wanted: Option<Option<String>>) -> Result<Expected, Problem> {
    match wanted {
        None => Ok(Expected::Any),
        Some(None) => Ok(Expected::Absent),
        Some(Some(hex)) => Ok(Expected::Is(oid(format, "expected_head", &hex)?)),
    }
}

/// What a branch must be for the headers, which `current` satisfies, and for the body.
fn both(
    demanded: Option<Expected>,
    stated: Expected,
    branch: &RefName,
    current: Option<Oid>,
) -> Result<Expected, Problem> {
    if demanded.is_some() && !stated.holds(current) {
        let expected = if let Expected::Is(oid) = stated { Some(oid) } else { None };
        let name = branch.as_str().into_owned();
        let conflict = RefConflict { name, expected, actual: current, paths: Vec::new() };
        return Err(Problem::conflict(Code::Conflict, conflict));
    }
    // What headers demand is what is there, so that it says as much as the body or more.
    Ok(demanded.unwrap_or(stated))
}

fn oid(format: ObjectFormat, member: &str, hex: &str) -> Result<Oid, Problem> {
    let digits = format.hex_len();
    let wrong = |_| Problem::invalid(format!("{member} is not an object id of {digits} hexadecimal digits"));
    format.oid_from_hex(hex.as_bytes()).map_err(wrong)
}

impl From<OnConflictInput> for OnConflict {
    fn from(input: OnConflictInput) -> Self {
        match input {
            OnConflictInput::Fail => OnConflict::Fail,
            OnConflictInput::Rebase => OnConflict::Rebase,
            OnConflictInput::Merge => OnConflict::Merge,
        }
    }
}

impl NewCommit {
    /// Whether it can be made without holding up others: a moved directory is measured, and a revision may be a walk.
    fn is_quick(&self, format: ObjectFormat) -> bool {
        self.changes.len() <= INLINE_CHANGES_MAX
            && self.changes.iter().all(|change| change.op != ChangeOp::Move)
            && !self.create_branch_from.as_deref().is_some_and(|rev| revision::may_walk(format, rev))
    }
}

impl ChangeInput {
    /// The change that puts one file.
    pub(super) fn put(
        path: String,
        content: Option<String>,
        content_base64: Option<String>,
        blob: Option<String>,
        mode: Option<String>,
    ) -> Self {
        Self { op: ChangeOp::Put, path, content, content_base64, blob, from: None, mode }
    }

    pub(super) fn into_change(self, format: ObjectFormat) -> Result<Change, Problem> {
        let Self { op, path, content, content_base64, blob, from, mode } = self;
        let shown = path.clone();
        let refuse = |what: &str| Problem::invalid(format!("the change of {shown:?} {what}"));
        let content = match (content, content_base64, blob) {
            (None, None, None) => None,
            (Some(text), None, None) => Some(Content::Bytes(Bytes::from(text))),
            (None, Some(text), None) => {
                let bytes = STANDARD.decode(text).map_err(|error| refuse(&format!("is not Base64: {error}")))?;
                Some(Content::Bytes(Bytes::from(bytes)))
            }
            (None, None, Some(hex)) => Some(Content::Blob(oid(format, "blob", &hex)?)),
            _ => return Err(refuse("has more than one of content, content_base64 and blob")),
        };
        let mode = match mode.as_deref().map(EntryMode::parse) {
            None => None,
            Some(Some(mode)) if mode.is_blob() || mode.is_submodule() => Some(mode),
            Some(_) => return Err(refuse("has a mode that no file has")),
        };
        if from.is_some() && op != ChangeOp::Move {
            return Err(refuse("has a from, but does not move"));
        }
        let path = path.into_bytes();
        match (op, content, mode) {
            (ChangeOp::Put, Some(content), mode) => Ok(Change::Put { path, content, mode }),
            (ChangeOp::Put, None, _) => Err(refuse("needs one of content, content_base64 and blob")),
            (ChangeOp::Delete, None, None) => Ok(Change::Delete { path }),
            (ChangeOp::Delete, ..) => Err(refuse("deletes, so it has no content or mode")),
            (ChangeOp::Move, content, mode) => {
                let from = from.ok_or_else(|| refuse("moves, so it needs a from"))?.into_bytes();
                Ok(Change::Move { from, path, content, mode })
            }
            (ChangeOp::Chmod, None, Some(mode)) => Ok(Change::Chmod { path, mode }),
            (ChangeOp::Chmod, ..) => Err(refuse("changes the mode, so it needs a mode and has no content")),
        }
    }
}

fn log(snapshot: &Snapshot, params: &LogParams, limit: usize, deadline: Instant) -> Result<CommitPage, Problem> {
    // A cursor holds what its first page started from: a branch that moves between two pages does not shift them.
    let after = match &params.cursor {
        Some(cursor) => Some(cursor.parse::<LogCursor>().map_err(|_| page::malformed())?),
        None => None,
    };
    let from = match (&after, &params.rev) {
        (Some(_), _) => Vec::new(),
        (None, Some(rev)) => {
            vec![snapshot.resolve_commit_until(rev, Some(deadline)).map_err(about(Thing::Rev))?]
        }
        (None, None) => snapshot.reference(snapshot.head()).into_iter().collect(),
    };
    let path = params.path.as_deref().map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
    let log = snapshot.log(LogOptions {
        from,
        path: path.map(|path| path.as_bytes().to_vec()),
        after,
        limit,
        deadline: Some(deadline),
    })?;
    let commits: Vec<_> = log.commits.iter().map(|(oid, commit)| CommitInfo::new(oid, commit)).collect();
    Ok(CommitPage { count: commits.len(), commits, next_cursor: log.next.map(|next| next.to_string()) })
}

impl CommitInfo {
    fn new(oid: &Oid, commit: &Commit) -> Self {
        let (message, message_base64) = answer::lossy(&commit.message);
        Self {
            hash: oid.to_string(),
            tree: commit.tree.to_string(),
            parents: commit.parents.iter().map(Oid::to_string).collect(),
            author: PersonInfo::from(&commit.author),
            committer: PersonInfo::from(&commit.committer),
            message,
            message_base64,
        }
    }
}

impl CommitDetail {
    fn new(oid: &Oid, commit: &Commit, changes: &ChangeSet) -> Self {
        let total = |count: fn(&FileChange) -> Option<u64>| changes.files.iter().filter_map(count).sum();
        Self {
            commit: CommitInfo::new(oid, commit),
            stats: CommitStats {
                files: changes.files.len(),
                additions: total(|file| file.additions),
                deletions: total(|file| file.deletions),
                truncated: changes.truncated,
            },
            files: changes.files.iter().map(FileInfo::from).collect(),
        }
    }
}

impl From<&FileChange> for FileInfo {
    fn from(file: &FileChange) -> Self {
        let (path, path_base64) = answer::lossy(&file.path);
        Self {
            path,
            path_base64,
            status: match file.status {
                ChangeStatus::Added => "added",
                ChangeStatus::Deleted => "deleted",
                ChangeStatus::Modified => "modified",
                ChangeStatus::TypeChanged => "type_changed",
            },
            old_mode: file.old.map(|(mode, _)| mode.to_octal()),
            new_mode: file.new.map(|(mode, _)| mode.to_octal()),
            old_hash: file.old.map(|(_, oid)| oid.to_string()),
            new_hash: file.new.map(|(_, oid)| oid.to_string()),
            additions: file.additions,
            deletions: file.deletions,
        }
    }
}

//! Transactions: changes staged one call at a time, validated, then committed all at once or rolled back.
//!
//! They live in the server's memory until their commit: nobody else sees them, and nothing of them survives that was not
//! committed. One that is not used for a while ends.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use govc_engine::{CommitDetails, OnConflict, RefName, Repo, Staging};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ACTOR, answer,
    commits::{self, ChangeInput, CommitMade, OnConflictInput},
    extract::{InRepo, JsonBody, RestText},
    people::PersonInput,
    problem::{Code, Problem, Thing, about},
};
use crate::{
    app::App,
    transactions::{OpenTransaction, TransactionError},
};

/// A transaction to be begun.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTransaction {
    /// The branch that will get the commit; the default branch if absent.
    branch: Option<String>,
    /// A reality instead of a branch.
    reality: Option<String>,
}

/// An open transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransactionInfo {
    #[schema(example = "tx_0123456789abcdef0123456789abcdef")]
    id: String,
    branch: String,
    /// The commit that the branch was at when the transaction began; null if there was none.
    base: Option<String>,
    /// How many changes are staged.
    changes: usize,
    /// Bytes of memory that they take.
    bytes: usize,
    /// How long the transaction lives after it was last used, in seconds.
    idle_seconds: u64,
}

/// Changes to be staged: one by its members, or many.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Additions {
    #[schema(example = "nginx.conf")]
    path: Option<String>,
    /// A text,
    content: Option<String>,
    /// or bytes in Base64,
    content_base64: Option<String>,
    /// or the id of a blob that the repository has.
    blob: Option<String>,
    #[schema(example = "100644")]
    mode: Option<String>,
    /// Any changes, as a commit has them, instead of one file.
    #[serde(default)]
    changes: Vec<ChangeInput>,
}

/// A file or directory to be removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    path: String,
}

/// A file or directory to be moved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    from: String,
    #[serde(alias = "path")]
    to: String,
}

/// What the commit says of itself.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Details {
    message: Option<String>,
    /// `govc <govc@localhost>` if absent.
    author: Option<PersonInput>,
    /// The address of an author that is a text.
    email: Option<String>,
    /// The author, now, if absent.
    committer: Option<PersonInput>,
    /// What to do when the branch has moved since the transaction began; `fail` if absent.
    on_conflict: Option<OnConflictInput>,
}

/// What the commit would be.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Validated {
    /// Always true: what is not valid is answered with the problem that the commit would have.
    valid: bool,
    /// The tree that the commit would have.
    tree: String,
}

/// Begin a transaction
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction", tag = "transactions", operation_id = "begin_transaction",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = NewTransaction,
    responses((status = 201, description = "The transaction", body = TransactionInfo)),
)]
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    JsonBody(new, _held): JsonBody<NewTransaction>,
) -> Result<Response, Problem> {
    let target = match (&new.branch, &new.reality) {
        (Some(_), Some(_)) => return Err(Problem::invalid("a transaction is of a branch or of a reality")),
        (Some(branch), None) => RefName::branch(branch)?,
        (None, Some(reality)) => RefName::reality(reality)?,
        (None, None) => repo.snapshot().head().clone(),
    };
    let thing = if target.is_reality() { Thing::Reality } else { Thing::Branch };
    let staging = repo.stage(target).map_err(about(thing))?;
    let info = TransactionInfo::of(&app, &staging);
    let transaction = app.transactions.begin(staging)?;
    let location = answer::location(repo.name().as_str(), &format!("/transaction/{}", transaction.id));
    Ok(answer::created(&location, None, &info(&transaction)))
}

/// Show a transaction
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/transaction/{tx}", tag = "transactions", operation_id = "get_transaction",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    responses((status = 200, description = "The transaction", body = TransactionInfo)),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
) -> Result<Response, Problem> {
    staged(&app, &repo, &rest, |_| Ok(()))
}

/// Stage files
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction/{tx}/add", tag = "transactions", operation_id = "add_to_transaction",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    request_body = Additions,
    responses((status = 200, description = "The transaction", body = TransactionInfo)),
)]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    JsonBody(body, _held): JsonBody<Additions>,
) -> Result<Response, Problem> {
    let (changes, format) = (body.into_changes()?, repo.object_format());
    staged(&app, &repo, &rest, |staging| {
        for change in changes {
            staging.push(change.into_change(format)?)?;
        }
        Ok(())
    })
}

/// Stage a removal
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction/{tx}/remove", tag = "transactions",
    operation_id = "remove_in_transaction",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    request_body = Removal,
    responses((status = 200, description = "The transaction", body = TransactionInfo)),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    JsonBody(body, _held): JsonBody<Removal>,
) -> Result<Response, Problem> {
    staged(&app, &repo, &rest, |staging| Ok(staging.remove(body.path)?))
}

/// Stage a move
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction/{tx}/move", tag = "transactions", operation_id = "move_in_transaction",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    request_body = Move,
    responses((status = 200, description = "The transaction", body = TransactionInfo)),
)]
pub(super) async fn rename(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    JsonBody(body, _held): JsonBody<Move>,
) -> Result<Response, Problem> {
    staged(&app, &repo, &rest, |staging| Ok(staging.rename(body.from, body.to)?))
}

/// Validate a transaction
///
/// Everything that the commit would do but publish it: 200, or the problem that the commit would have.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction/{tx}/validate", tag = "transactions",
    operation_id = "validate_transaction",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    request_body = Details,
    responses((status = 200, description = "It could be committed", body = Validated)),
)]
pub(super) async fn validate(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    JsonBody(body, _held): JsonBody<Details>,
) -> Result<Response, Problem> {
    let transaction = found(&app, &repo, &rest)?;
    let details = body.details(&app, Some("validate"))?;
    let server = Arc::clone(&app);
    let work = move || {
        let check = |staging: &mut Staging| staging.validate(details).map_err(about(Thing::File));
        server.transactions.with(&transaction, check)
    };
    let tree = app.work.run(work).await??;
    Ok(answer::ok(&Validated { valid: true, tree: tree.to_string() }))
}

/// Commit a transaction
///
/// All of it or nothing. A transaction that was not committed, by a conflict or otherwise, stays open.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction/{tx}/commit", tag = "transactions",
    operation_id = "commit_transaction",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    request_body = Details,
    responses((status = 201, description = "The commit is durable as the repository promises", body = CommitMade)),
)]
pub(super) async fn commit(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    JsonBody(body, _held): JsonBody<Details>,
) -> Result<Response, Problem> {
    let transaction = found(&app, &repo, &rest)?;
    let details = body.details(&app, None)?;
    let server = Arc::clone(&app);
    let work = move || {
        let made = server.transactions.finish(&transaction, |staging| {
            let committed = staging.commit(details.clone()).map_err(about(Thing::File))?;
            Ok::<_, Problem>((committed, staging.branch().clone()))
        })?;
        Ok::<_, Problem>((made, details))
    };
    let ((committed, branch), details) = app.work.run(work).await??;
    commits::made(&repo, committed, &branch, details.message, &details.author, &details.committer).await
}

/// Roll a transaction back
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/transaction/{tx}/rollback", tag = "transactions",
    operation_id = "roll_transaction_back",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("tx" = String, Path, description = "The transaction"),
    ),
    responses((status = 204, description = "Nothing is left of it")),
)]
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    _headers: HeaderMap,
) -> Result<Response, Problem> {
    let transaction = found(&app, &repo, &rest)?;
    if app.transactions.end(&transaction) { Ok(answer::no_content()) } else { Err(TransactionError::Gone.into()) }
}

/// The transaction that the first segment of `rest` names.
fn found(app: &App, repo: &Repo, rest: &str) -> Result<Arc<OpenTransaction>, Problem> {
    let id = rest.split('/').next().unwrap_or_default();
    Ok(app.transactions.find(id, repo.id())?)
}

/// Stages something, and shows what the transaction is then.
fn staged(
    app: &App,
    repo: &Repo,
    rest: &str,
    stage: impl FnOnce(&mut Staging) -> Result<(), Problem>,
) -> Result<Response, Problem> {
    let transaction = found(app, repo, rest)?;
    let info = app.transactions.with(&transaction, |staging| {
        stage(staging)?;
        Ok::<_, Problem>(TransactionInfo::of(app, staging)(&transaction))
    })?;
    Ok(answer::ok(&info))
}

impl TransactionInfo {
    fn of(app: &App, staging: &Staging) -> impl FnOnce(&OpenTransaction) -> Self + use<> {
        let branch = staging.branch().short().into_owned();
        let base = staging.base().map(|base| base.to_string());
        let (changes, bytes) = (staging.changes().len(), staging.bytes());
        let idle_seconds = app.transactions.idle().as_secs();
        move |transaction| Self { id: transaction.id.to_string(), branch, base, changes, bytes, idle_seconds }
    }
}

impl Additions {
    fn into_changes(self) -> Result<Vec<ChangeInput>, Problem> {
        let Self { path, content, content_base64, blob, mode, changes } = self;
        match path {
            Some(path) if changes.is_empty() => Ok(vec![ChangeInput::put(path, content, content_base64, blob, mode)]),
            None if [&content, &content_base64, &blob, &mode].iter().all(|member| member.is_none()) => Ok(changes),
            _ => Err(Problem::invalid("give one file by its members, or changes")),
        }
    }
}

impl Details {
    /// `message_default` is for those who have none yet.
    fn details(&self, app: &App, message_default: Option<&str>) -> Result<CommitDetails, Problem> {
        let message = self.message.as_deref().or(message_default).unwrap_or_default();
        commits::check_message(message)?;
        let (author, committer) =
            commits::people(self.author.as_ref(), self.email.as_deref(), self.committer.as_ref())?;
        Ok(CommitDetails {
            message: message.to_owned(),
            author,
            committer,
            on_conflict: self.on_conflict.map_or(OnConflict::Fail, OnConflict::from),
            actor: ACTOR.to_owned(),
            deadline: Some(app.work.deadline()),
        })
    }
}

impl From<TransactionError> for Problem {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Unknown => Self::new(Code::TransactionNotFound, "no such transaction"),
            TransactionError::Gone => Self::new(Code::TransactionGone, "the transaction has ended"),
            TransactionError::TooMany(limit) => {
                let detail = format!("there are as many open transactions as transactions.max_open allows: {limit}");
                Self::new(Code::LimitExceeded, detail)
            }
            TransactionError::TooLarge(limit) => {
                let detail = format!("open transactions hold as much as transactions.max_bytes allows: {limit} bytes");
                Self::new(Code::LimitExceeded, detail)
            }
        }
    }
}

//! Staging: a caller's changes that wait for a commit, seen by nobody else, checked as often as wanted, and gone without
//! a trace when they are dropped.

use std::time::Instant;

use super::{Change, CommitRequest, Committed, Content, OnConflict};
use crate::{
    Error, Result,
    object::{EntryMode, Oid, Signature},
    refs::{Expected, RefName},
    store::{Repo, Snapshot},
};

/// Changes of one branch, made for the commit that it was at when they were begun.
#[derive(Debug, Clone)]
pub struct Staging {
    repo: Repo,
    branch: RefName,
    base: Option<Oid>,
    /// Holds what the base leads to, however long the changes wait.
    _begun: Snapshot,
    changes: Vec<Change>,
    bytes: usize,
}

/// What a commit of staged changes says of itself.
#[derive(Debug, Clone)]
pub struct CommitDetails {
    /// The message.
    pub message: String,
    /// Who wrote the changes.
    pub author: Signature,
    /// Who commits them.
    pub committer: Signature,
    /// What to do when the branch has moved since the changes were begun.
    pub on_conflict: OnConflict,
    /// Who calls, for the version's record.
    pub actor: String,
    /// When to give up.
    pub deadline: Option<Instant>,
}

impl Repo {
    /// Begins to stage changes of a branch or reality, which may not exist yet in a repository without any.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if there are references, but not this one; [`crate::ErrorKind::Gone`] for a reality whose time is
    /// over.
    pub fn stage(&self, branch: RefName) -> Result<Staging> {
        let snapshot = self.snapshot();
        if branch.is_reality() {
            snapshot.reality(&branch)?;
        }
        let base = snapshot.reference(&branch);
        if base.is_none() && snapshot.reference_count() > 0 {
            return Err(Error::not_found(format!("branch {} does not exist", branch.short())));
        }
        Ok(Staging { repo: self.clone(), branch, base, _begun: snapshot, changes: Vec::new(), bytes: 0 })
    }
}

impl Staging {
    /// The repository.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The branch that gets the commit.
    pub fn branch(&self) -> &RefName {
        &self.branch
    }

    /// What the branch was at; `None` if it did not exist.
    pub fn base(&self) -> Option<Oid> {
        self.base
    }

    /// The changes, in the order in which they were staged.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Bytes of memory that the changes take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stages a file's content.
    ///
    /// # Errors
    /// As [`Staging::push`].
    pub fn add(&mut self, path: impl Into<Vec<u8>>, content: Content, mode: Option<EntryMode>) -> Result<()> {
        self.push(Change::Put { path: path.into(), content, mode })
    }

    /// Stages the removal of a file or directory.
    ///
    /// # Errors
    /// As [`Staging::push`].
    pub fn remove(&mut self, path: impl Into<Vec<u8>>) -> Result<()> {
        self.push(Change::Delete { path: path.into() })
    }

    /// Stages the move of a file or directory.
    ///
    /// # Errors
    /// As [`Staging::push`].
    pub fn rename(&mut self, from: impl Into<Vec<u8>>, path: impl Into<Vec<u8>>) -> Result<()> {
        self.push(Change::Move { from: from.into(), path: path.into(), content: None, mode: None })
    }

    /// Stages any change. Whether it fits the others is found out by [`Staging::validate`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::LimitExceeded`] for more changes than a commit may have.
    pub fn push(&mut self, change: Change) -> Result<()> {
        let limit = self.repo.limits().changes_max;
        if self.changes.len() >= limit {
            return Err(Error::limit("changes in one commit", self.changes.len() + 1, limit));
        }
        self.bytes += change.bytes();
        self.changes.push(change);
        Ok(())
    }

    /// Takes back all changes but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        let kept = count.min(self.changes.len());
        self.bytes -= self.changes.drain(kept..).map(|change| change.bytes()).sum::<usize>();
    }

    /// Makes the commit without publishing it; gives its tree.
    ///
    /// # Errors
    /// Those that [`Staging::commit`] would fail with.
    pub fn validate(&self, details: CommitDetails) -> Result<Oid> {
        self.repo.check_commit(self.request(details))
    }

    /// Commits the changes. They stay as they are, so that a commit which failed can be tried again.
    ///
    /// # Errors
    /// As [`Repo::commit`]; [`crate::ErrorKind::Conflict`] if the branch has moved and the changes are not to be redone, or
    /// cannot be.
    pub fn commit(&self, details: CommitDetails) -> Result<Committed> {
        self.repo.commit(self.request(details))
    }

    fn request(&self, details: CommitDetails) -> CommitRequest {
        CommitRequest {
            branch: self.branch.clone(),
            message: details.message,
            author: details.author,
            committer: details.committer,
            changes: self.changes.clone(),
            expected_head: self.base.map_or(Expected::Absent, Expected::Is),
            on_conflict: details.on_conflict,
            create_branch_from: None,
            allow_empty: false,
            actor: details.actor,
            deadline: details.deadline,
        }
    }
}

impl Change {
    /// Bytes of memory that the change takes.
    fn bytes(&self) -> usize {
        let content = |content: &Content| match content {
            Content::Bytes(bytes) => bytes.len(),
            Content::Blob(_) => 0,
        };
        let own = match self {
            Change::Put { path, content: bytes, .. } => path.len() + content(bytes),
            Change::Delete { path } | Change::Chmod { path, .. } => path.len(),
            Change::Move { from, path, content: bytes, .. } => {
                from.len() + path.len() + bytes.as_ref().map_or(0, content)
            }
        };
        own + size_of::<Change>()
    }
}

//! Bringing work to a branch that has gone on: by moving it, by a merge, or by making the commits again on top.

use std::time::Instant;

use super::{
    ancestry, check_deadline,
    merge::{Merged, merge_trees},
};
use crate::{
    Error, Result,
    object::{Commit, Kind, Oid, Signature},
    refs::RefName,
    store::{CommitLinks, Transaction},
};

/// Commits that are made again at most, and the bytes of them and their trees.
const COMMITS_MAX: usize = 10_000;
const BYTES_MAX: usize = 256 << 20;
/// Headers that sign a commit.
const SIGNATURES: [&[u8]; 3] = [b"gpgsig", b"gpgsig-sha256", b"mergetag"];

/// How work reaches a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Promotion {
    /// The branch is moved to the work's head, which must follow from it.
    FastForward,
    /// The same where that is possible, else a merge of both.
    #[default]
    Merge,
    /// The same where that is possible, else the work's commits are made again on top of the branch, one by one.
    Rebase,
}

/// Work to be brought to a branch.
pub struct Integration<'a> {
    /// The branch, to be named in conflicts.
    pub branch: &'a RefName,
    /// Its head.
    pub head: Oid,
    /// The work's newest commit.
    pub work: Oid,
    /// How.
    pub promotion: Promotion,
    /// Who merges or commits again; by default who committed the work.
    pub committer: Option<&'a Signature>,
    /// The message of a merge.
    pub message: String,
    /// When to give up.
    pub deadline: Option<Instant>,
}

impl Transaction {
    /// A commit that has what the branch has and the work, which the transaction brings or the repository has. Only puts
    /// objects into the transaction; where the branch or the work has all of it already, that is the commit.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] with where the two parted, the branch's head, and the paths that both changed;
    /// [`crate::ErrorKind::Invalid`] for merges to be made again, [`crate::ErrorKind::TooLarge`] for more than 10 000
    /// commits or 256 MiB of them; [`crate::ErrorKind::Cancelled`] after the deadline.
    pub fn integrate(&mut self, integration: &Integration<'_>) -> Result<Oid> {
        let Integration { head, work, .. } = *integration;
        let base = ancestry::merge_base(&|oid| self.links(oid), head, work, integration.deadline)?;
        if base == Some(head) {
            return Ok(work);
        }
        if base == Some(work) {
            return Ok(head);
        }
        let conflict = || Error::conflict(&integration.branch.as_str(), base, Some(head));
        let base = base.ok_or_else(conflict)?;
        match integration.promotion {
            Promotion::FastForward => Err(conflict()),
            Promotion::Merge => merge(self, integration, base, conflict),
            Promotion::Rebase => rebase(self, integration, base, conflict),
        }
    }

    /// Whether a commit leads back to another one, which the transaction brings or the repository has.
    ///
    /// # Errors
    /// What reading commits fails with, and [`crate::ErrorKind::Cancelled`] after the deadline.
    pub fn is_ancestor(&self, ancestor: Oid, commit: Oid, deadline: Option<Instant>) -> Result<bool> {
        Ok(ancestry::merge_base(&|oid| self.links(oid), ancestor, commit, deadline)? == Some(ancestor))
    }

    /// What a commit points at that the transaction brings or the repository has.
    fn links(&self, oid: &Oid) -> Result<CommitLinks> {
        if self.brings(oid) {
            CommitLinks::parse(self.repo().object_format(), &self.object(oid)?.data)
        } else {
            self.tip().commit_links(oid)
        }
    }

    /// A parsed commit that the transaction brings or the repository has.
    fn commit(&self, oid: &Oid) -> Result<Commit> {
        let object = self.object(oid)?;
        if object.kind != Kind::Commit {
            return Err(Error::invalid(format!("object {oid} is a {}, not a commit", object.kind)));
        }
        Commit::parse(&object.data)
    }
}

fn merge(
    transaction: &mut Transaction,
    integration: &Integration<'_>,
    base: Oid,
    conflict: impl Fn() -> Error,
) -> Result<Oid> {
    let Integration { head, work, deadline, .. } = *integration;
    let theirs = transaction.commit(&work)?;
    let trees = [transaction.commit(&base)?.tree, transaction.commit(&head)?.tree, theirs.tree];
    let tree = match merge_trees(transaction, trees[0], trees[1], trees[2], deadline)? {
        Merged::Tree(tree) => tree,
        Merged::Conflicts(paths) => return Err(conflict().with_paths(&paths)),
    };
    // Names of people are in the encoding of the commit that they come from.
    let (committer, encoding) = match integration.committer {
        Some(committer) => (committer, None),
        None => (&theirs.committer, theirs.encoding),
    };
    let commit = Commit {
        tree,
        parents: [head, work].into_iter().collect(),
        author: committer.clone(),
        committer: committer.clone(),
        encoding,
        extra_headers: Vec::new(),
        message: super::commit::message_bytes(&integration.message)?,
    };
    transaction.put(Kind::Commit, commit.to_bytes().into())
}

fn rebase(
    transaction: &mut Transaction,
    integration: &Integration<'_>,
    base: Oid,
    conflict: impl Fn() -> Error,
) -> Result<Oid> {
    let commits = line_since(transaction, base, integration)?;
    let mut onto = integration.head;
    let mut onto_tree = transaction.commit(&onto)?.tree;
    let bytes_before = transaction.fresh_bytes();
    for oid in commits.into_iter().rev() {
        let commit = transaction.commit(&oid)?;
        let parent_tree = match commit.parents.first() {
            Some(parent) => transaction.commit(parent)?.tree,
            None => onto_tree.format().empty_tree(),
        };
        let tree = match merge_trees(transaction, parent_tree, onto_tree, commit.tree, integration.deadline)? {
            Merged::Tree(tree) => tree,
            Merged::Conflicts(paths) => return Err(conflict().with_paths(&paths)),
        };
        if tree == onto_tree && commit.tree != parent_tree {
            // What it did is there already.
            continue;
        }
        let parents = [onto].into_iter().collect();
        let committer = integration.committer.unwrap_or(&commit.committer).clone();
        let mut extra_headers = commit.extra_headers;
        // They would be of another commit.
        extra_headers.retain(|(key, _)| !SIGNATURES.contains(&key.as_slice()));
        let again = Commit { tree, parents, committer, extra_headers, ..commit };
        onto = transaction.put(Kind::Commit, again.to_bytes().into())?;
        onto_tree = tree;
        if transaction.fresh_bytes() - bytes_before > BYTES_MAX {
            return Err(Error::too_large(format!(
                "commits made again take more than {BYTES_MAX} bytes; merge instead"
            )));
        }
    }
    Ok(onto)
}

/// The commits from the work back to `base`, without it, newest first; there must be no merge among them.
fn line_since(transaction: &Transaction, base: Oid, integration: &Integration<'_>) -> Result<Vec<Oid>> {
    let mut found = Vec::new();
    let mut at = integration.work;
    while at != base {
        check_deadline(integration.deadline)?;
        if found.len() == COMMITS_MAX {
            return Err(Error::too_large(format!("more than {COMMITS_MAX} commits would be made again")));
        }
        let [parent] = transaction.commit(&at)?.parents[..] else {
            return Err(Error::invalid(format!("{at} is a merge and cannot be made again; merge it instead")));
        };
        found.push(at);
        at = parent;
    }
    Ok(found)
}

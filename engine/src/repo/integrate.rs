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
    store::Transaction,
};

/// Commits that are made again at most.
const COMMITS_MAX: usize = 10_000;

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
    /// commits; [`crate::ErrorKind::Cancelled`] after the deadline.
    pub fn integrate(&mut self, integration: &Integration<'_>) -> Result<Oid> {
        let Integration { head, work, .. } = *integration;
        let base = ancestry::merge_base(&|oid| self.commit(oid), head, work, integration.deadline)?;
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
    let committer = integration.committer.unwrap_or(&theirs.committer);
    let commit = Commit {
        tree,
        parents: [head, work].into_iter().collect(),
        author: committer.clone(),
        committer: committer.clone(),
        encoding: None,
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
    let commits = commits_since(&|oid| transaction.commit(oid), base, integration.work, integration.deadline)?;
    if commits.len() == COMMITS_MAX {
        return Err(Error::too_large(format!("more than {COMMITS_MAX} commits would be made again")));
    }
    let mut onto = integration.head;
    let mut onto_tree = transaction.commit(&onto)?.tree;
    for (oid, commit) in commits.into_iter().rev() {
        let [parent] = commit.parents[..] else {
            return Err(Error::invalid(format!("{oid} is a merge and cannot be made again; merge it instead")));
        };
        let parent_tree = transaction.commit(&parent)?.tree;
        let tree = match merge_trees(transaction, parent_tree, onto_tree, commit.tree, integration.deadline)? {
            Merged::Tree(tree) => tree,
            Merged::Conflicts(paths) => return Err(conflict().with_paths(&paths)),
        };
        if tree == onto_tree {
            // What it did is there already.
            continue;
        }
        let parents = [onto].into_iter().collect();
        let committer = integration.committer.unwrap_or(&commit.committer).clone();
        // A signature would be of another commit.
        let again = Commit { tree, parents, committer, extra_headers: Vec::new(), ..commit };
        onto = transaction.put(Kind::Commit, again.to_bytes().into())?;
        onto_tree = tree;
    }
    Ok(onto)
}

/// The commits by first parents from `head` back to `base`, without it; newest first, at most 10 000.
pub(super) fn commits_since(
    read: &impl Fn(&Oid) -> Result<Commit>,
    base: Oid,
    head: Oid,
    deadline: Option<Instant>,
) -> Result<Vec<(Oid, Commit)>> {
    let mut found = Vec::new();
    let mut at = head;
    while at != base && found.len() < COMMITS_MAX {
        check_deadline(deadline)?;
        let commit = read(&at)?;
        let parent = commit.parents.first().copied();
        found.push((at, commit));
        let Some(parent) = parent else { break };
        at = parent;
    }
    Ok(found)
}

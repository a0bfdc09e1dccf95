//! Realities: many isolated lines of work from one version, applied to, compared, promoted or dropped.
//!
//! A reality is a reference under `refs/realities/` that remembers where it began and when it ends. It costs a few
//! hundred bytes, is made by the thousand in one publication, and takes part in no listing of branches. Commits go to it
//! as to a branch.

use std::{
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ChangeSet, check_deadline,
    merge::{Merged, merge_trees},
};
use crate::{
    Error, ErrorKind, Result,
    object::{Commit, Kind, Oid, Signature},
    refs::{Expected, Origin, Reality, RefEdit, RefName},
    store::{Cause, Published, Repo, Snapshot, Transaction},
};

/// How often a promotion is redone when the target moves meanwhile.
const ATTEMPTS_MAX: usize = 100;
/// Commits that are counted, and redone, of one reality.
const COMMITS_MAX: usize = 10_000;

/// Realities to be made.
#[derive(Debug, Clone)]
pub struct NewRealities {
    /// Their names, each once.
    pub names: Vec<RefName>,
    /// The commit that they begin at.
    pub base: Oid,
    /// The version that the commit was read from.
    pub version: u64,
    /// The branch that they come from, if any.
    pub from: Option<RefName>,
    /// How long they live.
    pub ttl: Option<Duration>,
    /// Who calls.
    pub actor: String,
}

/// How a reality's work reaches another branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Promotion {
    /// The branch is moved to the reality's head, which must follow from it.
    FastForward,
    /// The same where that is possible, else a merge of both.
    #[default]
    Merge,
    /// The reality's commits are made again on top of the branch, one by one.
    Rebase,
}

/// A promotion to be made.
#[derive(Debug, Clone)]
pub struct PromoteRequest {
    /// The reality.
    pub reality: RefName,
    /// The branch.
    pub target: RefName,
    /// How.
    pub promotion: Promotion,
    /// Whether the reality stays.
    pub keep: bool,
    /// Who merges or commits again.
    pub committer: Signature,
    /// The message of a merge; one is made if absent.
    pub message: Option<String>,
    /// Who calls.
    pub actor: String,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// A promotion that was made.
#[derive(Debug)]
pub struct Promoted {
    /// The branch's new head.
    pub oid: Oid,
    /// Its publication.
    pub published: Published,
}

/// A reality beside what it began with.
#[derive(Debug)]
pub struct Comparison {
    /// The files that differ.
    pub changes: ChangeSet,
    /// Commits since the base; at most 10 000 are counted.
    pub commits: usize,
}

impl Snapshot {
    /// A reality.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Gone`] once its time is over.
    pub fn reality(&self, name: &RefName) -> Result<&Reality> {
        let found = self.version().refs.reality(name);
        let reality = found.ok_or_else(|| Error::not_found(format!("reality {} does not exist", name.short())))?;
        if reality.is_expired(self.repo().now_millis()) {
            return Err(Error::new(ErrorKind::Gone, format!("the time of reality {} is over", name.short())));
        }
        Ok(reality)
    }

    /// The realities after a name, in order; those whose time is over are left out.
    pub fn realities<'a>(
        &'a self,
        after: Option<&RefName>,
    ) -> impl Iterator<Item = (&'a RefName, &'a Reality)> + use<'a> {
        let now = self.repo().now_millis();
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let all = self.version().refs.realities((from, Bound::Unbounded));
        all.filter(move |(_, reality)| !reality.is_expired(now))
    }

    /// The realities whose full names begin with `prefix`, in order, likewise.
    pub fn realities_with_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a RefName, &'a Reality)> {
        let now = self.repo().now_millis();
        let from = self.version().refs.realities(RefName::probe(prefix)..);
        let within = from.take_while(move |(name, _)| name.as_bytes().starts_with(prefix));
        within.filter(move |(_, reality)| !reality.is_expired(now))
    }

    /// What a reality has changed since it began; at most `limit` files.
    ///
    /// # Errors
    /// As [`Snapshot::reality`]; [`ErrorKind::Cancelled`] after the deadline.
    pub fn compare_reality(&self, name: &RefName, limit: usize, deadline: Option<Instant>) -> Result<Comparison> {
        let reality = self.reality(name)?;
        let (base, head) = (reality.origin.base, reality.head);
        let changes = self.changes_between(Some(base), head, limit, deadline)?;
        let commits = self.commits_since(base, head, deadline)?.len();
        Ok(Comparison { changes, commits })
    }

    /// The commits by first parents from `head` back to `base`, without it; newest first, at most 10 000.
    fn commits_since(&self, base: Oid, head: Oid, deadline: Option<Instant>) -> Result<Vec<(Oid, Commit)>> {
        let mut found = Vec::new();
        let mut at = head;
        while at != base && found.len() < COMMITS_MAX {
            check_deadline(deadline)?;
            let commit = self.commit(&at)?;
            let parent = commit.parents.first().copied();
            found.push((at, commit));
            let Some(parent) = parent else { break };
            at = parent;
        }
        Ok(found)
    }
}

impl Repo {
    /// Makes realities, all or none, in one publication.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] naming one that is there, [`ErrorKind::Invalid`] for a name outside of `refs/realities/` or
    /// given twice or for none at all, [`ErrorKind::NotFound`] if the base is no commit of the repository.
    pub fn create_realities(&self, new: NewRealities) -> Result<Published> {
        let now = self.now_millis();
        let ttl = new.ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let origin = Origin {
            version: new.version,
            base: new.base,
            from: new.from,
            created_millis: now,
            expires_millis: ttl.map(|ttl| now.saturating_add(ttl)),
        };
        if new.names.is_empty() {
            return Err(Error::invalid("no reality is named"));
        }
        let (count, limit) = (new.names.len(), self.limits().realities_max);
        if count > limit {
            return Err(Error::limit("realities in one call", count, limit));
        }
        let mut transaction = self.begin(&new.actor, Cause::Reality);
        transaction.set_origin(Arc::new(origin));
        for name in new.names {
            if !name.is_reality() {
                return Err(Error::invalid(format!("{name} is not under refs/realities/")));
            }
            transaction.edit(RefEdit { name, expected: Expected::Absent, target: Some(new.base) })?;
        }
        transaction.prepare().and_then(|prepared| prepared.publish()).map_err(|error| match error.kind() {
            ErrorKind::Conflict(conflict) => {
                Error::new(ErrorKind::Exists, format!("reference {} exists already", conflict.name))
            }
            _ => error,
        })
    }

    /// Drops realities, all or none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] naming one that is not there.
    pub fn drop_realities(&self, names: &[RefName], actor: &str) -> Result<Published> {
        self.retried(|| {
            let mut transaction = self.begin(actor, Cause::Reality);
            let tip = transaction.tip();
            for name in names {
                let found = tip.version().refs.reality(name);
                let head =
                    found.ok_or_else(|| Error::not_found(format!("reality {} does not exist", name.short())))?.head;
                transaction.edit(RefEdit { name: name.clone(), expected: Expected::Is(head), target: None })?;
            }
            transaction.prepare()?.publish()
        })
    }

    /// Brings a reality's work to a branch, and ends the reality unless it is to stay.
    ///
    /// # Errors
    /// As [`Snapshot::reality`]; [`ErrorKind::NotFound`] if there is no such branch; [`ErrorKind::Conflict`] with what
    /// the reality began with, the branch's head, and the paths that both changed; [`ErrorKind::Invalid`] if there is
    /// nothing to promote, or merges to be made again.
    pub fn promote(&self, request: &PromoteRequest) -> Result<Promoted> {
        self.retried(|| self.try_promote(request))
    }

    fn try_promote(&self, request: &PromoteRequest) -> Result<Promoted> {
        let mut transaction = self.begin(&request.actor, Cause::Reality);
        let tip = transaction.tip();
        let reality = tip.reality(&request.reality)?.clone();
        let target = tip
            .reference(&request.target)
            .ok_or_else(|| Error::not_found(format!("branch {} does not exist", request.target.short())))?;
        let base = tip.merge_base(target, reality.head, request.deadline)?;
        let conflict = || Error::conflict(&request.target.as_str(), base.or(Some(reality.origin.base)), Some(target));
        let head = if base == Some(target) {
            // Also where the target is there already: nothing moves.
            reality.head
        } else if base == Some(reality.head) {
            target
        } else {
            let base = base.ok_or_else(conflict)?;
            match request.promotion {
                Promotion::FastForward => return Err(conflict()),
                Promotion::Merge => merge(&mut transaction, request, base, target, reality.head, conflict)?,
                Promotion::Rebase => rebase(&mut transaction, request, base, target, reality.head, conflict)?,
            }
        };
        if head == target && request.keep {
            return Err(Error::invalid(format!(
                "reality {} has nothing that {} has not",
                request.reality.short(),
                request.target.short()
            )));
        }
        if head != target {
            let name = request.target.clone();
            transaction.edit(RefEdit { name, expected: Expected::Is(target), target: Some(head) })?;
        }
        if !request.keep {
            let name = request.reality.clone();
            transaction.edit(RefEdit { name, expected: Expected::Is(reality.head), target: None })?;
        }
        Ok(Promoted { oid: head, published: transaction.prepare()?.publish()? })
    }

    /// Does it again when somebody else publishes meanwhile. What conflicts by itself, with paths or without, is found
    /// before anything is published, so only a reference that has moved since is worth another attempt.
    fn retried<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 1..ATTEMPTS_MAX {
            let before = self.tip_number();
            match attempt() {
                Err(error) if matches!(error.kind(), ErrorKind::Conflict(_)) && self.tip_number() != before => {}
                outcome => return outcome,
            }
        }
        attempt()
    }
}

fn merge(
    transaction: &mut Transaction,
    request: &PromoteRequest,
    base: Oid,
    ours: Oid,
    theirs: Oid,
    conflict: impl Fn() -> Error,
) -> Result<Oid> {
    let tree = |transaction: &Transaction, oid: Oid| Ok::<_, Error>(transaction.tip().commit(&oid)?.tree);
    let trees = [tree(transaction, base)?, tree(transaction, ours)?, tree(transaction, theirs)?];
    let tree = match merge_trees(transaction, trees[0], trees[1], trees[2], request.deadline)? {
        Merged::Tree(tree) => tree,
        Merged::Conflicts(paths) => return Err(conflict().with_paths(&paths)),
    };
    let message = match &request.message {
        Some(message) => message.clone(),
        None => format!("Merge reality {} into {}", request.reality.short(), request.target.short()),
    };
    let commit = Commit {
        tree,
        parents: [ours, theirs].into_iter().collect(),
        author: request.committer.clone(),
        committer: request.committer.clone(),
        encoding: None,
        extra_headers: Vec::new(),
        message: super::commit::message_bytes(&message)?,
    };
    transaction.put(Kind::Commit, commit.to_bytes().into())
}

fn rebase(
    transaction: &mut Transaction,
    request: &PromoteRequest,
    base: Oid,
    onto: Oid,
    head: Oid,
    conflict: impl Fn() -> Error,
) -> Result<Oid> {
    let tip = transaction.tip();
    let commits = tip.commits_since(base, head, request.deadline)?;
    if commits.len() == COMMITS_MAX {
        return Err(Error::too_large(format!("more than {COMMITS_MAX} commits would be made again")));
    }
    let (mut onto, mut onto_tree) = (onto, tip.commit(&onto)?.tree);
    for (oid, commit) in commits.into_iter().rev() {
        let [parent] = commit.parents[..] else {
            return Err(Error::invalid(format!("{oid} is a merge and cannot be made again; promote by merge")));
        };
        let parent_tree = tip.commit(&parent)?.tree;
        let tree = match merge_trees(transaction, parent_tree, onto_tree, commit.tree, request.deadline)? {
            Merged::Tree(tree) => tree,
            Merged::Conflicts(paths) => return Err(conflict().with_paths(&paths)),
        };
        if tree == onto_tree {
            // What it did is there already.
            continue;
        }
        let parents = [onto].into_iter().collect();
        // A signature would be of another commit.
        let again = Commit { tree, parents, committer: request.committer.clone(), extra_headers: Vec::new(), ..commit };
        onto = transaction.put(Kind::Commit, again.to_bytes().into())?;
        onto_tree = tree;
    }
    Ok(onto)
}
